"""Images without negative values: the bend at zero, and the parts of pixels that it would leave dark."""

import math

import pytest
import torch

from dipmed.config import NetworkConfig, find_preset
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.plain import Default
from dipmed.dip.positive import without_negatives
from operators import FanBeam, Grid, SliceProjector, StackedProjector, angles_over


@pytest.fixture(params=[(2, 1, 12, 8), (1, 2, 12, 8, 3)], ids=["slices", "stack"])
def image(request):
    return 0.05 + torch.rand(request.param, generator=torch.Generator().manual_seed(0))


def gradient_of(image, n_parts):
    image = image.clone().requires_grad_()
    bent = without_negatives(image, n_parts)
    bent.sum().backward()
    return bent.detach(), image.grad


@pytest.mark.parametrize("n_parts", [1, 2])
def test_what_is_positive_stays_and_what_is_below_zero_is_bent_to_it(image, n_parts):
    image[:, :, :2, :2] = -1.0
    bent, gradient = gradient_of(image, n_parts)
    torch.testing.assert_close(bent, torch.log1p(torch.exp(50 * image.double())).float() / 50)
    assert float(bent.min()) >= 0
    torch.testing.assert_close(gradient, torch.sigmoid(50 * image))
    assert float(gradient[:, :, :2, :2].max()) < 1e-20


@pytest.mark.parametrize("n_parts", [2, 4])
def test_a_dark_part_of_all_pixels_has_a_gradient_nevertheless(image, n_parts):
    image[0, 0, 1::n_parts, 0::n_parts] = -1.0
    bent, gradient = gradient_of(image, n_parts)
    torch.testing.assert_close(bent, without_negatives(image))
    expected = torch.sigmoid(50 * image)
    expected[0, 0, 1::n_parts, 0::n_parts] = 1.0
    torch.testing.assert_close(gradient, expected)


class Dark(Default):
    """The default from weights that leave one part of each pixel dark; keeps its last image."""

    def make_network(self, fit, n_in, n_out):
        network = super().make_network(fit, n_in, n_out)
        with torch.no_grad():
            network.out.bias[1] = -0.4
        return network

    def result(self, fit, image):
        self.last = image
        return super().result(fit, image)


@pytest.mark.parametrize("n_slices", [1, 2])
def test_a_part_that_begins_dark_becomes_bright(n_slices):
    x, y = torch.meshgrid(torch.arange(-16.0, 16), torch.arange(-16.0, 16), indexing="ij")
    truth = 0.02 * ((x / 12) ** 2 + (y / 10) ** 2 < 1).float()[None]
    grid, beam = Grid((32, 32), (1.0, 1.0)), FanBeam(angles_over(20, 2 * math.pi), 48, 2.0, 100.0, 200.0)
    A = SliceProjector(grid, beam)
    if n_slices > 1:
        A, truth = StackedProjector(A, n_slices), truth[..., None].expand(-1, -1, -1, n_slices)
    network = NetworkConfig(channels=(16, 16), skip_channels=8)
    method = Dark()
    config = find_preset("ct-2d").replace(network=network, iterations=250, input_share=0.0, averaging=0.0)
    DeepImagePrior(config, method=method)(A(truth), A)
    means = torch.stack([method.last[0, 0, i::2, j::2].mean() for i in (0, 1) for j in (0, 1)])
    assert float(means.min() / means.mean()) > 0.6
