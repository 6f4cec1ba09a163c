"""Marching through a volume on CUDA, compiled by Triton: the only module here that imports it.

The same weights as on the CPU, ray by ray: where a ray runs is worked out in double precision, the steps along it are
taken in the precision of the data. The adjoint adds up by atomic operations, in an order that changes between calls.
With ``TRITON_INTERPRET=1`` in the environment the same code runs on the CPU, slowly, which is how it is tested.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from operators.ct_march import Rays

_RAYS = 128
"""Of one program: neighbours along the rows of the detector, whose voxels are neighbours along z."""

_TIE = tl.constexpr(1 + 1e-6)
"""As on the CPU: which axis is the main one must not hang on rounding."""


class TritonMarch:
    """Forward and adjoint of one set of rays through a volume of a shape."""

    def __init__(self, rays: Rays, shape: tuple[int, ...]) -> None:
        self.parallel = rays.parallel
        self.n_views, self.n_columns = rays.cells.shape[:2]
        self.n_rows = rays.n_rows
        self.shape = shape
        self._tables = [torch.from_numpy(part) for part in (rays.sources, rays.cells, rays.row_steps, rays.spacing_mm)]

    def forward(self, volume: Tensor) -> Tensor:
        """Project ``(batch, x, y, z)`` to ``(batch, view, row, column)``."""
        out = volume.new_empty((len(volume), self.n_views, self.n_rows, self.n_columns))
        self._launch(volume, out, adjoint=False)
        return out

    def adjoint(self, projections: Tensor) -> Tensor:
        """Back-project ``(batch, view, row, column)`` to ``(batch, x, y, z)``."""
        out = projections.new_zeros((len(projections), *self.shape))
        self._launch(out, projections, adjoint=True)
        return out

    def _launch(self, volume: Tensor, data: Tensor, *, adjoint: bool) -> None:
        self._tables = [table.to(volume.device) for table in self._tables]
        n_blocks = triton.cdiv(self.n_rows * self.n_columns, _RAYS)
        with torch.cuda.device_of(volume):  # type: ignore[no-untyped-call]
            for image, projections in zip(volume, data, strict=True):
                march[(self.n_views * n_blocks,)](
                    image,
                    projections,
                    *self._tables,
                    self.n_rows,
                    self.n_columns,
                    *self.shape,
                    n_blocks,
                    PARALLEL=self.parallel,
                    ADJOINT=adjoint,
                    RAYS=_RAYS,
                )


# sizes of 1 would become constants, which cannot be converted
@triton.jit(do_not_specialize=["n_rows", "n_columns", "nx", "ny", "nz", "n_blocks"])  # type: ignore[untyped-decorator]
def march(  # type: ignore[no-untyped-def]
    volume,
    data,
    sources,
    cells,
    row_steps,
    spacing,
    n_rows,
    n_columns,
    nx,
    ny,
    nz,
    n_blocks,
    PARALLEL: tl.constexpr,
    ADJOINT: tl.constexpr,
    RAYS: tl.constexpr,
):
    """Read along some rays of a view, or add to what they read."""
    view = (tl.program_id(0) // n_blocks).to(tl.int64)
    number = (tl.program_id(0) % n_blocks) * RAYS + tl.arange(0, RAYS)
    exists = number < n_rows * n_columns
    column, row = number // n_rows, number % n_rows

    # a point and the direction, as `ray` of march_numba
    cell = cells + (view * n_columns + column) * 3
    x = tl.load(cell, mask=exists, other=0.0) + row * tl.load(row_steps + view * 3)
    y = tl.load(cell + 1, mask=exists, other=0.0) + row * tl.load(row_steps + view * 3 + 1)
    z = tl.load(cell + 2, mask=exists, other=0.0) + row * tl.load(row_steps + view * 3 + 2)
    dx = tl.zeros_like(x) + tl.load(sources + view * 3)
    dy = tl.zeros_like(x) + tl.load(sources + view * 3 + 1)
    dz = tl.zeros_like(x) + tl.load(sources + view * 3 + 2)
    if not PARALLEL:
        source_x, source_y, source_z = dx, dy, dz
        dx, dy, dz = x - source_x, y - source_y, z - source_z
        x, y, z = source_x, source_y, source_z

    # the main axis m, and a and b across it
    along_y = tl.abs(dy) > tl.abs(dx) * _TIE
    along_z = tl.abs(dz) > tl.where(along_y, tl.abs(dy), tl.abs(dx)) * _TIE
    along_y = along_y & (along_z == 0)
    m, dm = tl.where(along_z, z, tl.where(along_y, y, x)), tl.where(along_z, dz, tl.where(along_y, dy, dx))
    a, da = tl.where(along_y | along_z, x, y), tl.where(along_y | along_z, dx, dy)
    b, db = tl.where(along_z, y, z), tl.where(along_z, dy, dz)
    wide_x, wide_y = ny.to(tl.int64) * nz, nz.to(tl.int64)
    stride_m = tl.where(along_z, 1, tl.where(along_y, wide_y, wide_x))
    stride_a = tl.where(along_y | along_z, wide_x, wide_y)
    stride_b = tl.where(along_z, wide_y, 1)
    n_m = tl.where(along_z, nz, tl.where(along_y, ny, nx))
    n_a = tl.where(along_y | along_z, nx, ny)
    n_b = tl.where(along_z, ny, nz)
    size_x, size_y, size_z = tl.load(spacing), tl.load(spacing + 1), tl.load(spacing + 2)
    length = tl.sqrt(dx * size_x * (dx * size_x) + dy * size_y * (dy * size_y) + dz * size_z * (dz * size_z))
    dm = tl.where(exists, dm, 1.0)
    length = length / tl.abs(dm)
    slope_a, slope_b = da / dm, db / dm
    start_a, start_b = a - m * slope_a, b - m * slope_b

    # the planes between entry and exit, and one more at either end
    first, last = _crossed(start_a, slope_a, n_a, tl.zeros_like(m), n_m - 1.0)
    first, last = _crossed(start_b, slope_b, n_b, first, last)
    if not PARALLEL:
        first = tl.where(dm > 0, tl.maximum(first, tl.floor(m) + 1), first)
        last = tl.where(dm < 0, tl.minimum(last, tl.ceil(m) - 1), last)
    last = tl.where(exists, last, -1.0)
    first = tl.where(last < 0, n_m, first)

    kind = volume.dtype.element_ty
    start_a, start_b, slope_a, slope_b = start_a.to(kind), start_b.to(kind), slope_a.to(kind), slope_b.to(kind)
    place = data + (view * n_rows + row) * n_columns + column
    total = tl.zeros_like(start_a)
    value = tl.zeros_like(start_a)
    if ADJOINT:
        value = tl.load(place, mask=exists, other=0.0) * length.to(kind)
    i = tl.min(first, axis=0).to(tl.int32)
    end = tl.max(last, axis=0).to(tl.int32)
    while i <= end:
        runs = (first <= i) & (last >= i)
        at_a, at_b = start_a + slope_a * i, start_b + slope_b * i
        low_a, low_b = tl.floor(at_a), tl.floor(at_b)
        part_a, part_b = at_a - low_a, at_b - low_b
        ka, kb = low_a.to(tl.int32), low_b.to(tl.int32)
        corner = volume + i * stride_m + ka * stride_a + kb * stride_b
        below_a, above_a = runs & (ka >= 0) & (ka < n_a), runs & (ka >= -1) & (ka < n_a - 1)
        below_b, above_b = (kb >= 0) & (kb < n_b), (kb >= -1) & (kb < n_b - 1)
        if ADJOINT:
            lower, upper = value * (1 - part_a), value * part_a
            tl.atomic_add(corner, lower * (1 - part_b), mask=below_a & below_b)
            tl.atomic_add(corner + stride_b, lower * part_b, mask=below_a & above_b)
            tl.atomic_add(corner + stride_a, upper * (1 - part_b), mask=above_a & below_b)
            tl.atomic_add(corner + stride_a + stride_b, upper * part_b, mask=above_a & above_b)
        else:
            lower = (1 - part_b) * tl.load(corner, mask=below_a & below_b, other=0.0)
            lower += part_b * tl.load(corner + stride_b, mask=below_a & above_b, other=0.0)
            upper = (1 - part_b) * tl.load(corner + stride_a, mask=above_a & below_b, other=0.0)
            upper += part_b * tl.load(corner + stride_a + stride_b, mask=above_a & above_b, other=0.0)
            total += (1 - part_a) * lower + part_a * upper
        i += 1
    if not ADJOINT:
        tl.store(place, total * length.to(kind), mask=exists)


@triton.jit
def _crossed(start, slope, n, first, last):  # type: ignore[no-untyped-def]
    """Narrow a range of planes to those where ``-1 < start + slope i < n``."""
    level = slope == 0
    steep = tl.where(level, 1.0, slope)
    one, other = (-1.0 - start) / steep, (n - start) / steep
    enter, leave = tl.minimum(one, other), tl.maximum(one, other)
    within = (start > -1.0) & (start < n)
    enter = tl.where(level, tl.where(within, first, last + 1), enter)
    leave = tl.where(level, tl.where(within, last, first - 1), leave)
    return tl.maximum(first, tl.floor(enter)), tl.minimum(last, tl.ceil(leave))
