"""Weights and input are fitted together, and the network is kept a denoiser of its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dipmed.dip.distance import check_one_image, distance_from_input
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import BACK_PROJECTED, PUBLISHED
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class SelfGuided(FitMethod):
    """S. Liang et al., 2024: ``min_θ,z ‖A x̄ − y‖ + α ‖x̄ − z‖`` with ``x̄ = mean_η f(z + η; θ)``.

    The noise η is uniform between 0 and half the peak of z, and is drawn anew for each copy at each step. Both norms
    are plain ones, not squared.

    Parameters
    ----------
    copies
        Noisy copies of the input at each step.
    noise
        Largest η, relative to the peak of z.
    pull
        α.
    input_rate
        Learning rate of Adam for z, whose peak is about 1.
    """

    name: ClassVar[str] = "self-guided"
    family: ClassVar[str] = "input"
    summary: ClassVar[str] = "Fits the input together with the weights, and keeps the network a denoiser of it."
    suits: ClassVar[str] = "MRI, where time is no matter: each step runs several copies"
    citation: ClassVar[str] = "arXiv:2402.04097"
    deviations: ClassVar[str] = (
        "z starts from an image of the same data and moves at 0.01 where they take 0.1; the scale comes from measured "
        "data alone"
    )
    cost: ClassVar[float] = 3.5
    changes: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "inputs": ("zero-filled",), "data_loss": "norm"}
    ct_changes: ClassVar[Mapping[str, Any]] = BACK_PROJECTED

    copies: int = 4
    noise: float = 0.5
    pull: float = 2.0
    input_rate: float = 1e-2

    def __post_init__(self) -> None:
        if self.copies < 1 or min(self.noise, self.pull, self.input_rate) < 0:
            raise DipmedError(f"self-guided needs at least one copy, and no negative option, got {self}")

    def make_optimizers(self, fit: Fit) -> list[torch.optim.Optimizer]:
        check_one_image(fit)
        of_input = torch.optim.Adam([fit.input.requires_grad_()], lr=self.input_rate)
        return [*super().make_optimizers(fit), of_input]

    def network_input(self, fit: Fit) -> Tensor:
        shape = (self.copies, *fit.input.shape[1:])
        eta = torch.empty(shape, device=fit.device).uniform_(generator=fit.jitter)
        return fit.input + self.noise * fit.input.detach().amax() * eta

    def predict(self, fit: Fit, seen: Tensor) -> Tensor:
        return super().predict(fit, seen).mean(0, keepdim=True)

    def penalty(self, fit: Fit, prediction: Tensor) -> Tensor | None:
        return self.pull * distance_from_input(fit, prediction)
