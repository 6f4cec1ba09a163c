"""A noisy input that drifts towards the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dipmed.dip.distance import distance_from_input
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import to_channels
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class Tada(FitMethod):
    """E. Bell et al., "Tada-DIP", 2025: ``min_θ |A x − y|₁ + β |x − z|₁`` with ``x = f(z + α max|z| ε; θ)``.

    After each step ``z ← (1 − γ) z + γ x``. The first z is noise. Without α, β and γ it is the vanilla method.

    Parameters
    ----------
    noise
        α, of the Gaussian noise ε, relative to the peak of z.
    pull
        β.
    drift
        γ.
    """

    name: ClassVar[str] = "tada"
    family: ClassVar[str] = "input"
    summary: ClassVar[str] = "A noisy input drifts towards the output, which the network learns to denoise."
    suits: ClassVar[str] = "volumes of CT from few views; MRI"
    citation: ClassVar[str] = "arXiv:2512.03962"
    deviations: ClassVar[str] = (
        "our smaller U-Net with group normalisation, 3000 steps where they take 50000, and for so few α and β are 0.1 "
        "where they have 0.5 and 0.01"
    )
    changes: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "data_loss": "absolute"}
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    noise: float = 0.1
    pull: float = 0.1
    drift: float = 0.01

    def __post_init__(self) -> None:
        if min(self.noise, self.pull) < 0 or not 0 <= self.drift <= 1:
            raise DipmedError(f"tada needs weights that are not negative, and a drift between 0 and 1, got {self}")

    def make_input(self, fit: Fit) -> Tensor:
        return torch.randn((1, fit.n_channels, *fit.shape), generator=fit.generator).to(fit.device)

    def network_input(self, fit: Fit) -> Tensor:
        epsilon = torch.empty_like(fit.input).normal_(generator=fit.jitter)
        return fit.input + self.noise * fit.input.abs().amax() * epsilon

    def penalty(self, fit: Fit, prediction: Tensor) -> Tensor | None:
        return self.pull * distance_from_input(fit, prediction)

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        fit.input.lerp_(to_channels(fit.output), self.drift)
