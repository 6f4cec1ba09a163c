import pytest
import torch

from dipmed.nets.channels import channels_last
from dipmed.nets.normalise import GroupNorm
from dipmed.nets.upsample import upsample_beside


def gradients_of(norm, x, weights):
    x = x.detach().requires_grad_()
    y = norm(x)
    (y.float() * weights).sum().backward()
    return y.detach().float(), x.grad.float(), norm.weight.grad.float(), norm.bias.grad.float()


@pytest.mark.parametrize("shape", [(1, 16, 128, 130), (2, 16, 128, 128), (1, 8, 32, 32, 33)])
def test_gradients_in_bfloat16_are_as_close_to_the_truth_as_torchs_own(shape, generator):
    x = channels_last(1.5 * torch.randn(shape, generator=generator) + 0.3).bfloat16()
    weights = torch.randn(shape, generator=generator).bfloat16().float()
    ours, theirs = GroupNorm(4, shape[1]), torch.nn.GroupNorm(4, shape[1])
    torch.nn.init.normal_(ours.weight, generator=generator)
    theirs.load_state_dict(ours.state_dict())
    found = gradients_of(ours, x, weights)
    theirs_bfloat16 = gradients_of(theirs, x, weights)
    theirs.zero_grad()
    truth = gradients_of(theirs, x.float(), weights)
    assert torch.equal(found[0], theirs_bfloat16[0])
    for ours_part, true_part in zip(found[1:], truth[1:], strict=True):
        assert float((ours_part - true_part).norm() / true_part.norm()) < 0.005


def test_float32_and_small_features_go_through_torch(generator):
    ours, theirs = GroupNorm(2, 4), torch.nn.GroupNorm(2, 4)
    x, weights = torch.randn(1, 4, 8, 6, generator=generator), torch.randn(1, 4, 8, 6, generator=generator)
    for a, b in zip(gradients_of(ours, x, weights), gradients_of(theirs, x, weights), strict=True):
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
