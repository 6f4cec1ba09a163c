import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.sgld import LangevinDynamics
from dipmed.scan import DipmedError

TINY = NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8)
CONFIG = LangevinDynamics.configure(FitConfig(), "mri").replace(network=TINY, iterations=20)


class Watched(LangevinDynamics):
    """Keeps the predictions and the fit."""

    def begin(self, fit):
        super().begin(fit)
        self.fit, self.predictions = fit, []

    def image(self, fit, prediction):
        self.predictions.append(prediction.clone())
        return super().image(fit, prediction)


def test_the_mean_and_deviation_are_those_of_all_outputs_after_the_burn_in(small_scan):
    y, A, _, _ = small_scan
    method = Watched(burn_in=0.4)
    result = DeepImagePrior(CONFIG, method=method)(y, A)
    samples = torch.stack(method.predictions[8:])[:, 0]
    assert len(samples) == 12 == float(method.fit.state["count"])
    support = method.fit.problem.support
    torch.testing.assert_close(result.image, samples.mean(0) * support / result.scale)
    expected = samples.abs().std(0) * support
    torch.testing.assert_close(method.standard_deviation(method.fit), expected, rtol=1e-3, atol=1e-5)
    assert result.stop.rule == "budget"


def test_real_images_deviate_with_their_sign(small_slice):
    y, A, _ = small_slice
    method = Watched()
    DeepImagePrior(CONFIG, method=method)(y, A)
    samples = torch.stack(method.predictions[7:])[:, 0]
    expected = samples.std(0) * method.fit.problem.support
    torch.testing.assert_close(method.standard_deviation(method.fit), expected, rtol=1e-3, atol=1e-5)


def test_noise_of_the_chosen_size_falls_on_the_kernels_alone(small_scan):
    y, A, _, _ = small_scan

    class Shaken(LangevinDynamics):
        def after_step(self, fit, gradient):
            before = {name: value.clone() for name, value in fit.network.named_parameters()}
            super().after_step(fit, gradient)
            self.moves = {name: value - before[name] for name, value in fit.network.named_parameters()}

    method = Shaken(noise=3.0)
    DeepImagePrior(CONFIG.replace(iterations=3, adam_rate=1e-2), method=method)(y, A)
    kernels = torch.cat([move.flatten() for move in method.moves.values() if move.ndim == 4])
    assert float(kernels.std()) == pytest.approx(3e-2, rel=0.05)
    assert all(float(move.abs().max()) == 0 for move in method.moves.values() if move.ndim == 1)


def test_before_the_burn_in_there_is_no_deviation(small_scan):
    y, A, _, _ = small_scan
    method = Watched(burn_in=0.99)
    DeepImagePrior(CONFIG, method=method)(y, A)
    assert method.standard_deviation(method.fit) is None


@pytest.mark.parametrize("scan", ["small_volume", "small_mri_volume"])
def test_volumes_are_fitted(request, scan):
    y, A, truth = request.getfixturevalue(scan)
    result = DeepImagePrior(CONFIG.replace(iterations=60, adam_rate=3e-3), method=LangevinDynamics(noise=0.5))(y, A)
    assert result.image.shape == truth.shape
    assert (result.image - truth).norm() < 0.8 * truth.norm()


def test_impossible_options_are_refused():
    with pytest.raises(DipmedError, match="burn_in"):
        LangevinDynamics(burn_in=1.0)
