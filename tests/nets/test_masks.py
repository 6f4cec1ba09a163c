import pytest
import torch

from dipmed.nets import Hourglass, build
from dipmed.nets.masks import (
    call_masked,
    keep_largest,
    kept_share,
    mask_gradients,
    mask_weights,
    prunable_weights,
    relaxed_mask,
)
from dipmed.scan import DipmedError


@pytest.fixture
def network(generator):
    return build(lambda: Hourglass(3, 2, 2, channels=(4, 8)), generator)


@pytest.fixture
def x(generator):
    return torch.rand(1, 3, 12, 10, generator=generator)


def scores_of(network, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(w.shape, generator=generator) for name, w in prunable_weights(network).items()}


def test_kernels_alone_are_prunable(network):
    found = prunable_weights(network)
    assert sum(w.numel() for w in found.values()) == sum(p.numel() for p in network.parameters() if p.ndim == 4)
    assert all(network.get_parameter(name) is weight for name, weight in found.items())


def test_a_single_layer_has_one_prunable_weight():
    layer = torch.nn.Linear(3, 2)
    assert prunable_weights(layer)["weight"] is layer.weight


@pytest.mark.parametrize("share", [0.05, 1 / 3, 1.0])
def test_the_share_is_exact_and_holds_the_largest(network, share):
    scores = scores_of(network)
    masks = keep_largest(scores, share)
    flat_scores = torch.cat([s.flatten() for s in scores.values()])
    flat = torch.cat([m.flatten() for m in masks.values()])
    assert int(flat.sum()) == round(share * len(flat))
    assert kept_share(masks) == int(flat.sum()) / len(flat)
    assert share == 1 or flat_scores[flat].min() >= flat_scores[~flat].max()
    assert all(masks[name].shape == weight.shape for name, weight in prunable_weights(network).items())


def test_equal_scores_keep_the_share_all_the_same(network):
    zeros = {name: torch.zeros_like(score) for name, score in scores_of(network).items()}
    total = sum(score.numel() for score in zeros.values())
    assert kept_share(keep_largest(zeros, 0.05)) == round(0.05 * total) / total


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_that_cannot_be_kept_is_refused(network, share):
    with pytest.raises(DipmedError, match="at least one"):
        keep_largest(scores_of(network), share)


def test_what_is_masked_stays_zero_in_a_fit_and_the_rest_moves(network, x):
    masks = keep_largest(scores_of(network), 0.6)
    mask_weights(network, masks)
    before = {name: weight.detach().clone() for name, weight in prunable_weights(network).items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (network(x) - 1).square().sum().backward()
        mask_gradients(network, masks)
        optimizer.step()
    for name, weight in prunable_weights(network).items():
        assert not weight.detach()[~masks[name]].any()
        assert (weight.detach() != before[name])[masks[name]].float().mean() > 0.9


def test_gradients_that_are_missing_are_left_alone(network):
    mask_gradients(network, keep_largest(scores_of(network), 0.2))
    assert all(p.grad is None for p in network.parameters())


def test_calling_with_masks_is_masking_and_calling(network, x):
    masks = keep_largest(scores_of(network), 0.2)
    free = network(x)
    masked = call_masked(network, masks, x)
    assert torch.equal(network(x), free)
    mask_weights(network, masks)
    torch.testing.assert_close(masked, network(x))
    assert not torch.allclose(masked, free)


def test_gradients_reach_the_logits(network, x, generator):
    logits = {name: torch.zeros_like(w).requires_grad_() for name, w in prunable_weights(network).items()}
    masks = {name: relaxed_mask(logit, 0.2, generator) for name, logit in logits.items()}
    call_masked(network, masks, x).square().sum().backward()
    assert all(logit.grad is not None and logit.grad.abs().sum() > 0 for logit in logits.values())


def test_relaxed_masks_are_binary_in_the_limit_with_the_probability_of_their_logits(generator):
    logits = torch.tensor([-2.0, 0.0, 1.5]).expand(40_000, 3)
    mask = relaxed_mask(logits, 0.01, generator)
    assert ((mask < 0.01) | (mask > 0.99)).float().mean() > 0.95
    torch.testing.assert_close((mask > 0.5).float().mean(0), torch.sigmoid(logits[0]), atol=0.01, rtol=0)


def test_relaxed_masks_come_from_their_generator():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (relaxed_mask(torch.zeros(9), 0.2, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_noise_of_exactly_zero_leaves_numbers(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.zeros(3))
    logits = torch.zeros(3, requires_grad=True)
    mask = relaxed_mask(logits, 0.2, torch.Generator())
    mask.sum().backward()
    assert torch.isfinite(mask).all()
    assert torch.isfinite(logits.grad).all()
