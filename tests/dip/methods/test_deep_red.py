import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.denoisers import non_local_means
from dipmed.dip.methods.deep_red import DeepRED
from dipmed.scan import DipmedError

TINY = NetworkConfig(channels=(8, 8), skip_channels=4, up_channels=8)
CONFIG = DeepRED.configure(FitConfig(), "mri").replace(network=TINY, iterations=20)


class Watched(DeepRED):
    """Notes the image, the denoised one, the multiplier and the output after each step."""

    def begin(self, fit):
        super().begin(fit)
        self.steps = [self.now(fit)]

    def after_step(self, fit, gradient):
        super().after_step(fit, gradient)
        self.steps.append(self.now(fit))

    def now(self, fit):
        return {name: value.clone() for name, value in {**fit.state, "output": fit.output}.items()}


def test_each_step_is_that_of_the_equations(small_scan):
    y, A, _, _ = small_scan
    method = Watched(prior_weight=0.3, coupling=0.7, refresh=10)
    DeepImagePrior(CONFIG, method=method)(y, A)
    assert len(method.steps) == 21
    for t, (before, after) in enumerate(zip(method.steps[:-1], method.steps[1:], strict=True)):
        if t % 10 == 0:
            torch.testing.assert_close(after["denoised"], non_local_means(before["image"], method.strength, 2))
        else:
            assert torch.equal(after["denoised"], before["denoised"])
        image = 0.3 * after["denoised"] + 0.7 * (after["output"] + before["multiplier"])
        torch.testing.assert_close(after["image"], image)
        torch.testing.assert_close(after["multiplier"], before["multiplier"] + after["output"] - image)


def test_a_strong_coupling_holds_the_output_near_the_image(small_scan):
    y, A, _, _ = small_scan
    distances = []
    for coupling in (1e-3, 10.0):
        method = Watched(coupling=coupling)
        DeepImagePrior(CONFIG.replace(iterations=40), method=method)(y, A)
        last = method.steps[-1]
        distances.append(float((last["output"] - last["denoised"]).norm()))
    assert distances[1] < 0.8 * distances[0]


@pytest.mark.parametrize("denoiser", ["nlm", "wavelet"])
@pytest.mark.parametrize("scan", ["small_slice", "small_mri_volume"])
def test_projections_and_volumes_are_fitted(request, scan, denoiser):
    y, A, truth = request.getfixturevalue(scan)
    config = CONFIG.replace(stop="budget", iterations=50, adam_rate=1e-2)
    errors = []
    for seed in range(4):  # because one short fit of a volume is anywhere between 0.4 and 0.65
        result = DeepImagePrior(config.replace(seed=seed), method=DeepRED(denoiser=denoiser))(y, A)
        assert result.image.shape == truth.shape
        errors.append(float((result.image - truth).norm() / truth.norm()))
    assert sum(errors) / len(errors) < 0.6


def test_impossible_options_are_refused():
    with pytest.raises(DipmedError, match="denoiser"):
        DeepRED(denoiser="bm3d")
    with pytest.raises(DipmedError, match="refresh"):
        DeepRED(refresh=0)
