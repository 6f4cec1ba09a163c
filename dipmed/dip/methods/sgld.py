"""Langevin dynamics of the weights: the mean of many images that explain the data, and how far they lie apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import PUBLISHED
from dipmed.dip.uncertainty import shown_of
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class LangevinDynamics(FitMethod):
    """``θ ← θ + Adam step + N(0, (c α)²)`` on convolution kernels, where α is the learning rate.

    After a burn-in, all outputs are samples of one chain, and what is judged and returned is their mean so far.
    ``fit.state`` holds that mean (``"mean"``) and the running mean and squared deviations of what is shown of an image,
    its magnitude if it is complex (``"shown"``, ``"squares"``), with the ``"count"`` of samples.

    Z. Cheng, M. Gadelha, S. Maji, D. Sheldon, "A Bayesian perspective on the deep image prior", CVPR 2019,
    arXiv:1904.07457. As in their experiments the noise is not shaped as Adam's steps are, so that this is no exact
    sampler of a posterior.

    Parameters
    ----------
    noise
        c, standard deviation of the noise over the learning rate.
    burn_in
        Share of the iterations before the first sample.
    """

    name: ClassVar[str] = "sgld"
    family: ClassVar[str] = "inference"
    summary: ClassVar[str] = "Noise on the kernels after each step; the mean of the outputs after a burn-in."
    suits: ClassVar[str] = "long fits without an early end, maps of the standard deviation"
    citation: ClassVar[str] = "arXiv:1904.07457"
    deviations: ClassVar[str] = "no decay of the weights, a smaller rate, noise of half the rate instead of twice it"
    changes: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "averaging": 0.0, "stop": "budget"}

    noise: float = 0.5
    burn_in: float = 0.35

    def __post_init__(self) -> None:
        if self.noise < 0 or not 0 <= self.burn_in < 1:
            raise DipmedError(f"noise must not be negative and burn_in lie in [0, 1), got {self}")

    def begin(self, fit: Fit) -> None:
        nothing = torch.zeros_like(fit.problem.adjoint_data[None])
        shown = shown_of(nothing[0]).clone()
        fit.state.update(mean=nothing, shown=shown, squares=shown.clone(), count=torch.zeros((), device=fit.device))

    def image(self, fit: Fit, prediction: Tensor) -> Tensor:
        if fit.progress < self.burn_in:
            return prediction
        state = fit.state
        state["count"] += 1
        state["mean"] += (prediction - state["mean"]) / state["count"]
        value = shown_of(prediction[0])
        difference = value - state["shown"]
        state["shown"] += difference / state["count"]
        state["squares"] += difference * (value - state["shown"])
        return state["mean"].clone()

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        super().after_step(fit, gradient)
        for optimizer in fit.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.ndim >= 4:
                        shake = torch.empty_like(parameter).normal_(generator=fit.jitter)
                        parameter.add_(shake, alpha=self.noise * group["lr"])

    def standard_deviation(self, fit: Fit) -> Tensor | None:
        count = float(fit.state["count"])
        if count < 2:
            return None
        return (fit.state["squares"] / (count - 1)).sqrt() * fit.problem.support.any(0, keepdim=True)
