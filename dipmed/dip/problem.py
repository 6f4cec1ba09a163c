"""The weighted least-squares problem that a fit minimises, in units where the zero-filled image peaks near one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dipmed.calib.scale import data_scale
from dipmed.dip.phase import SmoothPhase, low_resolution_image
from dipmed.scan import DipmedError, ShapeError
from operators import CartesianMRI, LinearOperator

_CORE = 8
"""Half-open width of the k-space centre that is never held out: without it no image has a brightness."""


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
    A_final, final_data
        The operator of the steps towards the data that end the fit, which may see beyond the support, and its
        ``Aᴴy``.
    weights
        Weight of each location in the data term, ``(x, y[, z])``; None for one.
    smooth_phase
        Penalty on what is out of phase, None for none.
    held_out_mask
        Locations kept from the fit, ``(x, y[, z])``; None when all are fitted.
    energy
        ``Σ w |y|²`` over the fitted locations: the data term of a zero image is 1.
    support
        Where the operator sees anything at all, bool ``(1, x, y[, z])``.
    scale
        What the data were multiplied by.
    noise_variance
        Of one complex sample in scaled units, None when it is not known.
    """

    A: LinearOperator
    y: Tensor
    adjoint_data: Tensor
    A_fit: LinearOperator
    y_fit: Tensor
    A_final: LinearOperator
    final_data: Tensor
    weights: Tensor | None
    smooth_phase: SmoothPhase | None
    held_out_mask: Tensor | None
    energy: Tensor
    support: Tensor
    scale: float
    noise_variance: float | None

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normalised data term of ``(batch, 1, x, y[, z])`` and its gradient, outside autograd.

        Both include the penalty on the phase, where there is one.
        """
        residual = self.A_fit(x) - self.y_fit
        weighted = residual if self.weights is None else residual * self.weights
        value = torch.sum(residual.real * weighted.real + residual.imag * weighted.imag)
        gradient = self.A_fit.adjoint(weighted) * 2
        if self.smooth_phase is not None:
            penalty, push = self.smooth_phase(x)
            value, gradient = value + penalty, gradient + push
        return value / self.energy, gradient / self.energy

    def towards_data(self, x: Tensor, steps: int = 1) -> Tensor:
        """Take gradient steps of length one towards all measured data, held-out locations among them.

        Before them the image is blanked outside the support, where the fit saw no data.
        """
        x = x * self.support
        for _ in range(steps):
            x = x - (self.A_final.N(x) - self.final_data)
        return x

    def with_all_data(self) -> Problem:
        """Return the problem in which no location is held out."""
        energy = _weighted_energy(self.y, self.weights)
        return replace(self, A_fit=self.A, y_fit=self.y, held_out_mask=None, energy=energy)

    def held_out_error(self, x: Tensor) -> float:
        """Relative squared error at the locations that the fit did not see."""
        if self.held_out_mask is None:
            raise DipmedError("no locations were held out of this fit")
        residual = (self.A(x) - self.y) * self.held_out_mask
        return float(residual.abs().square().sum() / (self.y * self.held_out_mask).abs().square().sum())

    def data_error(self, x: Tensor) -> float:
        """Squared error over all measured locations, unweighted, in scaled units."""
        return float((self.A(x) - self.y).abs().square().sum())


def make_problem(
    y: Tensor,
    A: LinearOperator,
    *,
    kspace_exponent: float,
    held_out: float | None,
    noise_variance: float | None,
    generator: torch.Generator,
    phase_weight: float = 0.0,
    A_final: LinearOperator | None = None,
) -> Problem:
    """Scale the data by what was measured and set aside the held-out locations.

    Parameters are those of `dipmed.config.FitConfig` and the fields of `Problem`.

    Raises
    ------
    ShapeError
        When ``y`` is not one element of the operator's range.
    DipmedError
        When ``y`` is all zero, or too few locations are left to hold any out.
    """
    if tuple(y.shape) != A.range.shape:
        raise ShapeError(f"the data must be one element of the operator's range {A.range.shape}, got {tuple(y.shape)}")
    if not bool(torch.isfinite(torch.view_as_real(y)).all()):
        raise DipmedError("the data hold values that are not finite")
    if A_final is not None and (A_final.domain, A_final.range) != (A.domain, A.range):
        raise ShapeError(f"the operator of the last steps must map like {A!r}, got {A_final!r}")
    scale = data_scale(A.adjoint(y))
    y = y * scale
    held_out_mask = None
    A_fit, y_fit = A, y
    if held_out is not None:
        held_out_mask, A_fit = _hold_out(A, held_out, generator)
        y_fit = y * ~held_out_mask
    weights = _radial_weights(A, kspace_exponent)
    smooth_phase = None
    if phase_weight and isinstance(A_fit, CartesianMRI):
        low = low_resolution_image(A_fit, y_fit)
        smooth_phase = None if low is None else SmoothPhase(low, phase_weight)
    adjoint_data = A.adjoint(y)
    probe = A.range.randn(generator=generator, device=y.device)
    return Problem(
        A=A,
        y=y,
        adjoint_data=adjoint_data,
        A_fit=A_fit,
        y_fit=y_fit,
        A_final=A if A_final is None else A_final,
        final_data=adjoint_data if A_final is None else A_final.adjoint(y),
        weights=weights,
        smooth_phase=smooth_phase,
        held_out_mask=held_out_mask,
        energy=_weighted_energy(y_fit, weights),
        support=A.adjoint(probe) != 0,
        scale=scale,
        noise_variance=None if noise_variance is None else noise_variance * scale**2,
    )


def _weighted_energy(y: Tensor, weights: Tensor | None) -> Tensor:
    squared = y.abs().square()
    return (squared if weights is None else squared * weights).sum()


def _radial_weights(A: LinearOperator, exponent: float) -> Tensor | None:
    """Weight each k-space location by its distance from the centre to the power ``2 * exponent``, at most 1."""
    if exponent == 0 or not isinstance(A, CartesianMRI):
        return None
    squared = torch.zeros(())
    for axis, n in enumerate(A.mask.shape):
        index = (torch.arange(n) - n // 2) / (n / 2)
        squared = squared + index.square().reshape([-1 if i == axis else 1 for i in range(A.mask.ndim)])
    # the offset keeps the centre itself in the fit
    offset = 6 / max(A.mask.shape)
    weights = (squared.sqrt() + offset) ** (2 * exponent)
    return (weights / weights.max()).to(A.mask.device)


def _hold_out(A: LinearOperator, share: float, generator: torch.Generator) -> tuple[Tensor, CartesianMRI]:
    """Draw sampled locations outside a small core of k-space; return them and the operator of the others."""
    if not isinstance(A, CartesianMRI):
        raise DipmedError(
            f"held-out stopping needs a Cartesian MRI operator, got {A!r}; choose another rule with --stop"
        )
    mask = A.mask.bool().cpu()
    core = torch.zeros_like(mask)
    core[tuple(slice(max(0, n // 2 - _CORE // 2), n // 2 + _CORE // 2) for n in mask.shape)] = True
    candidates = torch.nonzero((mask & ~core).flatten()).squeeze(1)
    n_held_out = round(share * int(mask.sum()))
    if not 0 < n_held_out < len(candidates):
        raise DipmedError(
            f"cannot hold {share:.0%} of {int(mask.sum())} sampled locations out of the fit: {len(candidates)} lie "
            "outside the centre; choose another rule with --stop"
        )
    chosen = candidates[torch.randperm(len(candidates), generator=generator)[:n_held_out]]
    held_out = torch.zeros(mask.numel(), dtype=torch.bool)
    held_out[chosen] = True
    held_out = held_out.reshape(mask.shape)
    return held_out.to(A.mask.device), A.with_mask((mask & ~held_out).to(A.mask.device))
