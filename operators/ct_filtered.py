"""CT of slices weighted as filtered back-projection weights it, so that least squares converge in few steps."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator
from operators.checks import norm_bound
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
        The line integrals, P.
    mask
        Views that are seen, bool ``(view, 1)``; by default all. Kept as the buffer ``mask``.
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

    def __init__(self, projector: SliceProjector, mask: Tensor | None = None, factor: float | None = None) -> None:
        n_views = len(projector.beam.angles)
        mask = torch.ones((n_views, 1), dtype=torch.bool, device=projector.device) if mask is None else mask
        if mask.shape != (n_views, 1) or mask.dtype != torch.bool:
            raise ShapeError(f"a mask of views must be bool ({n_views}, 1), got {mask.dtype} {tuple(mask.shape)}")
        super().__init__(projector.domain, projector.range)
        self.projector = projector
        self.register_buffer("mask", mask)
        root = torch.from_numpy(ramp_spectrum(projector.beam, "ramp")).clamp(min=0).sqrt()
        self.register_buffer("_spectrum", root.to(projector.device), persistent=False)
        self.factor = 1.0
        if factor is None:
            factor = 1 / norm_bound(self, 30, 1.02)
        self.factor = factor

    def with_mask(self, mask: Tensor) -> FilteredProjector:
        """Return the operator that sees only the views of a ``mask``, bool ``(view, 1)``."""
        return FilteredProjector(self.projector, mask, self.factor)

    def weigh(self, sinogram: Tensor) -> Tensor:
        """Filter measured line integrals ``(batch..., 1, view, column)`` as this operator's range has them."""
        return self.factor * filter_rows(sinogram * self.mask, self._spectrum.to(sinogram.dtype))

    def _forward(self, x: Tensor) -> Tensor:
        return self.weigh(self.projector._forward(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.projector._adjoint(self.weigh(y))
