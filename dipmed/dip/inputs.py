"""What the network sees: noise, or an image that a quick reconstruction makes of the same data."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.denoisers import shifted_wavelets
from dipmed.dip.phase import SmoothPhase
from dipmed.dip.problem import Problem
from dipmed.nets import to_channels
from dipmed.scan import DipmedError
from dipmed.solvers import along_axes, conjugate_gradients, total_variation_image
from operators import (
    ConeBeam,
    FilteredProjector,
    LinearOperator,
    SliceProjector,
    StackedProjector,
    feldkamp,
    filtered_back_projection,
    norm_bound,
)

_NOISE_CHANNELS = 32
_NOISE_SCALE = 0.1
_CG_WEIGHT, _CG_STEPS = 0.01, 30


def make_input(problem: Problem, config: FitConfig, generator: torch.Generator) -> Tensor:
    """Join the configured inputs along channels, images first, real ``(1, channel, x, y[, z])``.

    Noise is uniform on [0, 0.1) in 32 channels, as D. Ulyanov et al. publish it (doi:10.1007/s11263-020-01303-4).
    """
    channels = []
    for name in sorted(config.inputs, key=lambda name: name == "noise"):
        if name == "noise":
            shape = (1, _NOISE_CHANNELS, *problem.adjoint_data.shape[1:])
            channels.append(_NOISE_SCALE * torch.rand(shape, generator=generator).to(problem.y.device))
        else:
            channels.append(to_channels(first_image(name, problem, config, generator)[None]))
    return torch.cat(channels, 1)


def first_image(name: str, problem: Problem, config: FitConfig, generator: torch.Generator) -> Tensor:
    """Make the image of that name from the data that are fitted, ``(1, x, y[, z])``.

    Raises
    ------
    DipmedError
        When these data have no filtered back-projection.
    """
    if name == "fbp":
        return _back_projection(problem)
    A, zero_filled = problem.for_input()
    if name == "zero-filled":
        return zero_filled
    if name == "tv":
        return total_variation_image(A, zero_filled, config.variation_weight, weights=along_axes(A))[0]
    if name == "cg":
        weight = _CG_WEIGHT * norm_bound(A) ** 2
        return conjugate_gradients(lambda x: A.N(x) + weight * x, zero_filled, torch.zeros_like(zero_filled), _CG_STEPS)
    return wavelet_image(A, zero_filled, generator, config.wavelet_threshold, smooth_phase=problem.smooth_phase)


def _back_projection(problem: Problem) -> Tensor:
    """Filtered back-projection of the fitted views, ``(1, x, y[, z])``."""
    A, sinogram = problem.A_fit, problem.line_integrals
    advice = "choose another with --set inputs=cg"
    if not isinstance(A, FilteredProjector) or sinogram is None:
        raise DipmedError(f"filtered back-projection, as the network's input, needs line integrals; {advice}")
    views = torch.nonzero(A.mask.flatten()).flatten().tolist()
    projector, seen = A.projector, sinogram[:, views]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of gaps between the views, which the fit is there to fill
        if isinstance(projector, SliceProjector):
            return filtered_back_projection(seen, projector.beam.with_views(views), projector.grid, "hann")
        if isinstance(projector, StackedProjector):
            rays = projector.beam.with_views(views)
            return projector.join(filtered_back_projection(projector.data_of(seen), rays, projector.grid, "hann"))
        beam = projector.beam.with_views(views)
        if not (isinstance(beam, ConeBeam) and beam.is_circular):
            raise DipmedError(f"the network's input cannot be a back-projection: the source left the circle; {advice}")
        return feldkamp(seen, beam, projector.grid, "hann")


@torch.no_grad()
def wavelet_image(
    A: LinearOperator,
    adjoint_data: Tensor,
    generator: torch.Generator,
    threshold: float = 2e-3,
    iterations: int = 60,
    smooth_phase: SmoothPhase | None = None,
) -> Tensor:
    """Minimise ``½‖Ax − y‖² + threshold ‖Wx‖₁`` over wavelets by FISTA, ``(1, x, y[, z])``.

    Half of the penalty on the phase is added, where there is one.

    The basis is shifted at random in each iteration, see `dipmed.dip.denoisers.shifted_wavelets`. Only the normal
    operator is applied, once an iteration, with a step of one, for which the norm of A must not be above one:
    normalised sensitivity maps and an orthonormal transform give that (A. Beck, M. Teboulle, 2009,
    doi:10.1137/080716542).

    Parameters
    ----------
    A
        The forward operator.
    adjoint_data
        ``Aᴴy``, scaled to peak near one.
    generator
        Of the shifts.
    smooth_phase
        The penalty that the fit uses; its curvature is at most twice its weight.
    """
    step = 1.0 if smooth_phase is None else 1 / (1 + smooth_phase.weight)
    ndim = adjoint_data.ndim - 1
    x = ahead = adjoint_data
    momentum = 1.0
    for _ in range(iterations):
        gradient = A.N(ahead) - adjoint_data
        if smooth_phase is not None:
            gradient = gradient + smooth_phase(ahead)[1] / 2
        new = shifted_wavelets(ahead - step * gradient, step * threshold, ndim, generator)
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = new + (momentum - 1) / next_momentum * (new - x)
        x, momentum = new, next_momentum
    return x
