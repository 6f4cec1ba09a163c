"""Classical reconstructions of projections, with the same call as a fit: ``(y, A)`` are line integrals and a projector.

Iterative ones start from zero, keep attenuation from becoming negative, and are deterministic.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dipmed.baselines import CGSense
from dipmed.scan import DipmedError, DivergedError, Reconstruction, ShapeError, StopReason
from dipmed.solvers import along_axes, total_variation_image
from operators import (
    ConeBeam,
    Projector,
    SliceProjector,
    StackedProjector,
    VolumeProjector,
    block_means,
    can_be_divided,
    feldkamp,
    filtered_back_projection,
    through_parts,
)
from operators.ct_cone import VolumeBeam
from operators.ct_geometry import Beam
from operators.fbp import Filter

_ROUGH = 15
"""Iterations that show how bright an image is."""


@dataclass(frozen=True)
class FilteredBackProjection:
    """Filtered back-projection; see `dipmed.operators.filtered_back_projection`, and `feldkamp` for volumes."""

    filter: Filter = "hann"

    def __call__(self, y: Tensor, A: Projector) -> Reconstruction:
        start = time.perf_counter()
        _check(y, A)
        stop = StopReason("direct", 0, "filtered back-projection needs no iterations")
        return Reconstruction(back_project(y, A, self.filter), "fbp", stop, 0, time.perf_counter() - start)


@dataclass(frozen=True)
class SIRT:
    """Simultaneous iterative reconstruction: ``x ← max(0, x + C Aᵀ R (y − A x))``, C and R one over the sums of A.

    P. Gilbert, 1972, doi:10.1016/0022-5193(72)90180-4.
    """

    iterations: int = 200

    def __call__(self, y: Tensor, A: Projector) -> Reconstruction:
        start = time.perf_counter()
        _check(y, A)
        columns = _one_over(A.adjoint(torch.ones_like(y)))
        rows = _one_over(A(torch.ones(A.domain.shape, dtype=y.dtype, device=y.device)))
        x = torch.zeros(A.domain.shape, dtype=y.dtype, device=y.device)
        for _ in range(self.iterations):
            x = (x + columns * A.adjoint(rows * (y - A(x)))).clamp(min=0)
        stop = StopReason("budget", self.iterations, f"{self.iterations} iterations were run")
        return Reconstruction(x, "sirt", stop, self.iterations, time.perf_counter() - start)


@dataclass(frozen=True)
class LeastSquares:
    """Conjugate gradients on ``½‖Ax − y‖² + ½λ‖x‖²``, for an operator of norm one and data of unit scale."""

    lam: float = 0.01
    max_iter: int = 50

    def __call__(self, y: Tensor, A: Projector) -> Reconstruction:
        _check(y, A)
        return CGSense(self.lam, self.max_iter, name="cg-ls")(y, A)


@dataclass(frozen=True)
class CGTotalVariation:
    """Least squares with an isotropic total variation and no negative values; see `dipmed.solvers`.

    Parameters
    ----------
    lam
        λ, for an image that peaks at one, by its filtered back-projection, or by a few iterations of `SIRT` for rays
        that have none.
    max_iter, inner, coupling, tol
        As for `dipmed.solvers.total_variation_image`.
    subpixels
        Parts along each axis of a pixel of a slice, or of a stack, see `dipmed.config.FitConfig`.
    matrices_gib
        What the matrices through the parts may take; pixels stay whole where they would take more.
    """

    lam: float = 2e-4
    max_iter: int = 60
    inner: int = 8
    coupling: float = 2e-3
    tol: float = 1e-3
    subpixels: int = 2
    matrices_gib: float = 1.0

    def __call__(self, y: Tensor, A: Projector) -> Reconstruction:
        start = time.perf_counter()
        _check(y, A)
        n_parts = 1
        if isinstance(A, SliceProjector | StackedProjector) and can_be_divided(
            A.grid, A.beam, self.subpixels, self.matrices_gib
        ):
            n_parts = self.subpixels
            A = A if n_parts == 1 else through_parts(A, n_parts)
        rough = back_project(y, A, "hann") if has_back_projection(A.beam) else SIRT(_ROUGH)(y, A).image
        scale = 1 / _peak(rough)
        x, changes = total_variation_image(
            A,
            A.adjoint(y * scale),
            self.lam,
            weights=along_axes(A),
            coupling=self.coupling,
            max_iter=self.max_iter,
            inner=self.inner,
            tol=self.tol,
        )
        converged = changes[-1][1] <= self.tol
        stop = StopReason(
            "converged" if converged else "budget",
            len(changes),
            f"the image changed by less than {self.tol:g} of itself"
            if converged
            else f"{len(changes)} rounds were run; the last change was {changes[-1][1]:.1e}",
        )
        if not bool(torch.isfinite(x).all()):
            raise DivergedError("cg-tv diverged; check that the geometry belongs to these projections")
        seconds = time.perf_counter() - start
        image = block_means(x, n_parts, (1, 2)) / scale
        return Reconstruction(image, "cg-tv", stop, len(changes), seconds, {"change": changes}, scale)


CT_BASELINES: dict[str, Callable[[], Callable[[Tensor, Projector], Reconstruction]]] = {
    "fbp": FilteredBackProjection,
    "sirt": SIRT,
    "cg-ls": LeastSquares,
    "cg-tv": CGTotalVariation,
}
"""The baselines for projections by the names of the command line."""


def back_project(y: Tensor, A: Projector, filter: Filter) -> Tensor:
    """Filtered back-projection on the projector's own grid, without its warning: whoever calls this is told of gaps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if isinstance(A, VolumeProjector):
            return feldkamp(y, A.beam, A.grid, filter)
        if isinstance(A, StackedProjector):
            return A.join(filtered_back_projection(A.data_of(y), A.beam, A.grid, filter))
        return filtered_back_projection(y, A.beam, A.grid, filter)


def has_back_projection(beam: Beam | VolumeBeam) -> bool:
    """Whether `back_project` can do it: slices, and volumes that the source went around on a circle."""
    return isinstance(beam, Beam) or (isinstance(beam, ConeBeam) and beam.is_circular)


def _one_over(sums: Tensor) -> Tensor:
    return torch.where(sums > 0, 1 / sums, 0)


def _peak(image: Tensor) -> float:
    value = float(torch.quantile(image.abs().flatten()[:: max(1, image.numel() // 2**20)], 0.999))
    if not value > 0:
        raise DipmedError("the back-projection is zero: the projections hold nothing that the grid could show")
    return value


def _check(y: Tensor, A: Projector) -> None:
    if tuple(y.shape) != A.range.shape:
        raise ShapeError(f"the projections must be one element of {A.range.shape}, got {tuple(y.shape)}")
    if not bool(torch.isfinite(y).all()):
        raise DipmedError("the projections hold values that are not finite")
