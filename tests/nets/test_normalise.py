import pytest
import torch

from dipmed.nets import normalise
from dipmed.nets.blocks import SLOPE
from dipmed.nets.channels import channels_last
from dipmed.nets.normalise import GroupNorm
from dipmed.nets.upsample import upsample_beside


def gradients_of(norm, x, weights, slope=1.0):
    x = x.detach().requires_grad_()
    norm.zero_grad()
    if isinstance(norm, GroupNorm) and norm.is_compiled_for(x):
        y = norm.rectified(x, slope)
    else:
        y = torch.nn.functional.leaky_relu(norm(x), slope)
    y.backward(weights.to(y.dtype))
    return y.detach().float(), x.grad.float(), norm.weight.grad.float(), norm.bias.grad.float()


@pytest.mark.parametrize("slope", [1.0, SLOPE])
@pytest.mark.parametrize("shape", [(1, 16, 128, 130), (2, 16, 21, 1), (1, 8, 32, 32, 33)])
def test_features_and_gradients_in_bfloat16_are_as_close_to_the_truth_as_torchs_own(shape, slope, generator):
    x = channels_last(1.5 * torch.randn(shape, generator=generator) + 0.3).bfloat16()
    weights = torch.randn(shape, generator=generator).bfloat16().float()
    ours, theirs = GroupNorm(4, shape[1]), torch.nn.GroupNorm(4, shape[1])
    torch.nn.init.normal_(ours.weight, generator=generator)
    torch.nn.init.normal_(ours.bias, generator=generator)
    theirs.load_state_dict(ours.state_dict())
    found = gradients_of(ours, x, weights, slope)
    theirs_bfloat16 = gradients_of(theirs, x, weights, slope)
    truth = gradients_of(theirs, x.float(), weights, slope)
    for ours_part, their_part, true_part in zip(found, theirs_bfloat16, truth, strict=True):
        of_theirs = float((their_part - true_part).norm())
        assert float((ours_part - true_part).norm()) <= max(1.1 * of_theirs, 0.002 * float(true_part.norm()))


def test_features_do_not_depend_on_the_threads_or_on_the_order_of_the_gradient(generator):
    x = channels_last(torch.randn(1, 64, 70, 90, generator=generator)).bfloat16()
    weights = torch.randn(x.shape, generator=generator)
    norm = GroupNorm(8, 64)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(gradients_of(norm, x, weights if threads == 2 else channels_last(weights), SLOPE))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_constant_features_become_the_bias():
    x = torch.full((1, 16, 9, 8), 3.0).bfloat16()
    norm = GroupNorm(4, 16)
    torch.nn.init.constant_(norm.bias, 0.5)
    assert torch.equal(norm(x), torch.full_like(x, 0.5))


def test_a_value_that_is_not_finite_is_not_hidden():
    x = torch.ones(1, 16, 9, 8).bfloat16()
    x[0, 3, 2, 1] = float("nan")
    y = GroupNorm(4, 16)(x)
    assert y[0, :4].isnan().all()
    assert y[0, 4:].isfinite().all()


def test_without_numba_and_in_float32_torch_does_it(generator, monkeypatch):
    ours, theirs = GroupNorm(2, 4), torch.nn.GroupNorm(2, 4)
    x, weights = torch.randn(1, 4, 8, 6, generator=generator), torch.randn(1, 4, 8, 6, generator=generator)
    for dtype in (torch.float32, torch.bfloat16):
        if dtype == torch.bfloat16:
            monkeypatch.setattr(normalise, "_has_numba", lambda: False)
        found, expected = (gradients_of(norm, x.to(dtype), weights, SLOPE) for norm in (ours, theirs))
        for a, b in zip(found, expected, strict=True):
            assert torch.equal(a, b)


def test_a_single_channel_can_be_laid_last():
    x = channels_last(torch.arange(12.0).view(1, 1, 3, 4))
    assert x.stride() == (12, 1, 4, 1)
    assert torch.equal(x, torch.arange(12.0).view(1, 1, 3, 4))
    convolution = torch.nn.Conv2d(1, 6, 3, padding=1)
    assert convolution(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("ndim", [2, 3])
def test_joined_features_in_bfloat16_have_the_values_and_gradients_of_float32(ndim, generator):
    coarse = channels_last(torch.randn(1, 3, *(4, 5, 6)[:ndim], generator=generator)).bfloat16()
    fine = channels_last(torch.randn(1, 2, *(8, 10, 12)[:ndim], generator=generator)).bfloat16()
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        a, b = (x.to(dtype).detach().requires_grad_() for x in (coarse, fine))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            joined = upsample_beside(a, b, "linear")
        assert joined.dtype == dtype
        assert joined.stride()[1] == 1
        joined.square().sum().backward()
        found.append((joined, a.grad, b.grad))
    for low, high in zip(*found, strict=True):
        torch.testing.assert_close(low.float(), high, rtol=0.02, atol=0.05)
