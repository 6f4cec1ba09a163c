"""Pixels that are means of smaller ones, through which the rays of a slice run.

An object has detail within a pixel, which few views cannot show and yet measure: a model without it explains it by
streaks elsewhere. Smaller pixels, and the mean over each column in place of a line through its middle, take it up.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from operators.ct_geometry import Beam, Grid
from operators.ct_sparse import KEPT_GIB, SliceProjector, pair_gib
from operators.ct_stack import StackedProjector
from operators.errors import DipmedError


def subdivided(grid: Grid, parts: int) -> Grid:
    """Cut each pixel of a grid in ``parts`` along each axis.

    Raises
    ------
    DipmedError
        When there is no such number of parts.
    """
    if parts < 1:
        raise DipmedError(f"a pixel has one part or more along each axis, got {parts}")
    shape = tuple(parts * n for n in grid.shape)
    return Grid(shape, tuple(size / parts for size in grid.spacing_mm), grid.centre_mm)


def parts_gib(grid: Grid, beam: Beam, parts: int) -> float:
    """About how much memory the matrices through so many parts take."""
    return pair_gib(subdivided(grid, parts), beam, "strip")


def can_be_divided(grid: Grid, beam: Beam, parts: int, memory_gib: float = KEPT_GIB) -> bool:
    """Whether the matrices through so many parts take no more than this; by default, to be kept for the next slice."""
    return parts_gib(grid, beam, parts) <= memory_gib


def through_parts(A: SliceProjector | StackedProjector, parts: int) -> SliceProjector | StackedProjector:
    """Return the same projections of an image of smaller pixels, ``(1, parts x, parts y[, z])``, as means over columns.

    Slices of a stack stay as thick as they are, and their pitch is counted in whole pixels.
    """
    divided = SliceProjector(subdivided(A.grid, parts), A.beam, weights="strip").to(A.device)
    return StackedProjector(divided, A.n_slices, A.pitch) if isinstance(A, StackedProjector) else divided


def block_means(x: Tensor, n: int, axes: Iterable[int]) -> Tensor:
    """Means over blocks of ``n`` along some axes; of blocks of one, the values themselves."""
    if n == 1:
        return x
    for axis in axes:
        x = x.movedim(axis, -1)
        x = x.reshape(*x.shape[:-1], -1, n).mean(dim=-1).movedim(-1, axis)
    return x
