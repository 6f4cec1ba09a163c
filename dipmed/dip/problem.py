"""The weighted least-squares problem that a fit minimises, in units where the image peaks near one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from dipmed.calib.scale import data_scale
from dipmed.config import DataLoss
from dipmed.dip.data_term import DataTerm, make_data_term
from dipmed.dip.hold_out import WITH_A_MASK, hold_out
from dipmed.dip.last_steps import follow_white_noise
from dipmed.dip.noise import Noise, estimate_noise
from dipmed.dip.phase import SmoothPhase, low_resolution_image
from dipmed.scan import DipmedError, ShapeError
from dipmed.solvers import conjugate_gradients
from operators import (
    CartesianMRI,
    FilteredProjector,
    ImageMask,
    LinearOperator,
    MRIOperator,
    Projector,
    Slices,
    norm_bound,
)

_ROUGH = 5
"""Steps of conjugate gradients that show how bright an image is."""

_CT_PEAK = 2.2
"""Peak of a CT image in the units of the fit; at the same rates, larger images are fitted with less noise than at 1."""


@dataclass(frozen=True)
class Problem:
    """Scaled data, the operator, and what the fit needs of both at each step.

    Parameters
    ----------
    A
        The operator for all measured locations.
    y
        Scaled data, zero where not sampled, ``(coil, x, y[, z])``.
    adjoint_data
        ``Aᴴy``, ``(1, x, y[, z])``.
    A_fit, y_fit
        The operator and the data without the held-out locations: all that the network ever sees.
    line_integrals
        Scaled projections, before they are weighted as ``A`` weights them; None of other data.
    lines_fit
        The same as the fit sees them, with noise added where a rule asks for it.
    A_final, final_data
        The operator of the steps towards the data that end the fit, which may see beyond the support, and its
        ``Aᴴy``.
    weights
        Weight of each location in the data term, ``(x, y[, z])``; None for those that the operator has.
    data_loss
        Of which residuals, see `dipmed.config.FitConfig`.
    data_term
        What the fit minimises, over the fitted locations.
    held_out_term, measured_term
        The squared error at the held-out locations, None when all are fitted, and at all locations.
    second_copy_term
        The squared error against the copy of the data that is kept to judge the fit by, see `dipmed.dip.copies`; None
        where there is none.
    smooth_phase
        Penalty on what is out of phase, None for none.
    held_out_mask
        Locations kept from the fit, ``(x, y[, z])`` or ``(sample,)``; None when all are fitted.
    support
        Where the operator sees anything at all, bool ``(1, x, y[, z])``.
    scale
        What the data were multiplied by.
    noise
        Of ``y``; None when it was not measured and no rule asked to estimate it.
    noise_gain
        Variance of the noise of ``y_fit`` relative to that of ``y``.
    """

    A: LinearOperator
    y: Tensor
    adjoint_data: Tensor
    A_fit: LinearOperator
    y_fit: Tensor
    line_integrals: Tensor | None
    lines_fit: Tensor | None
    A_final: LinearOperator
    final_data: Tensor
    weights: Tensor | None
    data_loss: DataLoss
    data_term: DataTerm
    held_out_term: DataTerm | None
    measured_term: DataTerm
    second_copy_term: DataTerm | None
    smooth_phase: SmoothPhase | None
    held_out_mask: Tensor | None
    support: Tensor
    scale: float
    noise: Noise | None
    noise_gain: float

    @property
    def energy(self) -> Tensor:
        """The data term of a zero image, by which it is divided."""
        return self.data_term.energy

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised data term of ``(batch, 1, x, y[, z])`` and its gradient, outside autograd.

        Both include the penalty on the phase, where there is one.
        """
        value, gradient = self.data_term.gradient(x)
        if self.smooth_phase is not None:
            penalty, push = self.smooth_phase(x)
            value, gradient = value + penalty, gradient + push
        return value / self.energy, gradient / self.energy

    def towards_data(self, x: Tensor, steps: int = 1) -> Tensor:
        """Take gradient steps of length one towards all measured data, held-out locations among them.

        Before them the image is blanked outside the support, where the fit saw no data. Where voxels are measured
        themselves there are none: a step would put the noisy ones back.
        """
        if isinstance(self.A, ImageMask):
            return x
        x = x * self.support
        for _ in range(steps):
            x = x - (self.A_final.N(x) - self.final_data)
        return x

    @cached_property
    def white_noise_followed(self) -> tuple[Tensor, Tensor]:
        """What `dipmed.dip.last_steps` has to know of the operator alone, found when it is first asked for."""
        return follow_white_noise(self.A_final)

    @cached_property
    def input_operator(self) -> LinearOperator:
        """The operator that input images are made with, of the fitted data alone.

        That of projections has no filter: total variation finds its image in spite of the blur, and without more noise.
        """
        A = self.A_fit
        return A.unfiltered() if isinstance(A, FilteredProjector) and self.lines_fit is not None else A

    def for_input(self) -> tuple[LinearOperator, Tensor]:
        """Return `input_operator` and its ``Aᴴy``."""
        return self.input_operator, self.adjoint_for_input(self.y_fit, self.lines_fit)

    def adjoint_for_input(self, y: Tensor, line_integrals: Tensor | None) -> Tensor:
        """Apply the adjoint of `input_operator` to data, or to the line integrals behind them, if there are any."""
        A = self.input_operator
        return A.adjoint(
            A.weigh(line_integrals) if isinstance(A, FilteredProjector) and line_integrals is not None else y
        )

    def with_all_data(self) -> Problem:
        """Return the problem in which no location is held out and no noise is added."""
        as_measured = self.weights is None and self.data_loss != "absolute"
        term = self.measured_term if as_measured else make_data_term(self.A, self.y, self.weights, self.data_loss)
        return replace(
            self,
            A_fit=self.A,
            y_fit=self.y,
            lines_fit=self.line_integrals,
            data_term=term,
            held_out_term=None,
            held_out_mask=None,
            second_copy_term=None,
            smooth_phase=self._phase_penalty_of_all(),
            noise_gain=1.0,
        )

    def _phase_penalty_of_all(self) -> SmoothPhase | None:
        """The penalty of the data without added noise; where none was added it stays as it is."""
        penalty = self.smooth_phase
        if penalty is None or self.second_copy_term is None:
            return penalty
        return phase_penalty(self.A, self.y, penalty.weight)

    def held_out_error(self, x: Tensor) -> float:
        """Relative squared error at the locations that the fit did not see."""
        if self.held_out_term is None:
            raise DipmedError("no locations were held out of this fit")
        return float(self.held_out_term.value(x) / self.held_out_term.energy)

    def second_copy_error(self, x: Tensor) -> float:
        """Relative squared error against the copy of the data that the fit did not see."""
        if self.second_copy_term is None:
            raise DipmedError("no copy of the data was kept from this fit")
        return float(self.second_copy_term.value(x) / self.second_copy_term.energy)

    def data_error(self, x: Tensor) -> float:
        """Squared error over all measured locations, with the operator's weights alone, in scaled units."""
        return float(self.measured_term.value(x))


def make_problem(
    y: Tensor,
    A: LinearOperator,
    *,
    kspace_exponent: float,
    held_out: float | None,
    noise_variance: float | None,
    generator: torch.Generator,
    needs_noise: bool = False,
    phase_weight: float = 0.0,
    data_loss: DataLoss = "squares",
    A_final: LinearOperator | None = None,
    ray_weights: Tensor | None = None,
) -> Problem:
    """Scale the data by what was measured and set aside the held-out locations.

    Line integrals and their projector are weighted first, by ``ray_weights`` and by frequency.

    Parameters are those of `dipmed.config.FitConfig`, of `FilteredProjector` and the fields of `Problem`. With
    ``needs_noise`` the noise is estimated where its variance was not measured.

    Raises
    ------
    ShapeError
        When ``y`` is not one element of the operator's range.
    DipmedError
        When ``y`` is all zero, or too few locations are left to hold any out.
    """
    if tuple(y.shape) != A.range.shape:
        raise ShapeError(f"the data must be one element of the operator's range {A.range.shape}, got {tuple(y.shape)}")
    if not bool(torch.isfinite(y).all()):
        raise DipmedError("the data hold values that are not finite")
    line_integrals = None
    if isinstance(A, Projector):
        line_integrals = y
        A = FilteredProjector(A, exponent=kspace_exponent, ray_weights=ray_weights)
        y = A.weigh(y)
    elif not isinstance(A, WITH_A_MASK):
        # images then peak near one, and steps of length one towards the data do not overshoot
        factor = 1 / norm_bound(A)
        A, y = factor * A, factor * y
        A_final = None if A_final is None else factor * A_final
        noise_variance = None if noise_variance is None else factor**2 * noise_variance
    if A_final is not None and (A_final.domain, A_final.range) != (A.domain, A.range):
        raise ShapeError(f"the operator of the last steps must map like {A!r}, got {A_final!r}")
    scale = _scale(A, y)
    y = y * scale
    held_out_mask, held_out_term = None, None
    A_fit, y_fit = A, y
    if held_out is not None:
        held_out_mask, A_fit, A_held_out = hold_out(A, held_out, generator)
        y_fit = y * ~held_out_mask
        held_out_term = make_data_term(A_held_out, y * held_out_mask)
    if line_integrals is not None:
        line_integrals = line_integrals * scale
    weights = _radial_weights(A, kspace_exponent)
    noise = None
    if noise_variance is not None:
        noise = Noise(A, noise_variance**0.5 * scale)
    elif needs_noise:
        noise = estimate_noise(A, y, line_integrals, scale)
    data_term = make_data_term(A_fit, y_fit, weights, data_loss)
    adjoint_data = A.adjoint(y)
    probe = A.range.randn(generator=generator, device=y.device)
    return Problem(
        A=A,
        y=y,
        adjoint_data=adjoint_data,
        A_fit=A_fit,
        y_fit=y_fit,
        line_integrals=line_integrals,
        lines_fit=line_integrals,
        A_final=A if A_final is None else A_final,
        final_data=adjoint_data if A_final is None else A_final.adjoint(y),
        weights=weights,
        data_loss=data_loss,
        data_term=data_term,
        held_out_term=held_out_term,
        measured_term=make_data_term(A, y),
        second_copy_term=None,
        smooth_phase=phase_penalty(A_fit, y_fit, phase_weight) if phase_weight else None,
        held_out_mask=held_out_mask,
        support=A.adjoint(probe) != 0,
        scale=scale,
        noise=noise,
        noise_gain=1.0,
    )


def _scale(A: LinearOperator, y: Tensor) -> float:
    """Factor of the data for an image that peaks near one, or near `_CT_PEAK` from projections."""
    adjoint = A.adjoint(y)
    if not isinstance(A, FilteredProjector):
        return data_scale(adjoint)
    # the adjoint of line integrals blurs, the more the smaller the object: a few steps show how bright it is
    return _CT_PEAK * data_scale(conjugate_gradients(A.N, adjoint, torch.zeros_like(adjoint), _ROUGH))


def _radial_weights(A: LinearOperator, exponent: float) -> Tensor | None:
    """Weight each k-space location by its distance from the centre to the power ``2 * exponent``, at most 1."""
    if isinstance(A, Slices):
        A = A.operators[0]
    if exponent == 0 or not isinstance(A, CartesianMRI):
        return None
    squared = torch.zeros((), device=A.mask.device)
    for along, n in zip(A.positions, A.mask.shape, strict=True):
        squared = squared + (along / (n / 2)).square()
    # the offset keeps the centre itself in the fit
    offset = 6 / max(A.mask.shape)
    weights = (squared.sqrt() + offset) ** (2 * exponent)
    return weights / weights.max()


def phase_penalty(A: LinearOperator, y: Tensor, weight: float) -> SmoothPhase | None:
    """Make the penalty on what is out of phase with the centre of these data; None where there is no such centre."""
    low = low_resolution_image(A, y) if isinstance(A, MRIOperator | Slices) else None
    return None if low is None else SmoothPhase(low, weight)
