"""The input is replaced by what the network makes of it, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from dipmed.dip.distance import check_one_image, distance_from_input
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import BACK_PROJECTED, IMAGE_INPUT
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class AutoencodingSequential(FitMethod):
    """I. Alkhouri, S. Liang et al., "Image reconstruction via autoencoding sequential deep image prior", NeurIPS 2024.

    Stage k takes N steps on ``‖A f(z; θ) − y‖ + λ ‖f(z; θ) − z‖`` from the weights of the stage before; then z becomes
    the output, or the output after a step of length one towards the data, which on a grid of k-space puts the measured
    samples back. The first z is an image of the data. Both norms are plain ones, not squared.

    ``input_update=drift`` chooses the output, ``data-consistent`` the other; `FitConfig.input_drift` is 1.

    Parameters
    ----------
    steps
        N.
    pull
        λ.
    """

    name: ClassVar[str] = "aseqdip"
    family: ClassVar[str] = "input"
    summary: ClassVar[str] = "Replaces the input by the output every few steps, and asks the network to keep it."
    suits: ClassVar[str] = "few views of CT, MRI; little overfitting"
    citation: ClassVar[str] = "arXiv:2502.18612"
    deviations: ClassVar[str] = (
        "the term ‖f(z) − z‖ is there as published, which official code leaves out in part; images and data share one "
        "unit; a faster Adam, and fewer steps in all"
    )
    changes: ClassVar[Mapping[str, Any]] = {
        **IMAGE_INPUT,
        "input_update": "data-consistent",
        "input_drift": 1.0,
        "data_loss": "norm",
    }
    ct_changes: ClassVar[Mapping[str, Any]] = {**BACK_PROJECTED, "input_update": "drift"}

    steps: int = 10
    pull: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.pull < 0:
            raise DipmedError(f"aseqdip needs at least one step in a stage, and no negative weight, got {self}")

    def begin(self, fit: Fit) -> None:
        check_one_image(fit)

    def penalty(self, fit: Fit, prediction: Tensor) -> Tensor | None:
        return self.pull * distance_from_input(fit, prediction)

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        if (fit.iteration + 1) % self.steps == 0:
            super().after_step(fit, gradient)
