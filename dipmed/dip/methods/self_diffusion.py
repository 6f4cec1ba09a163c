"""From noise to an image in stages, each with less noise on its input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import to_channels
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class SelfDiffusion(FitMethod):
    """G. Luo, S. Huang, S. Yang, "Self-diffusion for solving inverse problems", NeurIPS 2025.

    In stage i the input is the last image and one draw of noise, ``z = x + σᵢ ε``, and the weights minimise
    ``‖A f(z; θ) − y‖``; then ``x ← f(z; θ)``. The first x is noise. The levels σ fall as those of a diffusion model
    whose variances rise linearly, so that coarse structure is settled before fine.

    Parameters
    ----------
    stages
        How many; they share the iterations of the fit.
    last_variance
        The largest β of the diffusion model; the smallest is 1e-4.
    """

    name: ClassVar[str] = "self-diffusion"
    family: ClassVar[str] = "input"
    summary: ClassVar[str] = "Fits the last image with less and less noise added, in stages."
    suits: ClassVar[str] = "few views of CT, MRI"
    citation: ClassVar[str] = "arXiv:2510.21417"
    deviations: ClassVar[str] = (
        "the running average is returned, of 3000 steps in 40 stages where they take 4000 and more"
    )
    changes: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "input_jitter": 0.0, "data_loss": "norm", "tv_weight": 1e-4}
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    stages: int = 40
    last_variance: float = 0.02

    def __post_init__(self) -> None:
        if self.stages < 1 or not 1e-4 <= self.last_variance < 1:
            raise DipmedError(f"self-diffusion needs a stage, and variances from 1e-4 to below 1, got {self}")

    def level(self, stage: int) -> float:
        """Return σ of a stage, ``sqrt(1 − Π (1 − β))`` over the β up to it, counted from the last stage."""
        betas = torch.linspace(1e-4, self.last_variance, self.stages, dtype=torch.float64)
        return math.sqrt(1 - float((1 - betas[: self.stages - stage]).prod()))

    def make_input(self, fit: Fit) -> Tensor:
        image, epsilon = torch.randn((2, 1, fit.n_channels, *fit.shape), generator=fit.generator)
        return (image + self.level(0) * epsilon).to(fit.device)

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        done = fit.iteration + 1
        stage, before = (n * self.stages // fit.config.iterations for n in (done, fit.iteration))
        if before < stage < self.stages:
            epsilon = torch.empty_like(fit.input).normal_(generator=fit.jitter)
            fit.input.copy_(to_channels(fit.output)).add_(epsilon, alpha=self.level(stage))
