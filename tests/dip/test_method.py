from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior
from dipmed.dip.data_term import AbsoluteTerm
from dipmed.dip.method import FitMethod
from dipmed.dip.methods import FIT_METHODS

TINY = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8), iterations=30, held_out=0.05)


@dataclass
class Probe(FitMethod):
    """Uses every hook and notes that it was asked."""

    name: ClassVar[str] = "probe"
    pull: float = 0.0

    def begin(self, fit):
        fit.state["steps"] = torch.zeros(())

    def network_input(self, fit):
        return fit.input.expand(2, *fit.input.shape[1:])

    def predict(self, fit, seen):
        return super().predict(fit, seen).mean(0, keepdim=True)

    def penalty(self, fit, prediction):
        return self.pull * prediction.abs().square().sum()

    def before_step(self, fit):
        self.gradients = [parameter.grad is not None for parameter in fit.network.parameters()]

    def after_step(self, fit, gradient):
        fit.state["steps"] += 1

    def result(self, fit, image):
        return torch.full_like(image, float(fit.state["steps"]))


def test_every_hook_has_its_say(small_scan):
    y, A, _, _ = small_scan
    probe = Probe()
    result = DeepImagePrior(TINY, method=probe)(y, A)
    assert result.method == "probe"
    assert all(probe.gradients)
    assert result.image.real.unique() * result.scale == pytest.approx(30)


@dataclass
class Pulled(Probe):
    def result(self, fit, image):
        return image


def test_a_penalty_pulls_the_image(small_scan):
    y, A, _, _ = small_scan
    free, pulled = (DeepImagePrior(TINY, method=Pulled(pull))(y, A).image.abs().max() for pull in (0.0, 1e3))
    assert pulled < 0.2 * free


@pytest.mark.parametrize("loss", ["squares", "norm", "absolute"])
def test_each_loss_is_reduced(small_scan, loss):
    y, A, truth, _ = small_scan
    result = DeepImagePrior(TINY.replace(data_loss=loss, iterations=60))(y, A)
    losses = dict(result.curves["loss"])
    assert losses[60] < 0.8 * losses[1]
    assert (result.image - truth).norm() < (A.adjoint(y) - truth).norm()


def test_the_loss_decides_the_image(small_scan):
    y, A, _, _ = small_scan
    images = [DeepImagePrior(TINY.replace(data_loss=loss))(y, A).image for loss in ("squares", "norm", "absolute")]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_the_gradient_of_absolute_values_is_that_of_autograd(small_scan):
    y, A, truth, _ = small_scan
    weights = torch.rand(A.mask.shape, generator=torch.Generator().manual_seed(0))
    term = AbsoluteTerm(A, y, weights)
    x = (truth + 0.1).clone()[None].requires_grad_()
    residual = (A(x) - y)[:, :, A.mask] * weights[A.mask]
    residual.abs().sum().backward()
    value, gradient = term.gradient(x.detach())
    assert float(value) == pytest.approx(float(residual.detach().abs().sum()), rel=1e-5)
    torch.testing.assert_close(gradient, x.grad, rtol=1e-4, atol=1e-4)
    assert float(term.value(torch.zeros_like(x))) == pytest.approx(float(term.energy), rel=1e-5)


def test_a_restart_puts_the_state_back(small_scan):
    y, A, _, _ = small_scan
    poisoned = {"left": 1}

    @dataclass
    class Spoiled(Probe):
        def before_step(self, fit):
            if fit.iteration == 25 and poisoned["left"]:
                poisoned["left"] -= 1
                next(fit.network.parameters()).grad.fill_(float("nan"))

    result = DeepImagePrior(TINY, method=Spoiled())(y, A)
    # steps that were undone are not counted
    assert result.image.real.unique() * result.scale == pytest.approx(30)


@pytest.mark.parametrize("name", FIT_METHODS)
def test_every_method_says_what_it_is(name):
    method = FIT_METHODS[name]
    assert method.name == name
    assert method.citation.startswith(("doi:10.", "arXiv:", "https://"))
    assert method.family
    assert method.summary
    assert method.suits
    assert method.cost > 0
    assert isinstance(method(), FitMethod)
    for modality in method.modalities:
        assert isinstance(method.configure(FitConfig(), modality), FitConfig)
