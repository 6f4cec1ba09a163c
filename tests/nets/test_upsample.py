import numpy as np
import pytest
import torch

from dipmed.config import NetworkConfig
from dipmed.nets import Gaussian, Kaiser, UNet, build
from dipmed.nets.low_pass import LowPass
from dipmed.nets.upsample import Resize, upsample, upsample_low_pass, upsample_nearest, upsample_nearest_by_slices
from dipmed.scan import DipmedError

FILTERS = [Kaiser(), Kaiser(7, 0.0), Kaiser(15, 8.0), Gaussian(), Gaussian(5, 0.1), Gaussian(9, 2.0)]


def response(low_pass: LowPass, frequencies):
    """Gain relative to that of constants, at frequencies in cycles per pixel of the finer grid."""
    taps = np.array(low_pass.taps)
    positions = np.arange(len(taps)) - len(taps) // 2
    return np.abs(np.exp(-2j * np.pi * np.outer(frequencies, positions)) @ taps) / 2


@pytest.mark.parametrize("low_pass", FILTERS)
@pytest.mark.parametrize("shape", [(5, 4), (3, 1, 6)])
def test_filters_pass_constants_up_to_the_edge(low_pass, shape):
    raised = upsample_low_pass(torch.full((1, 2, *shape), 0.7, dtype=torch.float64), low_pass)
    torch.testing.assert_close(raised, torch.full_like(raised, 0.7), rtol=1e-14, atol=0)
    assert raised.shape == (1, 2, *(2 * n for n in shape))


@pytest.mark.parametrize("low_pass", FILTERS)
def test_filters_are_zero_insertion_and_a_convolution(low_pass, generator):
    x = torch.randn(1, 1, 24, dtype=torch.float64, generator=generator)
    zeros = torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)
    taps = torch.tensor(low_pass.taps, dtype=torch.float64)
    expected = torch.nn.functional.conv1d(zeros, taps.flip(0)[None, None], padding=len(taps) // 2)
    inner = slice(len(taps), -len(taps))
    torch.testing.assert_close(upsample_low_pass(x, low_pass)[..., inner], expected[..., inner])


@pytest.mark.parametrize("low_pass", [Kaiser(), Kaiser(15, 6.0), Gaussian(7, 1.0), Gaussian(9, 1.5)])
def test_filters_suppress_the_image_band(low_pass):
    # what a frequency of the coarser grid, up to half its limit, leaves behind at the finer one's far end
    band = response(low_pass, np.linspace(0.375, 0.5, 100))
    interpolated = response(Gaussian(3, 0.1), np.linspace(0.375, 0.5, 100))
    assert band.max() < 0.4 * interpolated.max()
    assert band[-1] < 1e-12


def test_the_strength_of_a_gaussian_is_its_width():
    gains = [response(Gaussian(9, sigma), [0.25])[0] for sigma in (0.5, 1.0, 1.5)]
    assert gains == sorted(gains, reverse=True)
    # the Fourier transform of a Gaussian, which its sampling hardly changes
    assert gains[2] == pytest.approx(np.exp(-2 * (np.pi * 1.5 * 0.25) ** 2), abs=0.01)


def test_a_kaiser_filter_keeps_the_samples(generator):
    x = torch.randn(1, 2, 6, 7, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(upsample_low_pass(x, Kaiser())[..., ::2, ::2], x)


def test_a_narrow_gaussian_interpolates_linearly(generator):
    x = torch.randn(1, 1, 6, dtype=torch.float64, generator=generator)
    raised = upsample_low_pass(x, Gaussian(5, 0.05))
    torch.testing.assert_close(raised[..., ::2], x)
    torch.testing.assert_close(raised[..., 1:-1:2], (x[..., 1:] + x[..., :-1]) / 2)


@pytest.mark.parametrize(("size", "message"), [(4, "odd number"), (1, "odd number")])
def test_filters_without_a_centre_are_refused(size, message):
    with pytest.raises(DipmedError, match=message):
        Kaiser(size)


def test_filters_without_a_width_are_refused():
    with pytest.raises(DipmedError, match="sigma must be positive"):
        Gaussian(5, 0.0)


@pytest.mark.parametrize("method", ["nearest", "linear"])
@pytest.mark.parametrize(("size_in", "size_out"), [((8, 4), (15, 8)), ((3, 5, 4), (7, 5, 9))])
def test_resizing_by_matrices_equals_torch(method, size_in, size_out, generator):
    resize = Resize(size_in, size_out, method)
    x = torch.randn(2, 3, *size_in, generator=generator)
    torch.testing.assert_close(resize.by_matrices(x), resize(x))
    assert resize(x).shape == (2, 3, *size_out)


@pytest.mark.parametrize("low_pass", FILTERS)
@pytest.mark.parametrize("size_out", [(10, 8), (9, 7)])
def test_resizing_by_a_filter_doubles_and_cuts(low_pass, size_out, generator):
    x = torch.randn(2, 3, 5, 4, generator=generator)
    doubled = upsample_low_pass(x, low_pass)[..., : size_out[0], : size_out[1]]
    torch.testing.assert_close(Resize((5, 4), size_out, low_pass)(x), doubled)


@pytest.mark.parametrize("shape", [(5, 4), (3, 1, 6)])
def test_nearest_by_slices_equals_torch(shape, generator):
    x = torch.randn(1, 2, *shape, generator=generator)
    assert torch.equal(upsample_nearest_by_slices(x), upsample_nearest(x))


@pytest.mark.parametrize("method", ["nearest", "linear", "kaiser", "gaussian"])
def test_a_unet_with_any_upsampling(method, generator):
    config = NetworkConfig((8, 8), 4, 4)
    network = build(lambda: UNet(config, 2, 3, 2, upsample=method), generator)
    x = torch.rand(1, 2, 12, 8, generator=generator, requires_grad=True)
    network(x).sum().backward()
    assert network(x).shape == (1, 3, 12, 8)
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_methods_differ(generator):
    x = torch.randn(1, 1, 6, 6, generator=generator)
    results = [upsample(x, method) for method in ("nearest", "linear", "kaiser", "gaussian", Gaussian(5, 2.0))]
    for index, result in enumerate(results):
        assert all(not torch.allclose(result, other) for other in results[:index])
