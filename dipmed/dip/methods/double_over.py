"""Double over-parameterisation: sparse outliers of the data are fitted beside the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit

_START = 1e-10
"""Outliers at the beginning, both signs alike, over the largest datum: the smaller, the sparser they end."""


@dataclass
class DoubleOverparameterisation(FitMethod):
    """``min_{θ, g, h} ‖A f(z; θ) + g∘g − h∘h − y‖²``, by steps of very different length for θ and for g, h.

    Plain gradient descent on g and h from tiny values multiplies each by ``1 ∓ κ r`` a step, r being its residual over
    the largest datum. They stay tiny until a residual has lasted for long, so that few outliers grow and take what the
    network does not fit soon: the effect is that of an l1 norm, whose weight the ratio of the two rates decides. Real
    and imaginary parts have outliers of their own.

    C. You, Z. Zhu, Q. Qu, Y. Ma, "Robust recovery via implicit bias of discrepant learning rates for double
    over-parameterization", NeurIPS 2020, arXiv:2006.08857.

    Parameters
    ----------
    outlier_rate
        κ; an outlier as large as the largest datum is found after about ``11 / κ`` iterations, smaller ones later.
    rings
        Of projections: one outlier for each cell of the detector, the same in all views, which would draw a ring.
    """

    name: ClassVar[str] = "double-overparameterisation"
    family: ClassVar[str] = "re-parameterisation"
    summary: ClassVar[str] = "Sparse outliers of the data are fitted beside the image."
    suits: ClassVar[str] = "spikes in k-space, bad pixels of a detector, rings (rings=yes)"
    citation: ClassVar[str] = "arXiv:2006.08857"
    deviations: ClassVar[str] = "Adam for the network's weights, steps of the outliers relative to the largest datum"
    changes: ClassVar[Mapping[str, Any]] = PUBLISHED
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    outlier_rate: float = 0.1
    rings: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.outlier_rate < 1:
            raise DipmedError(f"outlier_rate must lie between 0 and 1, got {self.outlier_rate}")

    def begin(self, fit: Fit) -> None:
        config, y = fit.config, fit.problem.y
        if (config.kspace_exponent, config.phase_weight, config.data_loss) != (0, 0, "squares"):
            raise DipmedError(
                f"{self.name} takes plain squares: kspace_exponent=0, phase_weight=0 and data_loss=squares, "
                f"got {config.kspace_exponent:g}, {config.phase_weight:g} and {config.data_loss}"
            )
        if self.rings and y.is_complex():
            raise DipmedError("rings are those of projections; k-space has outliers of its own, without rings=yes")
        start = torch.full_like(self._per_outlier(y), float((_START * y.abs().max()) ** 0.5))
        fit.state.update(plus=start, minus=start.clone(), residual=torch.zeros_like(y))

    def outliers(self, fit: Fit) -> Tensor:
        """The outliers found so far, in the scaled units of the data; of rings one for each cell."""
        difference = fit.state["plus"].square() - fit.state["minus"].square()
        return torch.view_as_complex(difference) if fit.problem.y.is_complex() else difference

    def data_term(self, fit: Fit, prediction: Tensor) -> tuple[Tensor, Tensor]:
        problem = fit.problem
        residual = problem.A_fit(prediction)[0] + self.outliers(fit) - problem.y_fit
        fit.state["residual"].copy_(residual)
        value = residual.abs().square().sum() / problem.energy
        return value, 2 * problem.A_fit.adjoint(residual[None]) / problem.energy

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        super().after_step(fit, gradient)
        push = self._per_outlier(fit.state["residual"]) * (self.outlier_rate / fit.problem.y.abs().max())
        fit.state["plus"].mul_(1 - push)
        fit.state["minus"].mul_(1 + push)

    def _per_outlier(self, data: Tensor) -> Tensor:
        """Real numbers that each belong to one outlier: over the views of a ring their mean."""
        if data.is_complex():
            return torch.view_as_real(data)
        return data.mean(1, keepdim=True) if self.rings else data
