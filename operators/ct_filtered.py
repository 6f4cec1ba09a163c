"""CT weighted as filtered back-projection weights it, so that least squares converge in few steps."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.checks import norm_bound
from operators.ct_cone import ConeBeam, PosedBeam, VolumeBeam
from operators.ct_geometry import Beam, ParallelBeam
from operators.ct_march import VolumeProjector
from operators.ct_sparse import SliceProjector
from operators.errors import ShapeError
from operators.fbp import filter_rows, ramp_spectrum


class FilteredProjector(LinearOperator):
    """Line integrals, filtered by the root of the ramp along the columns: ``A = c √ramp P``, of norm 1.

    ``Aᴴ`` of filtered data is then close to a filtered back-projection, and ``AᴴA`` to the identity, where that of
    line integrals alone blurs. Data have to be filtered in the same way, see `weigh`. Noise of the line integrals is
    raised at high frequencies, as in any filtered back-projection.

    Parameters
    ----------
    projector
        The line integrals, P, of slices or of a volume.
    mask
        Views that are seen, bool ``(view, 1)``, or ``(view, 1, 1)`` of a volume; by default all. Kept as the buffer
        ``mask``.
    factor
        c; by default what makes the norm 1, from a power iteration over all views.

    Raises
    ------
    ShapeError
        When the mask does not fit the views.
    """

    traceable = False
    mask: Tensor
    _spectrum: Tensor

    def __init__(
        self, projector: SliceProjector | VolumeProjector, mask: Tensor | None = None, factor: float | None = None
    ) -> None:
        n_views, *cells = projector.beam.shape
        shape = (n_views, *(1 for _ in cells))
        mask = torch.ones(shape, dtype=torch.bool, device=projector.device) if mask is None else mask
        if mask.shape != shape or mask.dtype != torch.bool:
            raise ShapeError(f"a mask of views must be bool {shape}, got {mask.dtype} {tuple(mask.shape)}")
        super().__init__(projector.domain, projector.range)
        self.projector = projector
        self.register_buffer("mask", mask)
        root = torch.from_numpy(ramp_spectrum(_of_a_row(projector.beam), "ramp")).clamp(min=0).sqrt()
        self.register_buffer("_spectrum", root.to(projector.device), persistent=False)
        self.factor = 1.0
        if factor is None:
            # a volume costs more, and is fitted for fewer steps
            factor = 1 / (norm_bound(self, 30, 1.02) if isinstance(projector, SliceProjector) else norm_bound(self))
        self.factor = factor

    def with_mask(self, mask: Tensor) -> FilteredProjector:
        """Return the operator that sees only the views of a ``mask``, bool ``(view, 1[, 1])``."""
        return FilteredProjector(self.projector, mask, self.factor)

    def weigh(self, sinogram: Tensor) -> Tensor:
        """Filter measured line integrals ``(batch..., 1, view[, row], column)`` as this operator's range has them."""
        return self.factor * filter_rows(sinogram * self.mask, self._spectrum.to(sinogram.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        return self.weigh(self.projector._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.projector._adjoint(self.weigh(y))


def _of_a_row(beam: Beam | VolumeBeam) -> Beam:
    """Return a beam of slices with the columns of this one, up to the scale of the filter."""
    if isinstance(beam, ConeBeam):
        return beam.mid_plane
    return ParallelBeam((0.0,), beam.n_columns, 1.0) if isinstance(beam, PosedBeam) else beam
