import copy

import pytest
import torch

from dipmed.nets import ConvDecoder, build
from dipmed.nets.lipschitz import MeanNorm, bound_convolutions, lipschitz_penalty, subtract_means
from dipmed.scan import DipmedError


def fresh(seed=0, shape=(12, 10), *, means=False):
    network = build(
        lambda: ConvDecoder(3, 2, len(shape), shape=shape, channels=8, layers=3), torch.Generator().manual_seed(seed)
    )
    if means:
        subtract_means(network)
    return network


def seed_of(network):
    return torch.rand(1, 3, *network.seed_shape, generator=torch.Generator().manual_seed(1))


def convolutions(network):
    return [m for m in network.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Conv3d))]


def norms(network):
    return [float(torch.linalg.svdvals(m.weight.detach().flatten(1))[0]) for m in convolutions(network)]


@pytest.mark.parametrize("shape", [(12, 10), (9, 6, 7)])
def test_every_norm_is_below_the_bound_also_after_a_step(shape):
    network = fresh(shape=shape, means=True)
    assert len(bound_convolutions(network, 0.4, learnable=False)) == len(convolutions(network)) == 4
    assert max(norms(network)) == pytest.approx(0.4, rel=1e-5)
    before = norms(network)
    optimizer = torch.optim.Adam((p for p in network.parameters() if p.requires_grad), lr=0.3)
    network(seed_of(network)).square().sum().backward()
    optimizer.step()
    assert norms(network) != before
    assert max(norms(network)) <= 0.4 * (1 + 1e-5)


def test_kernels_within_the_bound_stay_as_they_are():
    network, free = fresh(), fresh()
    bound_convolutions(network, 100.0)
    assert torch.equal(network(seed_of(network)), free(seed_of(free)))


def test_without_a_number_the_bound_starts_at_the_norm():
    network, free = fresh(), fresh()
    bound_convolutions(network)
    assert norms(network) == pytest.approx(norms(free), rel=1e-5)
    assert float(lipschitz_penalty(network).detach()) == pytest.approx(sum(n**2 for n in norms(free)), rel=1e-5)


def test_the_penalty_pulls_the_bounds_down():
    network = fresh()
    bound_convolutions(network, 1.4)
    assert float(lipschitz_penalty(network).detach()) == pytest.approx(4 * 1.4**2, rel=1e-5)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        lipschitz_penalty(network).backward()
        optimizer.step()
    assert max(norms(network)) < 0.6


def test_gradients_reach_kernels_and_bounds():
    network = fresh(means=True)
    bound_convolutions(network, 0.4)
    network(seed_of(network)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_a_normalisation_would_undo_the_bound_and_a_mean_does_not():
    def change(means):
        free, bounded = fresh(means=means), fresh(means=means)
        # all but the last, which no normalisation follows
        free.out = bounded.out = torch.nn.Identity()
        bound_convolutions(bounded, 0.4)
        expected = free(seed_of(free)).detach()
        return float((bounded(seed_of(bounded)).detach() - expected).abs().max() / expected.abs().max())

    assert change(means=False) < 0.01
    assert change(means=True) > 0.3


def test_means_vanish_and_scales_stay(generator):
    x = 3 + 2 * torch.randn(2, 4, 8, 9, generator=generator)
    y = MeanNorm(4)(x)
    torch.testing.assert_close(y.mean((2, 3)), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((2, 3)), x.std((2, 3)))


def test_bounded_networks_can_be_copied_and_stored():
    network, other = fresh(), fresh(7)
    bound_convolutions(network, 0.4)
    bound_convolutions(other, 0.9)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(seed_of(network)), network(seed_of(network)))
    assert torch.equal(copy.deepcopy(network)(seed_of(network)), network(seed_of(network)))


def test_a_second_bound_is_refused():
    network = fresh()
    bound_convolutions(network)
    with pytest.raises(DipmedError, match="bound already"):
        bound_convolutions(network)


def test_a_bound_must_be_positive():
    with pytest.raises(DipmedError, match="must be positive"):
        bound_convolutions(fresh(), 0.0)


def test_a_network_without_bounds_has_no_penalty():
    with pytest.raises(DipmedError, match="no bounded convolution"):
        lipschitz_penalty(fresh())
