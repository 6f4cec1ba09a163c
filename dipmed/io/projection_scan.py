"""From line integrals and a description of their rays to a scan: gaps are filled and listed, nonsense is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.geometry import Description
from dipmed.io.samples import left_empty
from dipmed.scan import DipmedError, Float32, FormatError, GeometryError, ProjectionScan, ShapeError
from operators.ct_cone import ConeBeam, VolumeBeam
from operators.ct_coverage import missing_directions, sees
from operators.ct_geometry import Beam


def projection_scan(
    integrals: NDArray[Any],
    description: Description,
    *,
    source: str,
    what: str,
    counts: NDArray[Any] | None = None,
    assumptions: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> ProjectionScan:
    """Return the scan, with what was assumed.

    Parameters
    ----------
    integrals
        Line integrals, ``(slice, view, column)`` or ``(1, view, row, column)``.
    description
        How the rays ran, and where the image lies.
    source
        Name of the format.
    what
        Name of the array for messages, e.g. ``"scan.h5: projections"``.
    counts
        Weights of the rays, shaped as `integrals`.
    assumptions, notes
        What the reader knows already.

    Raises
    ------
    FormatError
        When the values of no slice are finite real numbers, or all are zero, or counts are negative.
    ShapeError
        When the array does not fit the beam.
    GeometryError
        When the beam sees nothing, or not what is to be reconstructed.
    """
    values = real_numbers(integrals, what)
    _check_shape(values, description.beam, what)
    weights = None if counts is None else real_numbers(counts, f"{what}: counts")
    if weights is not None and not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise FormatError(f"{what}: counts should be finite and not negative")
    good = np.array([[np.isfinite(of_slice).all() for of_slice in values]])
    damaged = left_empty(good, "line integrals")
    if damaged:
        values = np.where(good.reshape(-1, *[1] * (values.ndim - 1)), values, np.float32(0))
    if not np.isfinite(values).all():
        n_bad = int((~np.isfinite(values)).sum())
        raise FormatError(f"{what}: {n_bad} of {values.size} line integrals are NaN or infinite")
    if not values.any():
        raise FormatError(f"{what}: all line integrals are zero, so there is nothing to reconstruct")
    described = _with_grid(description, what)
    remarks = _about_views(described.beam, what)
    return ProjectionScan(
        projections=values,
        beam=described.beam,
        grid=described.grid,
        affine=described.affine_for(len(values)),
        source=source,
        counts=weights,
        centre_known=described.centre_known,
        water_per_mm=described.water_per_mm,
        assumptions=(*assumptions, *damaged, *_about_place(described, len(values)), *remarks),
        notes=notes,
    )


def real_numbers(values: NDArray[Any], what: str) -> Float32:
    """Return an array in single precision.

    Raises
    ------
    FormatError
        When it holds anything but real numbers.
    """
    if values.dtype.kind not in "iuf":
        raise FormatError(f"{what} should be real numbers, but are {values.dtype}")
    return values.astype(np.float32, copy=False)


def _check_shape(values: Float32, beam: Beam | VolumeBeam, what: str) -> None:
    axes = ("view", "column") if len(beam.shape) == 2 else ("view", "row", "column")
    if values.ndim != 1 + len(axes):
        raise ShapeError(
            f"{what} should be ({'slice' if len(axes) == 2 else 1}, {', '.join(axes)}), got {values.shape}"
        )
    for axis, found, expected in zip(axes, values.shape[1:], beam.shape, strict=True):
        if found != expected:
            said = "angles" if axis == "view" else f"{axis}s of the beam"
            raise ShapeError(f"{what} has {found} {axis}s, but there are {expected} {said}")


def _with_grid(description: Description, what: str) -> Description:
    """Fill in the grid, and refuse one that no ray passes."""
    try:
        full = replace(description, image=description.grid)
    except DipmedError as error:
        raise GeometryError(f"{what}: {error}") from error
    if not sees(full.beam, full.grid):
        raise GeometryError(f"{what}: no ray passes the image at {full.grid.centre_mm} mm; check offsets and distances")
    return full


def _about_place(description: Description, n_slices: int) -> tuple[str, ...]:
    if description.affine is not None:
        return ()
    sentences = ["Where the scanner stood about the patient is unknown: the rotation axis was put at the origin."]
    if description.slice_mm is None and n_slices > 1:
        sentences.append("The distance between slices is unknown: 1 mm was assumed.")
    return tuple(sentences)


def _about_views(beam: Beam | VolumeBeam, what: str) -> tuple[str, ...]:
    """Say what the angles leave to be assumed; on a helix and in any pose, none of them does by itself."""
    if isinstance(beam, ConeBeam) and beam.is_circular:
        beam = beam.mid_plane
    if not isinstance(beam, Beam):
        return ()
    turned = np.sort(np.round(np.array(beam.angles) % (2 * math.pi), 9))
    n_repeated = len(turned) - len(np.unique(turned))
    if len(turned) > 1 and n_repeated == len(turned) - 1:
        raise GeometryError(f"{what}: all {len(turned)} views have the same angle")
    sentences = []
    if n_repeated:
        sentences.append(
            f"Angles come twice for {n_repeated} of {len(turned)} views; each was taken as a measurement of its own."
        )
    missing = math.degrees(missing_directions(beam))
    if missing > 0:
        sentences.append(
            f"Limited angle: no ray ran along {missing:.0f} of 180 degrees of directions, so edges along these are "
            "left to the method."
        )
    return tuple(sentences)
