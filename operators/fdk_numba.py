"""Back-projection of filtered cones on the CPU, compiled by numba; imported when it is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from operators.ct_cone import ConeBeam
from operators.ct_geometry import Array, Grid
from operators.march_numba import combine, place_rows
from operators.numba_kernels import compiled, share


def back_project(filtered: Tensor, beam: ConeBeam, grid: Grid) -> Tensor:
    """Add up what filtered views ``(batch, view, row, column)`` say about voxels, ``(batch, x, y, z)``."""
    out = filtered.new_zeros((len(filtered), *grid.shape))
    _, n_rows, n_columns = beam.shape
    middles = np.array([(n_columns - 1) / 2 - beam.column_offset, (n_rows - 1) / 2 - beam.row_offset])
    sizes = np.array([beam.column_mm, beam.row_mm, beam.source_to_axis_mm, beam.source_to_detector_mm])
    sources = np.stack([beam.source(view) for view in range(beam.shape[0])])
    places = [grid.coordinates(axis) for axis in range(3)]
    for views, image in zip(filtered.transpose(-1, -2).contiguous().numpy(), out.numpy(), strict=True):
        share(
            grid.shape[0],
            1,
            add_views,
            views,
            image,
            *places,
            np.array(beam.angles),
            sources,
            middles,
            sizes,
            beam.curved,
        )
    return out


@compiled
def add_views(
    first: int,
    end: int,
    views: NDArray[Any],
    out: NDArray[Any],
    x: Array,
    y: Array,
    z: Array,
    angles: Array,
    sources: Array,
    middles: Array,
    sizes: Array,
    curved: bool,
) -> None:
    """Do some planes across x: each line of voxels along z is seen on one line between two columns."""
    column_mm, row_mm, to_axis, far = sizes
    _, n_columns, n_rows = views.shape
    real = out.dtype.type
    line = np.zeros(n_rows + 3, out.dtype)
    numbers, parts = np.arange(len(z)).astype(out.dtype), np.empty(len(z), out.dtype)
    below = np.empty(len(z), np.int32)
    for i in range(first, end):
        for view in range(len(angles)):
            cos, sin = math.cos(angles[view]), math.sin(angles[view])
            for j in range(len(y)):
                dx, dy = x[i] - sources[view, 0], y[j] - sources[view, 1]
                lateral, depth = dx * cos + dy * sin, dy * cos - dx * sin
                if curved:
                    distance = math.sqrt(lateral**2 + depth**2)
                    along_u, magnified, weight = math.atan2(lateral, depth) * far, far / distance, real(1 / distance**2)
                else:
                    magnified = far / depth
                    along_u, weight = lateral * magnified, real(to_axis / depth**2)
                column = along_u / column_mm + middles[0]
                if not -1 < column < n_columns:
                    continue
                start, step = (z[0] - sources[view, 2]) * magnified / row_mm + middles[1], 0.0
                if len(z) > 1:
                    step = (z[1] - z[0]) * magnified / row_mm
                last = start + step * (len(z) - 1)
                least = max(0, math.floor(min(max(start, -1.0), n_rows)) - 1)
                most = max(least, min(n_rows, math.floor(max(min(last, n_rows), -1.0)) + 3))
                combine(views, 0, view, column, least, most, line)
                place_rows(start, step, n_rows, numbers, below, parts)
                target = out[i, j]
                for k in range(len(target)):
                    low = below[k]
                    target[k] += weight * (line[low] + (line[low + 1] - line[low]) * parts[k])
