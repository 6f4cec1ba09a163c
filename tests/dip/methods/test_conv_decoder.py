import pytest
import torch

from dipmed.config import FitConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.methods.conv_decoder import ConvDecoder
from dipmed.scan import DipmedError
from operators import CartesianMRI, NonCartesianMRI, centred_fft, density_compensation, radial

CONFIG = ConvDecoder.configure(FitConfig(), "mri").replace(iterations=50)
CT_CONFIG = ConvDecoder.configure(FitConfig(), "ct").replace(iterations=50, stop="budget")
SMALL = {"channels": 16, "layers": 5}


class Watched(ConvDecoder):
    """Keeps the fit, to look into it afterwards."""

    def begin(self, fit):
        self.fit = fit
        self.first_input = fit.input.clone()

    def predict(self, fit, seen):
        self.prediction = super().predict(fit, seen)
        return self.prediction


@pytest.mark.parametrize("method", [Watched(**SMALL), Watched(coil_images=True, **SMALL)])
def test_a_small_fixed_input_becomes_a_better_image_than_the_zero_filled_one(small_scan, method):
    y, A, truth, _ = small_scan
    image = DeepImagePrior(CONFIG.replace(iterations=150), method=method)(y, A).image
    assert method.first_input.shape == (1, 16, 8, 4)
    assert 0 <= method.first_input.min() < 0.1 < 0.9 < method.first_input.max() <= 1
    assert torch.equal(method.fit.input, method.first_input)
    assert (image - truth).norm() < 0.95 * (A.adjoint(y) - truth).norm()


def test_coil_images_are_compared_with_the_fitted_samples_of_their_coil(small_scan):
    y, A, _, _ = small_scan
    method = Watched(coil_images=True, **SMALL)
    DeepImagePrior(CONFIG.replace(iterations=10, kspace_exponent=0.5), method=method)(y, A)
    problem = method.fit.problem
    coils = method.prediction.detach().clone().requires_grad_()
    assert coils.shape == (1, 4, 24, 20)
    residual = (centred_fft(coils[0], 2) - problem.y_fit) * problem.A_fit.mask
    loss = (problem.weights * residual.abs().square()).sum()
    loss = loss / (problem.weights * problem.y_fit.abs().square()).sum()
    loss.backward()
    value, gradient = method.data_term(method.fit, coils.detach())
    torch.testing.assert_close(value, loss.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, coils.grad, rtol=1e-3, atol=1e-6)
    # what was held out is not among the samples
    assert problem.held_out_mask.any()
    assert not (problem.A_fit.mask & problem.held_out_mask).any()


def test_an_image_is_judged_that_gives_the_coil_images_back(small_scan):
    y, A, truth, _ = small_scan
    coils = (A.maps * truth)[None]
    for combine, expected in (("maps", truth), ("rss", truth.abs().to(truth.dtype))):
        method = Watched(coil_images=True, combine=combine, **SMALL)
        DeepImagePrior(CONFIG.replace(iterations=1), method=method)(y, A)
        torch.testing.assert_close(method.image(method.fit, coils)[0], expected, rtol=1e-4, atol=1e-5)


def test_several_sets_of_maps_give_an_image_each(small_scan):
    y, A, _, _ = small_scan
    two = CartesianMRI(torch.stack([A.maps, torch.roll(A.maps, 1, 0)]), A.mask)
    image = DeepImagePrior(CONFIG.replace(iterations=3), method=ConvDecoder(coil_images=True, **SMALL))(y, two).image
    assert image.shape == (2, 24, 20)
    with pytest.raises(DipmedError, match="several sets"):
        DeepImagePrior(CONFIG, method=ConvDecoder(coil_images=True, combine="rss", **SMALL))(y, two)


def test_the_root_of_squares_owes_the_end_to_no_map(small_scan):
    y, A, _, _ = small_scan
    halved = CartesianMRI(A.maps / 2, A.mask)
    config = CONFIG.replace(iterations=5, stop="budget", averaging=0.0)
    method = Watched(coil_images=True, combine="rss", **SMALL)
    result = DeepImagePrior(config, method=method)(y, halved)
    rss = torch.linalg.vector_norm(method.prediction.detach(), dim=1) / method.fit.problem.scale
    torch.testing.assert_close(result.image.abs(), rss)


@pytest.mark.parametrize("scan", ["small_slice", "small_volume", "small_mri_volume"])
def test_projections_and_volumes_are_fitted(request, scan):
    y, A, truth = request.getfixturevalue(scan)
    config = CONFIG.replace(stop="budget") if truth.is_complex() else CT_CONFIG
    result = DeepImagePrior(config, method=ConvDecoder(channels=16, layers=4))(y, A)
    assert result.image.shape == truth.shape
    assert (result.image - truth).norm() < 0.5 * truth.norm()


def test_coil_images_of_a_volume(small_mri_volume):
    y, A, truth = small_mri_volume
    method = ConvDecoder(channels=16, layers=4, coil_images=True)
    result = DeepImagePrior(CONFIG.replace(iterations=100, stop="budget"), method=method)(y, A)
    assert (result.image - truth).norm() < 0.5 * truth.norm()


def test_coil_images_need_a_grid(small_slice, small_scan):
    method = ConvDecoder(coil_images=True, **SMALL)
    y, A, _ = small_slice
    with pytest.raises(DipmedError, match="Cartesian MRI"):
        DeepImagePrior(CT_CONFIG, method=method)(y, A)
    _, A, truth, _ = small_scan
    trajectory = radial((24, 20), 24).flatten(0, 1).float()
    spokes = NonCartesianMRI(A.maps, trajectory, density_compensation(trajectory, (24, 20)))
    with pytest.raises(DipmedError, match="Cartesian MRI"):
        DeepImagePrior(CONFIG, method=method)(spokes(truth), spokes)
    image = DeepImagePrior(CONFIG, method=ConvDecoder(**SMALL))(spokes(truth), spokes).image
    assert (image - truth).norm() < 0.5 * truth.norm()


@pytest.mark.parametrize(
    ("options", "changes", "says"),
    [
        ({}, {"inputs": ("zero-filled",)}, "its own input"),
        ({"coil_images": True}, {"phase_weight": 0.1}, "phase_weight=0"),
    ],
)
def test_settings_without_a_meaning_are_refused(small_scan, options, changes, says):
    y, A, _, _ = small_scan
    with pytest.raises(DipmedError, match=says):
        DeepImagePrior(CONFIG.replace(**changes), method=ConvDecoder(**options, **SMALL))(y, A)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"channels": 0}, "channels"), ({"layers": 1}, "layers"), ({"combine": "rss"}, "coil_images")],
)
def test_impossible_options_are_refused(options, says):
    with pytest.raises(DipmedError, match=says):
        FIT_METHODS["conv-decoder"](**options)
