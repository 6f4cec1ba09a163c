"""Marching through a volume on the CPU, compiled by numba; imported when it is used.

Every ray has a main axis, the one it crosses the most planes of. It is sampled once in each plane of that axis,
linearly between the four voxels around. A ray touches plane i in its step i alone, so the adjoint is shared out by
planes: no two threads write to the same voxel, and the sums have the same order whatever the number of threads.

Where the rows of the detector are parallel to z, the rays of a column cross a plane on one line along z. Voxels are
then combined to that line first, and the rows interpolate along it, which halves the work and reads memory in order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.ct_geometry import Array
from operators.ct_march import Rays
from operators.numba_kernels import compiled, share

_PLANES = 8
"""Planes that one task of the adjoint writes to, while the rays of a column are at hand."""

_TIE = 1 + 1e-6
"""Which axis is the main one must not hang on rounding where two are crossed alike."""


class March:
    """Forward and adjoint of one set of rays through a volume of a shape."""

    def __init__(self, rays: Rays, shape: tuple[int, ...]) -> None:
        self.arguments = rays.sources, rays.cells, rays.row_steps, rays.parallel, rays.n_rows, rays.spacing_mm
        self.shape = shape
        self.n_views, self.n_columns = rays.cells.shape[:2]
        self.n_rows = rays.n_rows
        self.is_upright = bool((rays.row_steps[:, :2] == 0).all() and is_flat_enough(*self.arguments))

    def forward(self, volume: Tensor) -> Tensor:
        """Project ``(batch, x, y, z)`` to ``(batch, view, row, column)``."""
        out = volume.new_empty((len(volume), self.n_views, self.n_rows, self.n_columns))
        kernel = forward_upright if self.is_upright else forward_any
        for image, projections in zip(volume.numpy(), out.numpy(), strict=True):
            share(self.n_views, 1, kernel, image, projections, *self.arguments)
        return out

    def adjoint(self, projections: Tensor) -> Tensor:
        """Back-project ``(batch, view, row, column)`` to ``(batch, x, y, z)``."""
        out = projections.new_zeros((len(projections), *self.shape))
        for data, image in zip(projections.numpy(), out.numpy(), strict=True):
            if self.is_upright:
                weighted = np.empty((self.n_views, self.n_columns, self.n_rows), data.dtype)
                share(self.n_views, 1, weigh_upright, data, weighted, *self.arguments)
                for main in (0, 1):
                    share(self.shape[main], _PLANES, adjoint_upright, weighted, image, main, *self.arguments)
            else:
                for main in (0, 1, 2):
                    share(self.shape[main], _PLANES, adjoint_any, data, image, main, *self.arguments)
        return out


@compiled
def is_flat_enough(sources: Array, cells: Array, row_steps: Array, parallel: bool, n_rows: int, spacing: Array) -> bool:
    """Whether no ray has z as its main axis."""
    for view in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            for row in (0, n_rows - 1):
                if ray(sources, cells, row_steps, parallel, spacing, view, row, column)[6] == 2:
                    return False
    return True


@compiled
def ray(
    sources: Array, cells: Array, row_steps: Array, parallel: bool, spacing: Array, view: int, row: int, column: int
) -> tuple[float, float, float, float, float, float, int, float]:
    """A point and the direction of a ray, its main axis, and its length from plane to plane in mm."""
    x = cells[view, column, 0] + row * row_steps[view, 0]
    y = cells[view, column, 1] + row * row_steps[view, 1]
    z = cells[view, column, 2] + row * row_steps[view, 2]
    dx, dy, dz = sources[view, 0], sources[view, 1], sources[view, 2]
    if not parallel:
        x, y, z, dx, dy, dz = dx, dy, dz, x - dx, y - dy, z - dz
    main, most = 0, abs(dx) * _TIE
    if abs(dy) > most:
        main, most = 1, abs(dy) * _TIE
    if abs(dz) > most:
        main, most = 2, abs(dz)
    along = abs((dx, dy, dz)[main])
    length = math.sqrt((dx * spacing[0]) ** 2 + (dy * spacing[1]) ** 2 + (dz * spacing[2]) ** 2) / along
    return x, y, z, dx, dy, dz, main, length


@compiled
def crossed(start: float, slope: float, low: float, high: float, first: int, end: int) -> tuple[int, int]:
    """Return the whole numbers i of a range with ``low < start + slope i < high``, and rarely one more."""
    if slope == 0:
        return (first, end) if low < start < high else (first, first)
    one, other = (low - start) / slope, (high - start) / slope
    if one > other:
        one, other = other, one
    # clipped before they become integers, which may be too large for them
    first = math.floor(min(max(one, first), end))
    end = math.ceil(min(max(other, first), end - 1)) + 1
    return first, end


@compiled
def before_source(point: float, slope: float, parallel: bool, first: int, end: int) -> tuple[int, int]:
    """Leave out planes behind the source."""
    if parallel:
        return first, end
    if slope > 0:
        return max(first, math.floor(min(max(point, first - 1.0), end)) + 1), end
    return first, min(end, math.ceil(min(max(point, first), end + 1.0)))


@compiled
def forward_any(
    first: int,
    end: int,
    volume: NDArray[Any],
    out: NDArray[Any],
    sources: Array,
    cells: Array,
    row_steps: Array,
    parallel: bool,
    n_rows: int,
    spacing: Array,
) -> None:
    """Project some views, ray by ray."""
    for view in range(first, end):
        for row in range(n_rows):
            for column in range(cells.shape[1]):
                x, y, z, dx, dy, dz, main, length = ray(sources, cells, row_steps, parallel, spacing, view, row, column)
                if main == 0:
                    total = sample(volume, x, dx, y, dy, z, dz, parallel)
                elif main == 1:
                    total = sample(volume.transpose(1, 0, 2), y, dy, x, dx, z, dz, parallel)
                else:
                    total = sample(volume.transpose(2, 0, 1), z, dz, x, dx, y, dy, parallel)
                out[view, row, column] = total * length


@compiled
def sample(
    volume: NDArray[Any], m: float, dm: float, a: float, da: float, b: float, db: float, parallel: bool
) -> float:
    """Sum of what a ray meets in the planes along the first axis."""
    n, na, nb = volume.shape
    start_a, slope_a, start_b, slope_b = a - m * da / dm, da / dm, b - m * db / dm, db / dm
    first, end = before_source(m, dm, parallel, 0, n)
    first, end = crossed(start_a, slope_a, -1.0, na, first, end)
    first, end = crossed(start_b, slope_b, -1.0, nb, first, end)
    total = 0.0
    for i in range(first, end):
        at_a, at_b = start_a + slope_a * i, start_b + slope_b * i
        low_a, low_b = math.floor(at_a), math.floor(at_b)
        fa, fb = at_a - low_a, at_b - low_b
        for ka, wa in ((low_a, 1 - fa), (low_a + 1, fa)):
            if 0 <= ka < na:
                if 0 <= low_b < nb:
                    total += wa * (1 - fb) * volume[i, ka, low_b]
                if 0 <= low_b + 1 < nb:
                    total += wa * fb * volume[i, ka, low_b + 1]
    return total


@compiled
def adjoint_any(
    first: int,
    end: int,
    data: NDArray[Any],
    out: NDArray[Any],
    chosen: int,
    sources: Array,
    cells: Array,
    row_steps: Array,
    parallel: bool,
    n_rows: int,
    spacing: Array,
) -> None:
    """Add what the rays with the main axis ``chosen`` say to some of its planes."""
    for view in range(cells.shape[0]):
        for row in range(n_rows):
            for column in range(cells.shape[1]):
                x, y, z, dx, dy, dz, main, length = ray(sources, cells, row_steps, parallel, spacing, view, row, column)
                if main != chosen:
                    continue
                value = data[view, row, column] * length
                if main == 0:
                    spread(value, first, end, out, x, dx, y, dy, z, dz, parallel)
                elif main == 1:
                    spread(value, first, end, out.transpose(1, 0, 2), y, dy, x, dx, z, dz, parallel)
                else:
                    spread(value, first, end, out.transpose(2, 0, 1), z, dz, x, dx, y, dy, parallel)


@compiled
def spread(
    value: float,
    first: int,
    end: int,
    out: NDArray[Any],
    m: float,
    dm: float,
    a: float,
    da: float,
    b: float,
    db: float,
    parallel: bool,
) -> None:
    """Add a value to the voxels that `sample` reads in some planes."""
    _, na, nb = out.shape
    start_a, slope_a, start_b, slope_b = a - m * da / dm, da / dm, b - m * db / dm, db / dm
    first, end = before_source(m, dm, parallel, first, end)
    first, end = crossed(start_a, slope_a, -1.0, na, first, end)
    first, end = crossed(start_b, slope_b, -1.0, nb, first, end)
    for i in range(first, end):
        at_a, at_b = start_a + slope_a * i, start_b + slope_b * i
        low_a, low_b = math.floor(at_a), math.floor(at_b)
        fa, fb = at_a - low_a, at_b - low_b
        for ka, wa in ((low_a, 1 - fa), (low_a + 1, fa)):
            if 0 <= ka < na:
                if 0 <= low_b < nb:
                    out[i, ka, low_b] += wa * (1 - fb) * value
                if 0 <= low_b + 1 < nb:
                    out[i, ka, low_b + 1] += wa * fb * value


@compiled
def forward_upright(
    first: int,
    end: int,
    volume: NDArray[Any],
    out: NDArray[Any],
    sources: Array,
    cells: Array,
    row_steps: Array,
    parallel: bool,
    n_rows: int,
    spacing: Array,
) -> None:
    """Project some views, column by column."""
    nz = volume.shape[2]
    line = np.zeros(nz + 3, volume.dtype)
    numbers, parts = np.arange(n_rows).astype(volume.dtype), np.empty(n_rows, volume.dtype)
    total, below = np.empty(n_rows, volume.dtype), np.empty(n_rows, np.int32)
    for view in range(first, end):
        for column in range(cells.shape[1]):
            x, y, z, dx, dy, dz, main, _ = ray(sources, cells, row_steps, parallel, spacing, view, 0, column)
            m, dm, a, da = (x, dx, y, dy) if main == 0 else (y, dy, x, dx)
            start, slope = a - m * da / dm, da / dm
            begin, stop = before_source(m, dm, parallel, 0, volume.shape[main])
            begin, stop = crossed(start, slope, -1.0, volume.shape[1 - main], begin, stop)
            total[:] = 0
            for i in range(begin, stop):
                low_z, per_row, top, bottom, least, most = rows_of_plane(
                    (i - m) / dm, z, dz, row_steps[view, 2], parallel, n_rows, nz
                )
                combine(volume, main, i, start + slope * i, least, most, line)
                place_rows(low_z + top * per_row, per_row, nz, numbers[: bottom - top], below, parts)
                seen = total[top:bottom]
                for row in range(len(seen)):
                    k = below[row]
                    seen[row] += line[k] + (line[k + 1] - line[k]) * parts[row]
            flat = (dx * spacing[0]) ** 2 + (dy * spacing[1]) ** 2
            for row in range(n_rows):
                rising = dz if parallel else dz + row * row_steps[view, 2]
                out[view, row, column] = total[row] * (math.sqrt(flat + (rising * spacing[2]) ** 2) / abs(dm))


@compiled
def rows_of_plane(
    away: float, z: float, dz: float, step: float, parallel: bool, n_rows: int, nz: int
) -> tuple[float, float, int, int, int, int]:
    """Where the rays of a column cross a plane.

    Returns
    -------
    low_z, per_row
        Height of the first row's ray, and from one row to the next.
    top, bottom
        First row that crosses the volume, and the one after the last.
    least, most
        Voxels that these touch, and one more at either end against rounding.
    """
    low_z, per_row = z + away * dz, step if parallel else step * away
    top, bottom = crossed(low_z, per_row, -1.0, nz, 0, n_rows)
    if top >= bottom:
        return low_z, per_row, 0, 0, 0, 0
    one, other = low_z + top * per_row, low_z + (bottom - 1) * per_row
    # clipped before they become integers, which may be too large for them
    least = max(0, math.floor(min(max(min(one, other), -1.0), nz)) - 1)
    most = max(least, min(nz, math.floor(min(max(one, other), nz)) + 3))
    return low_z, per_row, top, bottom, least, most


@compiled
def combine(volume: NDArray[Any], main: int, i: int, at: float, least: int, most: int, line: NDArray[Any]) -> None:
    """Interpolate between two lines of voxels along z in a plane; voxel k goes to place k + 1 of ``line``."""
    real = line.dtype.type
    low, n = math.floor(at), volume.shape[1 - main]
    upper = real(at - low)
    lower = real(1) - upper
    result = line[least + 1 : most + 1]
    if low >= 0 and low + 1 < n:
        one, other = voxels(volume, main, i, low)[least:most], voxels(volume, main, i, low + 1)[least:most]
        for k in range(len(result)):
            result[k] = lower * one[k] + upper * other[k]
    elif 0 <= low < n:
        result[:] = lower * voxels(volume, main, i, low)[least:most]
    elif low == -1:
        result[:] = upper * voxels(volume, main, i, 0)[least:most]
    else:
        result[:] = 0


@compiled
def voxels(volume: NDArray[Any], main: int, i: int, a: int) -> NDArray[Any]:
    """Return the line along z at ``a`` in plane ``i`` of the main axis; a view."""
    return volume[i, a] if main == 0 else volume[a, i]


@compiled
def place_rows(
    start: float,
    per_row: float,
    nz: int,
    numbers: NDArray[Any],
    below: NDArray[np.int32],
    parts: NDArray[Any],
) -> None:
    """Between which places of the line the rays of rows pass, counted as `combine` counts, and how far beyond one."""
    real = numbers.dtype.type
    first, rise, last = real(start + 1), real(per_row), real(nz + 1)
    for row in range(len(numbers)):
        height = min(max(first + rise * numbers[row], real(0)), last)
        below[row] = np.int32(height)
        parts[row] = height - real(below[row])


@compiled
def weigh_upright(
    first: int,
    end: int,
    data: NDArray[Any],
    out: NDArray[Any],
    sources: Array,
    cells: Array,
    row_steps: Array,
    parallel: bool,
    n_rows: int,
    spacing: Array,
) -> None:
    """Multiply some views by the length of their rays from plane to plane, rows last."""
    for view in range(first, end):
        for column in range(cells.shape[1]):
            _, _, _, dx, dy, dz, main, _ = ray(sources, cells, row_steps, parallel, spacing, view, 0, column)
            flat = (dx * spacing[0]) ** 2 + (dy * spacing[1]) ** 2
            along = abs(dx) if main == 0 else abs(dy)
            for row in range(n_rows):
                rising = dz if parallel else dz + row * row_steps[view, 2]
                length = math.sqrt(flat + (rising * spacing[2]) ** 2) / along
                out[view, column, row] = data[view, row, column] * length


@compiled
def adjoint_upright(
    first: int,
    end: int,
    weighted: NDArray[Any],
    out: NDArray[Any],
    chosen: int,
    sources: Array,
    cells: Array,
    row_steps: Array,
    parallel: bool,
    n_rows: int,
    spacing: Array,
) -> None:
    """Add what the columns with the main axis ``chosen`` say to some of its planes; the mirror of `forward_upright`."""
    nz = out.shape[2]
    # two, so that a sum need not wait for the one before it
    one_line, other_line = np.zeros(nz + 3, out.dtype), np.zeros(nz + 3, out.dtype)
    numbers, parts = np.arange(n_rows).astype(out.dtype), np.empty(n_rows, out.dtype)
    below = np.empty(n_rows, np.int32)
    for view in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            x, y, z, dx, dy, dz, main, _ = ray(sources, cells, row_steps, parallel, spacing, view, 0, column)
            if main != chosen:
                continue
            m, dm, a, da = (x, dx, y, dy) if main == 0 else (y, dy, x, dx)
            start, slope = a - m * da / dm, da / dm
            begin, stop = before_source(m, dm, parallel, first, end)
            begin, stop = crossed(start, slope, -1.0, out.shape[1 - main], begin, stop)
            values = weighted[view, column]
            for i in range(begin, stop):
                low_z, per_row, top, bottom, least, most = rows_of_plane(
                    (i - m) / dm, z, dz, row_steps[view, 2], parallel, n_rows, nz
                )
                place_rows(low_z + top * per_row, per_row, nz, numbers[: bottom - top], below, parts)
                one_line[least : most + 2] = 0
                other_line[least : most + 2] = 0
                seen = values[top:bottom]
                for row in range(len(seen)):
                    parts[row] *= seen[row]
                for row in range(len(seen)):
                    k = below[row]
                    one_line[k] += seen[row] - parts[row]
                    other_line[k] += parts[row]
                spread_line(out, main, i, start + slope * i, least, most, one_line, other_line)


@compiled
def spread_line(
    out: NDArray[Any],
    main: int,
    i: int,
    at: float,
    least: int,
    most: int,
    one_line: NDArray[Any],
    other_line: NDArray[Any],
) -> None:
    """Add to two lines of voxels what `combine` reads from them."""
    real = one_line.dtype.type
    low, n = math.floor(at), out.shape[1 - main]
    upper = real(at - low)
    one, other = one_line[least + 1 : most + 1], other_line[least:most]
    for a, weight in ((low, real(1) - upper), (low + 1, upper)):
        if 0 <= a < n:
            target = voxels(out, main, i, a)[least:most]
            for k in range(len(target)):
                target[k] += weight * (one[k] + other[k])
