import math

import pytest
import torch
from torch import nn

from dipmed.config import FitConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.deep_decoder import DeepDecoder
from dipmed.scan import DipmedError

SMALL = {"channels": 24, "layers": 4}


def configured(modality, iterations):
    return DeepDecoder.configure(FitConfig(), modality).replace(iterations=iterations, stop="budget")


class Watched(DeepDecoder):
    """Keeps the fit, to look into it afterwards."""

    def begin(self, fit):
        self.fit = fit
        self.first_input = fit.input.clone()


def test_a_few_weights_and_no_kernel_that_sees_a_neighbour_explain_the_data(small_scan):
    y, A, truth, _ = small_scan
    method = Watched(**SMALL)
    image = DeepImagePrior(configured("mri", 80), method=method)(y, A).image
    sizes = {module.kernel_size for module in method.fit.network.modules() if isinstance(module, nn.Conv2d)}
    assert sizes == {(1, 1)}
    weights = sum(parameter.numel() for parameter in method.fit.network.parameters())
    assert weights == 4 * 24**2 + 4 * 2 * 24 + 2 * 24
    assert method.first_input.shape == (1, 24, 3, 3)
    assert 0 <= method.first_input.min() < method.first_input.max() < 0.1
    assert torch.equal(method.fit.input, method.first_input)
    assert (image - truth).norm() < 0.4 * truth.norm()


@pytest.mark.parametrize("scan", ["small_slice", "small_volume", "small_mri_volume"])
def test_projections_and_volumes_are_fitted(request, scan):
    y, A, truth = request.getfixturevalue(scan)
    config = configured("mri" if truth.is_complex() else "ct", 60)
    image = DeepImagePrior(config, method=DeepDecoder(channels=24, layers=3))(y, A).image
    assert image.shape == truth.shape
    assert (image - truth).norm() < 0.5 * truth.norm()


def test_few_weights_fit_little_of_pure_noise(small_scan):
    y, A, _, _ = small_scan
    noise = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1)) * A.mask
    losses = [
        DeepImagePrior(configured("mri", 60), method=DeepDecoder(channels=channels, layers=4))(noise, A).curves["loss"]
        for channels in (4, 48)
    ]
    few, many = (loss[-1][1] for loss in losses)
    assert math.isfinite(few)
    assert many < few - 0.05


def test_too_many_layers_for_the_image_are_refused(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match="fewer layers"):
        DeepImagePrior(configured("mri", 1), method=DeepDecoder())(y, A)


@pytest.mark.parametrize("options", [{"channels": 0}, {"layers": 1}])
def test_impossible_options_are_refused(options):
    with pytest.raises(DipmedError, match="layers or more"):
        DeepDecoder(**options)
