import pytest
import torch
from torch import nn

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods.random_projector import DeepRandomProjector
from dipmed.scan import DipmedError

CONFIG = DeepRandomProjector.configure(FitConfig(), "mri").replace(
    network=NetworkConfig(channels=(16,), skip_channels=8), iterations=60
)


class Watched(DeepRandomProjector):
    """Keeps the fit, to look into it afterwards."""

    def begin(self, fit):
        self.fit = fit
        self.first_weights = {name: value.clone() for name, value in fit.network.named_parameters()}
        self.first_input = fit.input.detach().clone()


def test_convolutions_stay_and_the_input_and_normalisations_move(small_scan):
    y, A, truth, _ = small_scan
    method = Watched()
    DeepImagePrior(CONFIG.replace(iterations=10), method=method)(y, A)
    norms = [m for m in method.fit.network.modules() if isinstance(m, nn.GroupNorm)]
    adjusted = {id(parameter) for norm in norms for parameter in norm.parameters()}
    kernels = 0
    for name, value in method.fit.network.named_parameters():
        stayed = torch.equal(value, method.first_weights[name])
        assert stayed == (id(value) not in adjusted), name
        kernels += value.ndim == 4
    assert kernels > 4
    assert method.fit.input.shape == (1, 3, *truth.shape[1:])
    assert (method.fit.input - method.first_input).abs().min() > 0


def test_the_rules_of_a_restart_hold_for_the_input(small_scan):
    y, A, _, _ = small_scan
    poisoned = {"left": 1}

    class Spoiled(Watched):
        def before_step(self, fit):
            if fit.iteration == 5 and poisoned["left"]:
                poisoned["left"] -= 1
                fit.input.grad.fill_(float("nan"))

    result = DeepImagePrior(CONFIG, method=Spoiled())(y, A)
    assert poisoned["left"] == 0
    assert result.image.isfinite().all()


@pytest.mark.parametrize("scan", ["small_slice", "small_volume", "small_mri_volume"])
def test_projections_and_volumes_are_fitted(request, scan):
    y, A, truth = request.getfixturevalue(scan)
    result = DeepImagePrior(CONFIG.replace(stop="budget"), method=DeepRandomProjector())(y, A)
    assert result.image.shape == truth.shape
    assert (result.image - truth).norm() < 0.5 * truth.norm()


def test_an_input_without_channels_is_refused():
    with pytest.raises(DipmedError, match="input_channels"):
        DeepRandomProjector(input_channels=0)
