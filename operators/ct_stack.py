"""CT of a stack of slices as one volume: all slices share the rays, and one pair of sparse matrices."""

from __future__ import annotations

from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct_sparse import SliceProjector
from operators.errors import ShapeError


class StackedProjector(LinearOperator):
    """Line integrals through each slice of a volume: ``(1, x, y, z)`` becomes ``(1, view, z, column)``.

    So slices are the rows of a detector, as in a scan of the volume by rays that keep within the slices.

    Parameters
    ----------
    projector
        Of one slice.
    n_slices
        How many there are.
    pitch
        From one slice to the next, in pixels of the image, for whoever compares neighbours: projections do not need it.

    Raises
    ------
    ShapeError
        When there is none, or the pitch is not positive.
    """

    traceable = False

    def __init__(self, projector: SliceProjector, n_slices: int, pitch: float = 1.0) -> None:
        if n_slices < 1:
            raise ShapeError(f"a stack needs at least one slice, got {n_slices}")
        if not pitch > 0:
            raise ShapeError(f"slices lie apart, by a pitch above zero, got {pitch}")
        n_views, n_columns = projector.range.shape[1:]
        super().__init__(
            Space((*projector.domain.shape, n_slices), is_complex=False),
            Space((1, n_views, n_slices, n_columns), is_complex=False),
        )
        self.projector = projector
        self.grid = projector.grid
        self.beam = projector.beam
        self.n_slices = n_slices
        self.pitch = pitch

    def join(self, images: Tensor) -> Tensor:
        """Put slices ``(batch..., z, 1, x, y)`` into a volume, ``(batch..., 1, x, y, z)``."""
        return images.movedim(-4, -1)

    def data_of(self, y: Tensor) -> Tensor:
        """Bring slices to the front, ``(batch..., 1, view, z, column)`` to ``(batch..., z, 1, view, column)``."""
        return y.movedim(-2, -4)

    def _forward(self, x: Tensor) -> Tensor:
        return self.projector._forward(x.movedim(-1, -4)).movedim(-4, -2)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self.join(self.projector._adjoint(self.data_of(y)))
