"""CT of slices as a pair of sparse matrices: line integrals and their exact adjoint."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct_geometry import Array, Beam, FanBeam, Grid
from operators.errors import DipmedError, ShapeError

Weights = Literal["joseph", "strip"]

Rows = tuple[NDArray[Any], NDArray[np.int32], NDArray[np.float32]]
"""Of a sparse matrix: how many weights each has, and the pixels and values of these, row after row."""

_PARTS = tuple(f"_{of}_{part}" for of in ("rows", "columns") for part in ("start", "index", "value"))

KEPT_GIB = 1.0
"""Largest pair that is kept for the next projector of the same grid and beam; two are."""

_TOGETHER = 32
"""Columns that are worked on at a time."""

_BYTES_PER_WEIGHT = 2 * (4 + 4)
"""Of a value and a column number, in the matrix and in its transpose."""


class SliceProjector(LinearOperator):
    """Line integrals through a slice: attenuation ``(1, x, y)`` in 1/mm becomes a sinogram ``(1, view, column)``.

    The weights are computed once and kept as two sparse matrices, A and Aᵀ, so that one product serves all slices of a
    batch, on the CPU and on a GPU, and the adjoint is exact. Projectors of the same grid and beam share them, unless
    they are large.

    Parameters
    ----------
    grid
        Pixels of the slice.
    beam
        How the rays run.
    weights
        ``"joseph"`` interpolates linearly along the rows or columns that the ray crosses more steeply (P. M. Joseph,
        1982, doi:10.1109/TMI.1982.4307572). ``"strip"`` takes the area of each pixel that lies between the rays to
        the edges of a column, divided by the width of that strip: the average over the column.
    memory_gib
        Most memory that the pair of matrices may take.

    Raises
    ------
    ShapeError
        When the grid is a volume.
    DipmedError
        When no ray meets the grid, the source stands inside it, or the matrices would not fit; the message has an
        estimate.
    """

    traceable = False

    def __init__(self, grid: Grid, beam: Beam, weights: Weights = "joseph", *, memory_gib: float = 8.0) -> None:
        if len(grid.shape) != 2:
            raise ShapeError(f"a slice has two axes, the grid is {grid.shape}")
        _check(grid, beam, weights, memory_gib)
        n_views = len(beam.angles)
        super().__init__(
            Space((1, *grid.shape), is_complex=False), Space((1, n_views, beam.n_columns), is_complex=False)
        )
        self.grid = grid
        self.beam = beam
        small = pair_gib(grid, beam) <= KEPT_GIB
        parts = (_kept_pair if small else _pair)(grid, beam, weights)
        for name, part in zip(_PARTS, parts, strict=True):
            self.register_buffer(name, part, persistent=False)

    def _forward(self, x: Tensor) -> Tensor:
        return self._multiply("_rows", x, self.domain, self.range)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._multiply("_columns", y, self.range, self.domain)

    def _multiply(self, name: str, x: Tensor, source: Space, target: Space) -> Tensor:
        """Multiply all elements of the batch by one of the two matrices at once."""
        start, index, value = (getattr(self, f"{name}_{part}") for part in ("start", "index", "value"))
        with warnings.catch_warnings():  # torch says once that this layout is in beta
            warnings.simplefilter("ignore", UserWarning)
            shape = (target.size, source.size)
            matrix = torch.sparse_csr_tensor(start, index, value.to(x.dtype), shape, check_invariants=False)
        batch = x.shape[: x.ndim - len(source.shape)]
        elements = x.reshape(-1, source.size)
        if len(elements) == 1:  # takes half as long as a matrix of one column
            return (matrix @ elements[0]).reshape(batch + target.shape)
        return (matrix @ elements.T).T.reshape(batch + target.shape)


def _check(grid: Grid, beam: Beam, weights: Weights, memory_gib: float) -> None:
    if weights not in ("joseph", "strip"):
        raise DipmedError(f"weights are joseph or strip, got {weights!r}")
    if isinstance(beam, FanBeam) and beam.source_to_axis_mm <= grid.radius_mm:
        raise DipmedError(
            f"the source, {beam.source_to_axis_mm:g} mm from the axis, must stand outside the grid, which reaches "
            f"{grid.radius_mm:g} mm"
        )
    needed = pair_gib(grid, beam, weights)
    if needed > memory_gib:
        raise DipmedError(
            f"{len(beam.angles)} views of {beam.n_columns} columns through {grid.shape} pixels need about "
            f"{needed:.1f} GiB, and {memory_gib:g} GiB are allowed; take fewer views, coarser pixels, or more memory"
        )


def pair_gib(grid: Grid, beam: Beam, weights: Weights = "joseph") -> float:
    """About how much memory the pair of matrices takes."""
    on_a_step = 2.0
    if weights == "strip":
        at_axis = beam.column_mm
        if isinstance(beam, FanBeam):
            at_axis *= beam.source_to_axis_mm / beam.source_to_detector_mm
        on_a_step += at_axis / min(grid.spacing_mm)
    return len(beam.angles) * beam.n_columns * on_a_step * max(grid.shape) * _BYTES_PER_WEIGHT / 2**30


def _pair(grid: Grid, beam: Beam, weights: Weights) -> tuple[Tensor, ...]:
    """Starts, pixels and values of the matrix, and of its transpose, in the order of `_PARTS`."""
    make = _joseph if weights == "joseph" else _strips
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy lets go of the interpreter for most of it
        views = list(pool.map(partial(make, grid, beam), range(len(beam.angles))))
    counts, index, values = _joined(views)
    if not len(values):
        raise DipmedError(f"no ray of {beam} meets the {grid}")
    start = np.concatenate([[0], np.cumsum(counts)])
    start = start.astype(np.int32 if start[-1] < 2**31 else np.int64)
    shape = len(counts), math.prod(grid.shape)
    matrix = sparse.csr_array((values, index.astype(start.dtype, copy=False), start), shape=shape)
    return tuple(
        torch.from_numpy(part) for made in (matrix, matrix.T.tocsr()) for part in (made.indptr, made.indices, made.data)
    )


_kept_pair = lru_cache(maxsize=2)(_pair)


def _joseph(grid: Grid, beam: Beam, view: int) -> Rows:
    """Weights of one view, column after column."""
    points, directions = beam.rays(view, beam.columns_mm)
    steps = np.abs(directions) / np.array(grid.spacing_mm)
    # rays that cross both alike, as at 45 degrees, all go the same way whatever the rounding
    along_y = steps[:, 1] > steps[:, 0] * (1 + 1e-6)
    runs = _runs(along_y)
    return _joined([_interpolate(grid, points[run], directions[run], int(along_y[run[0]])) for run in runs])


def _interpolate(grid: Grid, points: Array, directions: Array, main: int) -> Rows:
    """Step along the axis ``main`` from pixel to pixel, and share each step between the two pixels around the ray."""
    cross = 1 - main
    start, rise = _places(grid, points, directions, main)
    step = np.arange(grid.shape[main])
    place = start[:, None] + np.outer(rise, step)
    length = (grid.spacing_mm[main] / np.abs(directions[:, main])).astype(np.float32)[:, None]
    low = np.floor(place)
    upper = (place - low).astype(np.float32) * length
    below = low.clip(-2, grid.shape[cross]).astype(np.int32)
    strides = grid.shape[1], 1
    pixel = below * np.int32(strides[cross]) + (step * strides[main]).astype(np.int32)
    # the two pixels of a step side by side, so that rays stay in order
    index = np.stack([pixel, pixel + np.int32(strides[cross])], axis=-1)
    weight = np.stack([length - upper, upper], axis=-1)
    kept = weight > 0
    kept[..., 0] &= (below >= 0) & (below < grid.shape[cross])
    kept[..., 1] &= (below >= -1) & (below < grid.shape[cross] - 1)
    return np.count_nonzero(kept, axis=(1, 2)), index[kept], weight[kept]


def _runs(along_y: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Neighbouring columns whose rays have the same main axis, few enough for the processor's cache."""
    n = len(along_y)
    cuts = np.union1d(np.flatnonzero(np.diff(along_y)) + 1, np.arange(_TOGETHER, n, _TOGETHER))
    return np.split(np.arange(n), cuts)


def _joined(parts: list[Rows]) -> Rows:
    counts, index, values = (np.concatenate(some) for some in zip(*parts, strict=True))
    return counts, index, values


def _strips(grid: Grid, beam: Beam, view: int) -> Rows:
    """Weights of one view, column after column: the area of a pixel in the strip of a column over its width there."""
    edges = np.append(beam.columns_mm - beam.column_mm / 2, beam.columns_mm[-1] + beam.column_mm / 2)
    points, directions = beam.rays(view, edges)
    steps = np.abs(directions) / np.array(grid.spacing_mm)
    along_y = (steps[:-1] + steps[1:])[:, 1] > (steps[:-1] + steps[1:])[:, 0]
    runs = _runs(along_y)
    return _joined([_share(grid, points, directions, run, int(along_y[run[0]])) for run in runs])


def _share(grid: Grid, points: Array, directions: Array, columns: NDArray[np.intp], main: int) -> Rows:
    """Share each row of pixels across the axis ``main`` out to the strips of some columns."""
    cross = 1 - main
    edges = np.append(columns, columns[-1] + 1)
    points, directions = points[edges], directions[edges]
    start, rise = _places(grid, points, directions, main)
    step = np.arange(grid.shape[main])
    place = start[:, None] + np.outer(rise, step)
    # within a row of pixels a line moves by its rise, half of it to either side
    tilt = np.maximum(np.abs(rise[:-1]), np.abs(rise[1:]))[:, None] / 2
    lowest = np.ceil(np.minimum(place[:-1], place[1:]) - tilt - 0.5)
    highest = np.floor(np.maximum(place[:-1], place[1:]) + tilt + 0.5)
    across = lowest[..., None] + np.arange(int((highest - lowest).max()) + 1)  # (column, step, pixel)
    normals = np.stack([directions[:, 1], -directions[:, 0]], axis=-1)  # along u

    def distance(edge: slice) -> Array:
        from_edge = (grid.coordinates(main) - points[edge, main, None]) * normals[edge, main, None]
        from_edge += (grid.coordinates(cross)[0] - points[edge, cross, None]) * normals[edge, cross, None]
        return from_edge[..., None] + across * (grid.spacing_mm[cross] * normals[edge, cross])[:, None, None]

    to_first, to_second = distance(slice(None, -1)), distance(slice(1, None))
    area = _area_below(grid, to_first, normals[:-1]) - _area_below(grid, to_second, normals[1:])
    kept = (area > 1e-9 * math.prod(grid.spacing_mm)) & (across >= 0) & (across < grid.shape[cross])
    strides = grid.shape[1], 1
    pixel = across.clip(0, grid.shape[cross]).astype(np.int32) * np.int32(strides[cross])
    pixel += (step * strides[main]).astype(np.int32)[:, None]
    width = (to_first - to_second)[kept]
    return np.count_nonzero(kept, axis=(1, 2)), pixel[kept], (area[kept] / width).astype(np.float32)


def _places(grid: Grid, points: Array, directions: Array, main: int) -> tuple[Array, Array]:
    """Where lines cross the first row of pixels across the axis ``main``, in pixels, and by how much more the next."""
    cross = 1 - main
    slope = directions[:, cross] / directions[:, main]
    start = points[:, cross] + (grid.coordinates(main)[0] - points[:, main]) * slope - grid.coordinates(cross)[0]
    return start / grid.spacing_mm[cross], slope * (grid.spacing_mm[main] / grid.spacing_mm[cross])


def _area_below(grid: Grid, distance: Array, normal: Array) -> Array:
    """Area of pixels on the far side of the line of each column, by the distance of their middles from it.

    Projected on the normal, a rectangle is a trapezoid; this is its integral beyond the line.
    """
    sides = np.abs(normal) * np.array(grid.spacing_mm)
    a, b = sides.min(axis=-1)[:, None, None], sides.max(axis=-1)[:, None, None]
    outer, inner = (a + b) / 2, (b - a) / 2
    side = np.minimum(np.abs(distance), outer)
    # half of a rectangle, less the corner that the slope of the trapezoid cuts off
    corner = np.clip(side - inner, 0, None)
    half = np.minimum(side, inner) + corner - corner**2 / (2 * np.maximum(a, 1e-12 * b))
    area: Array = math.prod(grid.spacing_mm) * (0.5 + np.copysign(half / b, distance))
    return area
