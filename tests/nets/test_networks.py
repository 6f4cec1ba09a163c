import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dipmed.config import NetworkConfig
from dipmed.nets import (
    channels_last,
    checkpoint_activations,
    crop_to,
    make_network,
    pad_to_multiple,
    to_channels,
    to_image,
)
from dipmed.nets.blocks import convolution
from dipmed.nets.channels import blocks_as_channels, channels_as_blocks
from dipmed.nets.upsample import upsample_linear, upsample_linear_by_slices
from dipmed.scan import DipmedError

SMALL = NetworkConfig(channels=(8, 8), skip_channels=4)


def fresh(seed, ndim=2):
    return make_network(SMALL, 2, 2, ndim, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("ndim", [2, 3])
def test_same_seed_same_weights(ndim):
    first, again, other = fresh(3, ndim), fresh(3, ndim), fresh(4, ndim)
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_global_random_state_is_untouched():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    fresh(1)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("shape", [(12, 8), (4, 8, 12)])
def test_network_keeps_the_shape(shape):
    network = fresh(0, len(shape))
    assert network(torch.randn(3, 2, *shape)).shape == (3, 2, *shape)


def test_blocks_of_pixels_are_seen_and_made_as_channels():
    from torch.nn.functional import pixel_shuffle, pixel_unshuffle

    blocks = make_network(SMALL, 2, 1, 2, torch.Generator().manual_seed(0), block=2)
    inner = make_network(SMALL, 8, 4, 2, torch.Generator().manual_seed(0))
    x = torch.randn(3, 2, 16, 24)
    torch.testing.assert_close(blocks(x), pixel_shuffle(inner(pixel_unshuffle(x, 2)), 2))
    assert blocks(x[..., :14, :10]).shape == (3, 1, 14, 10)


def test_slices_of_a_batch_do_not_mix():
    network = fresh(0)
    x = torch.randn(3, 2, 8, 8)
    together = network(x)
    for index in range(3):
        torch.testing.assert_close(network(x[index : index + 1])[0], together[index], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(12, 8), (4, 8, 12)])
def test_features_that_are_computed_again_give_the_same_gradients(shape, precision):
    x = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(1))
    held = []

    def keep(features):
        held[-1] += features.numel()
        return features

    gradients = []
    for checkpointing in (False, True):
        network = fresh(0, len(shape))
        if checkpointing:
            checkpoint_activations(network)
        held.append(0)
        watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda features: features)
        with watched, torch.autocast("cpu", precision, enabled=precision != torch.float32):
            y = network(x)
        y.float().square().sum().backward()
        gradients.append([weights.grad for weights in network.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert held[1] < 0.5 * held[0]


@pytest.mark.parametrize("shape", [(24, 1), (24, 2), (16, 16, 2), (4, 6, 5), (2, 6, 5), (2, 2, 2), (1, 6, 5)])
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_thin_images_are_convolved_right_in_bfloat16(shape, size, stride):
    layer = convolution(len(shape), 16, 32, size, stride)
    x = torch.randn(1, 16, *shape, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    made = []
    for precision in (torch.float32, torch.bfloat16):
        spoilt = [torch.full((size,), torch.nan) for size in (1024, 8192, 16384, 32768, 65536, 131072)]
        del spoilt  # memory that is taken next holds NaN
        seen = channels_last(x).requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            y = layer(seen)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16().float()
        layer.weight.grad = None
        (y.float() * weights).sum().backward()
        made.append((y.detach().float(), seen.grad, layer.weight.grad))
    for exact, rounded in zip(*made, strict=True):
        assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_initial_weights_have_the_scale_of_torch_convolutions():
    ours = make_network(NetworkConfig((64, 64), 64), 2, 2, 2, torch.Generator().manual_seed(0))
    for module in ours.modules():
        if isinstance(module, torch.nn.Conv2d) and module.weight.numel() > 1000:
            theirs = torch.nn.Conv2d(module.in_channels, module.out_channels, module.kernel_size)
            assert float(module.weight.detach().std()) == pytest.approx(float(theirs.weight.detach().std()), rel=0.05)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(0, 99))
def test_upsampling_by_slices_equals_torch(shape, seed):
    x = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(upsample_linear_by_slices(x), upsample_linear(x))


@given(st.lists(st.integers(1, 9), min_size=2, max_size=3), st.sampled_from([2, 4, 8]))
def test_padding_and_cropping_are_inverse(shape, multiple):
    x = torch.randn(1, 2, *shape)
    padded = pad_to_multiple(x, len(shape) * (multiple,))
    assert all(n % multiple == 0 for n in padded.shape[2:])
    assert torch.equal(crop_to(padded, tuple(shape)), x)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 3)])
def test_blocks_of_a_plane_become_channels_and_come_back(shape):
    x = torch.arange(2.0 * 3 * math.prod(shape)).reshape(2, 3, *shape).requires_grad_()
    gathered = blocks_as_channels(x, 2)
    assert gathered.shape == (2, 12, 3, 2, *shape[2:])
    # channel by channel, the block row by row
    assert torch.equal(gathered[:, 4 * 1 + 2 * 1 + 0], x[:, 1, 1::2, 0::2])
    back = channels_as_blocks(gathered, 2)
    assert torch.equal(back, x)
    (back * x.detach()).sum().backward()
    assert torch.equal(x.grad, x.detach())


def test_a_network_of_blocks_pads_planes_to_them_and_slices_as_ever():
    network = make_network(NetworkConfig((8, 8), 4), 1, 1, 3, torch.Generator().manual_seed(0), block=2)
    seen = []
    network.skips[0].register_forward_hook(lambda _, inputs, __: seen.append(tuple(inputs[0].shape)))
    assert network(torch.randn(1, 1, 14, 10, 5)).shape == (1, 1, 14, 10, 5)
    assert seen == [(1, 4, 8, 8, 8)]


@given(st.lists(st.integers(1, 5), min_size=2, max_size=3))
def test_channels_and_complex_are_inverse(shape):
    x = torch.randn(2, 1, *shape, dtype=torch.complex64)
    assert to_channels(x).shape == (2, 2, *shape)
    assert torch.equal(to_image(to_channels(x)), x)


def test_a_network_without_channels_is_refused():
    with pytest.raises(DipmedError, match="at least one scale"):
        NetworkConfig(channels=())
