"""Filtered back-projection of volumes from circular cone beams."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from operators.ct_cone import ConeBeam, VolumeBeam
from operators.ct_geometry import Grid
from operators.errors import DipmedError, ShapeError
from operators.fbp import Filter, filter_rows, ramp_spectrum, ray_weights

_SLAB = 2**21
"""Voxels that are worked on at a time."""


def feldkamp(projections: Tensor, beam: VolumeBeam, grid: Grid, filter: Filter = "ramp") -> Tensor:
    """Reconstruct volumes from line integrals, ``(batch..., 1, view, row, column)`` to ``(batch..., 1, x, y, z)``.

    Each row is weighted by the cosine of its rise and filtered as that of a fan, then back-projected along its rays
    (L. A. Feldkamp, L. C. Davis, J. W. Kress, 1984, doi:10.1364/JOSAA.1.000612). Exact in the plane of the source,
    and nearly so close to it. Scans shorter than a full turn are weighted as those of a fan.

    Parameters
    ----------
    projections
        Line integrals, without unit.
    beam
        A circular cone; angles may be in any order.
    grid
        Voxels to reconstruct, in 1/mm.
    filter
        Window on the ramp, as for `filtered_back_projection`.

    Raises
    ------
    ShapeError
        When the projections do not fit the beam, or the grid is a slice.
    DipmedError
        When the source does not run on a circle, or the filter is unknown.

    Warns
    -----
    UserWarning
        When the views do not cover what a fan needs (limited angle).
    """
    if filter not in get_args(Filter):
        raise DipmedError(f"unknown filter {filter!r}; choose one of {', '.join(get_args(Filter))}")
    if not isinstance(beam, ConeBeam) or not beam.is_circular:
        raise DipmedError(
            "filtered back-projection of a volume needs a source on a circle, and this one leaves it (a helix, a "
            "flying focal spot, or poses of its own); choose sirt, cg-tv or dip"
        )
    expected = (1, *beam.shape)
    if tuple(projections.shape[-4:]) != expected or projections.is_complex():
        said = ", ".join(map(str, expected))
        raise ShapeError(f"the projections must be real (batch..., {said}), got {tuple(projections.shape)}")
    if len(grid.shape) != 3:
        raise ShapeError(f"a volume has three axes, the grid is {grid.shape}")
    fan = beam.mid_plane
    weights = torch.from_numpy(ray_weights(fan)).to(projections)[:, None, :] * _cosine_of_rise(beam).to(projections)
    spectrum = torch.from_numpy(ramp_spectrum(fan, filter)).to(projections)
    flat = projections.reshape(-1, *beam.shape)
    filtered = filter_rows(flat * weights, spectrum)
    image = _on_cpu(filtered, beam, grid) if filtered.device.type == "cpu" else _back_project(filtered, beam, grid)
    return image.reshape(*projections.shape[:-4], 1, *grid.shape)


def _on_cpu(filtered: Tensor, beam: ConeBeam, grid: Grid) -> Tensor:
    """Do the same as `_back_project`, many times faster."""
    try:
        from operators.fdk_numba import back_project
    except ImportError:
        return _back_project(filtered, beam, grid)
    return back_project(filtered, beam, grid)


def _back_project(filtered: Tensor, beam: ConeBeam, grid: Grid) -> Tensor:
    """Add up what filtered views ``(batch, view, row, column)`` say about voxels, ``(batch, x, y, z)``."""
    image = filtered.new_zeros((len(filtered), *grid.shape))
    x, y, z = (torch.from_numpy(grid.coordinates(axis)).to(filtered) for axis in range(3))
    step = max(1, _SLAB // math.prod(grid.shape[1:]))
    for view in range(beam.shape[0]):
        for first in range(0, len(x), step):
            slab = slice(first, first + step)
            image[:, slab] += _along_rays(filtered[:, view], beam, view, x[slab, None], y[None, :], z)
    return image


def _cosine_of_rise(beam: ConeBeam) -> Tensor:
    """Cosine of the angle between each ray and the plane of the source, ``(row, column)``."""
    rows, columns = torch.from_numpy(beam.rows_mm)[:, None], torch.from_numpy(beam.columns_mm)[None, :]
    if beam.curved:
        columns = torch.zeros_like(columns)
    flat = torch.hypot(columns, torch.full_like(columns, beam.source_to_detector_mm))
    return flat / torch.hypot(flat, rows)


def _along_rays(filtered: Tensor, beam: ConeBeam, view: int, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Return what a view ``(batch, row, column)`` says about voxels ``(batch, x, y, z)``, bilinear on the detector."""
    cos, sin = math.cos(beam.angles[view]), math.sin(beam.angles[view])
    source = beam.source(view)
    dx, dy = x - source[0], y - source[1]
    lateral, depth = dx * cos + dy * sin, dy * cos - dx * sin
    far = beam.source_to_detector_mm
    if beam.curved:
        distance = torch.hypot(lateral, depth)
        along_u, magnified, weight = torch.atan2(lateral, depth) * far, far / distance, 1 / distance**2
    else:
        along_u, magnified, weight = lateral / depth * far, far / depth, beam.source_to_axis_mm / depth**2
    _, n_rows, n_columns = beam.shape
    column = along_u / beam.column_mm + (n_columns - 1) / 2 - beam.column_offset
    row = (z - source[2]) * magnified[..., None] / beam.row_mm + (n_rows - 1) / 2 - beam.row_offset
    places = torch.stack([((2 * column + 1) / n_columns - 1)[..., None].expand_as(row), (2 * row + 1) / n_rows - 1], -1)
    found = grid_sample(filtered[None], places.flatten(0, 1)[None], align_corners=False)[0]
    return found.reshape(len(filtered), *row.shape) * weight[..., None]
