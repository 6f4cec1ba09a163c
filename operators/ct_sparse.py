"""CT of slices as a pair of sparse matrices: line integrals and their exact adjoint."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
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

_BYTES_PER_WEIGHT = 2 * (4 + 4)
"""Of a value and a column number, in the matrix and in its transpose."""


class SliceProjector(LinearOperator):
    """Line integrals through a slice: attenuation ``(1, x, y)`` in 1/mm becomes a sinogram ``(1, view, column)``.

    The weights are computed once and kept as two sparse matrices, A and Aᵀ, so that one product serves all slices of a
    batch, on the CPU and on a GPU, and the adjoint is exact.

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
        make = _joseph if weights == "joseph" else _strips
        matrix = sparse.vstack([make(grid, beam, view) for view in range(n_views)], format="csr", dtype=np.float32)
        if not matrix.nnz:
            raise DipmedError(f"no ray of {beam} meets the {grid}")
        for name, part in (("_rows", matrix), ("_columns", matrix.T.tocsr())):
            self.register_buffer(f"{name}_start", torch.from_numpy(part.indptr), persistent=False)
            self.register_buffer(f"{name}_index", torch.from_numpy(part.indices), persistent=False)
            self.register_buffer(f"{name}_value", torch.from_numpy(part.data), persistent=False)

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
        product = matrix @ x.reshape(-1, source.size).T
        return product.T.reshape(batch + target.shape)


def _check(grid: Grid, beam: Beam, weights: str, memory_gib: float) -> None:
    if weights not in ("joseph", "strip"):
        raise DipmedError(f"weights are joseph or strip, got {weights!r}")
    if isinstance(beam, FanBeam) and beam.source_to_axis_mm <= grid.radius_mm:
        raise DipmedError(
            f"the source, {beam.source_to_axis_mm:g} mm from the axis, must stand outside the grid, which reaches "
            f"{grid.radius_mm:g} mm"
        )
    needed = len(beam.angles) * beam.n_columns * 2 * max(grid.shape) * _BYTES_PER_WEIGHT / 2**30
    if needed > memory_gib:
        raise DipmedError(
            f"{len(beam.angles)} views of {beam.n_columns} columns through {grid.shape} pixels need about "
            f"{needed:.1f} GiB, and {memory_gib:g} GiB are allowed; take fewer views, coarser pixels, or more memory"
        )


def _joseph(grid: Grid, beam: Beam, view: int) -> sparse.csr_array:
    """Weights of one view, ``(column, pixel)``."""
    points, directions = beam.rays(view, beam.columns_mm)
    steps = np.abs(directions) / np.array(grid.spacing_mm)
    along_x = steps[:, 0] >= steps[:, 1]
    rows, pixels, values = [], [], []
    for main, chosen in ((0, along_x), (1, ~along_x)):
        ray = np.flatnonzero(chosen)
        if len(ray):
            row, pixel, value = _interpolate(grid, points[ray], directions[ray], main)
            rows.append(ray[row])
            pixels.append(pixel)
            values.append(value)
    shape = (beam.n_columns, math.prod(grid.shape))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(pixels)))
    return sparse.coo_array(entries, shape=shape).tocsr()


def _interpolate(
    grid: Grid, points: Array, directions: Array, main: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Step along the axis ``main`` from pixel to pixel; return ray, pixel and weight of all that are touched."""
    cross = 1 - main
    distance = (grid.coordinates(main)[None, :] - points[:, main, None]) / directions[:, main, None]
    crossing = points[:, cross, None] + distance * directions[:, cross, None]
    place = (crossing - grid.coordinates(cross)[0]) / grid.spacing_mm[cross]
    low = np.floor(place)
    fraction = place - low
    length = np.broadcast_to(grid.spacing_mm[main] / np.abs(directions[:, main, None]), place.shape)
    found = []
    for index, weight in ((low, (1 - fraction) * length), (low + 1, fraction * length)):
        ray, step = np.nonzero((index >= 0) & (index < grid.shape[cross]) & (weight > 0))
        crossed = index[ray, step].astype(np.int64)
        pixel = step * grid.shape[1] + crossed if main == 0 else crossed * grid.shape[1] + step
        found.append((ray, pixel, weight[ray, step].astype(np.float32)))
    ray, pixel, weight = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return ray, pixel, weight


def _strips(grid: Grid, beam: Beam, view: int) -> sparse.csr_array:
    """Weights of one view, ``(column, pixel)``: the area of a pixel in the strip of a column over its width there."""
    edges = np.append(beam.columns_mm - beam.column_mm / 2, beam.columns_mm[-1] + beam.column_mm / 2)
    points, directions = beam.rays(view, edges)
    normals = np.stack([directions[:, 1], -directions[:, 0]], axis=-1)  # along u
    x, y = grid.coordinates(0)[:, None], grid.coordinates(1)[None, :]
    columns, pixels, values = [], [], []
    for column, (first, last) in enumerate(_columns_with_pixels(grid, points, normals)):
        rows = slice(first, last)
        below = _area_below(grid, x[rows], y, points[column], normals[column])
        above = _area_below(grid, x[rows], y, points[column + 1], normals[column + 1])
        area = below - above
        i, j = np.nonzero(area > 1e-9 * math.prod(grid.spacing_mm))
        width = _width(x[rows][i, 0], y[0, j], points[column : column + 2], normals[column : column + 2])
        columns.append(np.full(len(i), column))
        pixels.append((i + first) * grid.shape[1] + j)
        values.append((area[i, j] / width).astype(np.float32))
    shape = (beam.n_columns, math.prod(grid.shape))
    entries = (np.concatenate(values), (np.concatenate(columns), np.concatenate(pixels)))
    return sparse.coo_array(entries, shape=shape).tocsr()


def _columns_with_pixels(grid: Grid, points: Array, normals: Array) -> Iterator[tuple[int, int]]:
    """Yield for each column the range of pixels along x that its strip can meet."""
    half = grid.shape[1] * grid.spacing_mm[1] / 2
    ends = grid.centre_mm[1] + np.array([-half, half])
    for column in range(len(points) - 1):
        reach = []
        for point, normal in zip(points[column : column + 2], normals[column : column + 2], strict=True):
            if abs(normal[0]) < 1e-9:
                reach += [-np.inf, np.inf]
            else:
                reach += [point[0] - (end - point[1]) * normal[1] / normal[0] for end in ends]
        place = (np.clip([min(reach), max(reach)], -1e9, 1e9) - grid.coordinates(0)[0]) / grid.spacing_mm[0]
        yield max(0, math.floor(place[0]) - 1), max(0, min(grid.shape[0], math.ceil(place[1]) + 2))


def _area_below(grid: Grid, x: Array, y: Array, point: Array, normal: Array) -> Array:
    """Area of each pixel on the far side of a line, along its normal.

    Projected on the normal, a rectangle is a trapezoid; this is its integral beyond the line.
    """
    distance = (x - point[0]) * normal[0] + (y - point[1]) * normal[1]
    a, b = sorted(abs(n) * s for n, s in zip(normal, grid.spacing_mm, strict=True))
    total = math.prod(grid.spacing_mm)
    outer, inner = (a + b) / 2, (b - a) / 2
    t = np.clip(distance, -outer, outer)
    if a < 1e-12 * b:
        return total * (t + outer) / (2 * outer)
    # half of a rectangle, less the corner that the slope of the trapezoid cuts off
    side = np.abs(t)
    slope = np.clip(side - inner, 0, None)
    half = np.minimum(side, inner) + slope - slope**2 / (2 * a)
    return total * (0.5 + np.sign(t) * half / b)


def _width(x: Array, y: Array, points: Array, normals: Array) -> Array:
    """Width of a strip at these places, from the distances to its two edges."""
    to_first = (x - points[0, 0]) * normals[0, 0] + (y - points[0, 1]) * normals[0, 1]
    to_second = (x - points[1, 0]) * normals[1, 0] + (y - points[1, 1]) * normals[1, 1]
    return to_first - to_second
