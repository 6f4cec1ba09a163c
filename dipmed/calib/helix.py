"""From a helix to slices: single-slice rebinning of cone beams to fans."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import DipmedError, ProjectionScan
from operators.ct_cone import ConeBeam
from operators.ct_geometry import Grid

Array = NDArray[np.float64]


class _Helix(NamedTuple):
    """Unwrapped angles and heights of the views, both ascending, and the views in that order."""

    angles: Array
    heights: Array
    order: NDArray[np.int64]


def rebin_helix(scan: ProjectionScan, slice_mm: float | None = None) -> ProjectionScan:
    """Turn a helical scan into slices, each seen by a fan over a full turn about its height.

    A ray of the fan gets the value of the ray in the plane through it and the axis' direction that crosses the slice
    where it is nearest to the axis, times the cosine of its slope (F. Noo, M. Defrise, R. Clackdoyle, 1999,
    doi:10.1088/0031-9155/44/2/019). This is exact for what does not change along the axis; the steeper the rays, the
    more a slice sees of its neighbours.

    Parameters
    ----------
    scan
        Projections of a `ConeBeam` on a helix, over more than a turn.
    slice_mm
        Distance between slices, by default that of the scan's voxels along z.

    Raises
    ------
    DipmedError
        When the scan is no helix, or shorter than a turn and a slice.
    """
    beam = scan.beam
    if not isinstance(beam, ConeBeam) or len(set(beam.z_mm)) < 2:
        raise DipmedError("slices are rebinned from a cone beam on a helix, and this scan is none")
    helix = _unwrapped(beam)
    step = scan.grid.spacing_mm[2] if slice_mm is None else slice_mm
    heights = _slices(helix, step)
    n_views = round(2 * math.pi / float(np.median(np.diff(helix.angles))))
    angles = helix.angles[0] + 2 * math.pi * np.arange(n_views) / n_views
    fan = replace(beam.mid_plane, angles=tuple(angles.tolist()))
    projections = np.empty((len(heights), n_views, beam.n_columns), np.float32)
    counts = None if scan.counts is None else np.empty_like(projections)
    beyond = 0.0
    for index, height in enumerate(heights):
        values, weights, outside = _slice(scan, beam, helix, angles, float(height))
        projections[index] = values
        if counts is not None and weights is not None:
            counts[index] = weights
        beyond += outside / len(heights)
    affine = scan.affine.copy()
    spacing = scan.grid.spacing_mm[2]
    affine[:3, 3] += scan.affine[:3, 2] * (heights[0] - scan.grid.coordinates(2)[0]) / spacing
    affine[:3, 2] *= step / spacing
    return scan.replace(
        projections=projections,
        counts=counts,
        beam=fan,
        grid=Grid(scan.grid.shape[:2], scan.grid.spacing_mm[:2], scan.grid.centre_mm[:2]),
        affine=affine,
        assumptions=(*scan.assumptions, *_assumed(beam, beyond)),
        notes=(*scan.notes, f"{len(beam.z_mm)} views on a helix were rebinned to {len(heights)} slices."),
    )


def _unwrapped(beam: ConeBeam) -> _Helix:
    angles, heights = np.unwrap(np.array(beam.angles)), np.array(beam.z_mm)
    order = np.arange(len(angles))
    if angles[-1] < angles[0]:
        angles, heights, order = angles[::-1], heights[::-1], order[::-1]
    steps = np.diff(heights)
    if (np.diff(angles) <= 0).any() or not ((steps > 0).all() or (steps < 0).all()):
        raise DipmedError("slices are rebinned from views that turn and move one way; these do not")
    return _Helix(angles, heights, order)


def _slices(helix: _Helix, step: float) -> Array:
    """Heights with half a turn of views on either side, in the middle of what there is."""
    ends = np.interp([helix.angles[0] + math.pi, helix.angles[-1] - math.pi], helix.angles, helix.heights)
    low, high = float(ends.min()), float(ends.max())
    if np.ptp(helix.angles) < 2 * math.pi or not step > 0:
        turns = float(np.ptp(helix.angles)) / (2 * math.pi)
        raise DipmedError(
            f"slices are rebinned from more than a turn, {step:g} mm apart; these views cover {turns:.2f} turns"
        )
    n = int((high - low) // step) + 1
    found: Array = (low + high) / 2 + (np.arange(n, dtype=np.float64) - (n - 1) / 2) * step
    return found


def _slice(
    scan: ProjectionScan, beam: ConeBeam, helix: _Helix, angles: Array, height: float
) -> tuple[Array, Array | None, float]:
    """Fan of one slice, its weights, and which share of its rays lies beyond the outermost rows."""
    sign = 1 if helix.heights[-1] > helix.heights[0] else -1
    middle = np.interp(sign * height, sign * helix.heights, helix.angles)
    # of the views that look the same way, the one within half a turn
    wanted = angles + 2 * math.pi * np.round((middle - angles) / (2 * math.pi))
    place = np.interp(wanted, helix.angles, np.arange(len(helix.angles)))
    before = np.clip(np.floor(place).astype(int), 0, len(helix.angles) - 2)
    share = (place - before)[:, None]
    values: Array = np.zeros((len(angles), beam.n_columns))
    weights = None if scan.counts is None else np.zeros_like(values)
    outside = 0.0
    for part, views in ((1 - share, before), (share, before + 1)):
        rows, cosine = _rows(beam, height - helix.heights[views])
        outside += float((part * (np.abs(rows - (beam.n_rows - 1) / 2) > beam.n_rows / 2)).mean())
        number = helix.order[views]
        values += part * cosine * _at_rows(scan.projections[0], number, rows)
        if weights is not None and scan.counts is not None:
            weights += part * _at_rows(scan.counts[0], number, rows)
    return values, weights, outside


def _rows(beam: ConeBeam, above: Array) -> tuple[Array, Array]:
    """Row of each ray, counted from 0, ``(view, column)``, and the cosine of its slope within the outermost rows."""
    gamma = beam.mid_plane.fan_angles
    to_nearest = beam.source_to_axis_mm * np.cos(gamma) - beam.axis_shift_mm * np.sin(gamma)
    to_detector = beam.source_to_detector_mm / (1.0 if beam.curved else np.cos(gamma))
    slope = above[:, None] / to_nearest
    rows = slope * to_detector / beam.row_mm - beam.row_offset + (beam.n_rows - 1) / 2
    seen = np.clip(rows, 0, beam.n_rows - 1)
    slope = (seen - (beam.n_rows - 1) / 2 + beam.row_offset) * beam.row_mm / to_detector
    return rows, 1 / np.sqrt(1 + slope**2)


def _at_rows(stack: NDArray[np.float32], views: NDArray[np.int64], rows: Array) -> Array:
    """Values between rows, ``(view, column)``."""
    n_rows, n_columns = stack.shape[1:]
    seen = np.clip(rows, 0, n_rows - 1)
    low = np.clip(np.floor(seen).astype(int), 0, max(n_rows - 2, 0))
    high = np.minimum(low + 1, n_rows - 1)
    columns = np.arange(n_columns)[None]
    found: Array = stack[views[:, None], low, columns] * (1 - (seen - low)) + stack[views[:, None], high, columns] * (
        seen - low
    )
    return found


def _assumed(beam: ConeBeam, beyond: float) -> tuple[str, ...]:
    sentences = ["Rays that run out of a slice were taken as lying in it (single-slice rebinning)."]
    if beam.source_shift_mm:
        farthest = max(math.hypot(*shift) for shift in beam.source_shift_mm)
        sentences.append(f"The focal spot was taken to stand still; it moves by up to {farthest:.2f} mm.")
    if beyond > 0.01:
        sentences.append(
            f"{beyond:.0%} of the rays of the slices were not measured, as the helix is steep: those of the outermost "
            "rows were taken."
        )
    return tuple(sentences)
