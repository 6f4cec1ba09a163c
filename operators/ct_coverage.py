"""What a beam sees: the lines through a slice that no ray ran along, and whether there is anything at all."""

from __future__ import annotations

import math

import numpy as np

from operators.ct_cone import VolumeBeam
from operators.ct_geometry import Array, Beam, Grid, ParallelBeam, field_of_view_mm

_DISTANCES = 5
_SMALLEST_GAP = math.radians(1)


def missing_directions(beam: Beam) -> float:
    """Return over which angle, out of half a turn, lines through the field of view were not measured.

    A line at the distance s from the axis is measured by the ray to one side of a view, and by the ray to the other
    side of the view that looks along it the other way. So parallel rays need half a turn, and a fan half a turn and its
    opening (F. Natterer, 2001, chapter 2, doi:10.1137/1.9780898719284). The distance with the most missing counts;
    steps between views are no gaps, wide as they may be.
    """
    reach = field_of_view_mm(beam)
    return max(_missing_at(beam, distance) for distance in np.linspace(0, reach, _DISTANCES))


def _missing_at(beam: Beam, distance: float) -> float:
    angles = np.array(beam.angles)
    directions = np.concatenate([angles - _fan_angle(beam, distance), angles - _fan_angle(beam, -distance) + math.pi])
    ordered = np.sort(directions % (2 * math.pi))
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * math.pi))
    step = float(np.median(gaps))
    wide = gaps[gaps > 3 * max(step, 2 * math.pi / len(gaps)) + _SMALLEST_GAP]
    return float((wide - step).sum()) / 2


def _fan_angle(beam: Beam, distance: float) -> float:
    """Angle between the central ray and the one that passes the axis at a distance along u."""
    if isinstance(beam, ParallelBeam):
        return 0.0
    longest = math.hypot(beam.source_to_axis_mm, beam.axis_shift_mm)
    tilt = math.atan2(beam.axis_shift_mm, beam.source_to_axis_mm)
    return math.asin(max(-1.0, min(1.0, distance / longest))) - tilt


def sees(beam: Beam | VolumeBeam, grid: Grid) -> bool:
    """Say whether any ray of any view comes near the grid: through the circle around a slice, the box of a volume."""
    views = range(beam.shape[0])
    if not isinstance(beam, Beam):
        return any(_meets_box(beam, view, grid) for view in views)
    centre = np.array(grid.centre_mm[:2])
    radius = math.hypot(*(n * spacing / 2 for n, spacing in zip(grid.shape[:2], grid.spacing_mm[:2], strict=True)))
    return any(_nearest(beam, view, centre) <= radius for view in views)


def _meets_box(beam: VolumeBeam, view: int, grid: Grid) -> bool:
    """Whether any ray of a view passes the outer faces of the voxels, by the slabs between opposite faces."""
    half = np.array(grid.shape) * np.array(grid.spacing_mm) / 2
    points, directions = beam.rays(view, *(np.arange(float(n)) for n in beam.shape[1:]))
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = ((np.array(grid.centre_mm) + sign * half - points) / directions for sign in (-1, 1))
    enter, leave = np.fmin(near, far).max(axis=-1), np.fmax(near, far).min(axis=-1)
    return bool(((enter <= leave) & (beam.is_parallel | (leave > 0))).any())


def _nearest(beam: Beam, view: int, point: Array) -> float:
    """Distance from a point to the nearest ray of a view."""
    starts, directions = beam.rays(view, beam.columns_mm)
    away = point - starts
    return float(np.abs(away[:, 0] * directions[:, 1] - away[:, 1] * directions[:, 0]).min())
