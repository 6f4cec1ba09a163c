"""CT with projections weighted by frequency and by ray, as least squares want them."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.checks import norm_bound
from operators.ct_cone import ConeBeam, PosedBeam, VolumeBeam
from operators.ct_geometry import Beam, ParallelBeam
from operators.ct_march import VolumeProjector
from operators.ct_sparse import SliceProjector
from operators.ct_stack import StackedProjector
from operators.errors import DipmedError, ShapeError
from operators.fbp import filter_rows, ramp_spectrum

Projector = SliceProjector | StackedProjector | VolumeProjector
"""What makes plain line integrals."""


class FilteredProjector(LinearOperator):
    """Line integrals, filtered by a power of the ramp along the columns: ``A = c rampᵉ W P``, of norm 1.

    With the root of the ramp, ``Aᴴ`` of filtered data is close to a filtered back-projection, and ``AᴴA`` to the
    identity: least squares converge in few steps, but noise is raised at high frequencies, as in any filtered
    back-projection. Without a filter ``AᴴA`` blurs, and all rays count as they were measured. Data have to be filtered
    in the same way, see `weigh`.

    Parameters
    ----------
    projector
        The line integrals, P, of a slice, of a stack of slices or of a volume.
    mask
        Views that are seen, bool ``(view, 1)``, or ``(view, 1, 1)`` of stacks and volumes; by default all. Kept as the
        buffer ``mask``.
    factor
        c; by default what makes the norm 1, from a power iteration over all views.
    exponent
        e, 0 for no filter.
    ray_weights
        W, not negative, shaped as the range without its first axis; None for one. The roots of the expected counts of
        photons make least squares those of Poisson noise.

    Raises
    ------
    ShapeError
        When the mask does not fit the views, or the weights do not fit the rays.
    DipmedError
        When a weight is negative or not finite, or all are zero.
    """

    traceable = False
    mask: Tensor
    ray_weights: Tensor | None
    _spectrum: Tensor

    def __init__(
        self,
        projector: Projector,
        mask: Tensor | None = None,
        factor: float | None = None,
        *,
        exponent: float = 0.5,
        ray_weights: Tensor | None = None,
    ) -> None:
        n_views, *cells = projector.range.shape[1:]
        shape = (n_views, *(1 for _ in cells))
        mask = torch.ones(shape, dtype=torch.bool, device=projector.device) if mask is None else mask
        if mask.shape != shape or mask.dtype != torch.bool:
            raise ShapeError(f"a mask of views must be bool {shape}, got {mask.dtype} {tuple(mask.shape)}")
        super().__init__(projector.domain, projector.range)
        self.projector = projector
        self.register_buffer("mask", mask)
        if ray_weights is not None:
            _check_weights(ray_weights, projector.range.shape[1:])
        self.register_buffer("ray_weights", ray_weights)
        self.exponent = exponent
        ramp = torch.from_numpy(ramp_spectrum(_of_a_row(projector.beam), "ramp")).clamp(min=0)
        self.register_buffer("_spectrum", (ramp / ramp.max()).pow(exponent).to(projector.device), persistent=False)
        self.factor = 1.0
        if factor is None:
            # a volume costs more, and is fitted for fewer steps
            factor = 1 / (norm_bound(self, 30, 1.02) if isinstance(projector, SliceProjector) else norm_bound(self))
        self.factor = factor

    def with_mask(self, mask: Tensor) -> FilteredProjector:
        """Return the operator that sees only the views of a ``mask``, bool ``(view, 1[, 1])``."""
        return FilteredProjector(
            self.projector, mask, self.factor, exponent=self.exponent, ray_weights=self.ray_weights
        )

    def unfiltered(self) -> FilteredProjector:
        """Return the operator of the same views and weights without the filter."""
        return FilteredProjector(self.projector, self.mask, exponent=0, ray_weights=self.ray_weights)

    def weigh(self, sinogram: Tensor) -> Tensor:
        """Weight measured line integrals ``(batch..., 1, view[, row], column)`` as this operator's range has them."""
        return self._filter(self._seen(sinogram))

    def _forward(self, x: Tensor) -> Tensor:
        return self.weigh(self.projector._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.projector._adjoint(self._seen(self._filter(y)))

    def _seen(self, sinogram: Tensor) -> Tensor:
        seen = sinogram * self.mask
        return seen if self.ray_weights is None else seen * self.ray_weights.to(seen.dtype)

    def _filter(self, rows: Tensor) -> Tensor:
        if self.exponent == 0:
            return self.factor * rows
        return self.factor * filter_rows(rows, self._spectrum.to(rows.dtype))


def _check_weights(weights: Tensor, rays: tuple[int, ...]) -> None:
    if tuple(weights.shape) != rays or weights.is_complex():
        raise ShapeError(f"the weights of the rays must be real {rays}, got {weights.dtype} {tuple(weights.shape)}")
    if not bool(torch.isfinite(weights).all()) or float(weights.min()) < 0 or float(weights.max()) == 0:
        raise DipmedError("the weights of the rays must be finite and not negative, and some must be above zero")


def _of_a_row(beam: Beam | VolumeBeam) -> Beam:
    """Return a beam of slices with the columns of this one, up to the scale of the filter."""
    if isinstance(beam, ConeBeam):
        return beam.mid_plane
    return ParallelBeam((0.0,), beam.n_columns, 1.0) if isinstance(beam, PosedBeam) else beam
