"""DICOM-CT-PD: projections of clinical scanners, one DICOM file for each view.

B. Chen et al., 2015, doi:10.1118/1.4935406; tags also in T. R. Moen et al., 2021, doi:10.1002/mp.14594, table IV. The
detector's focal centre, from which a curved detector is an arc, and the focal spot have cylindrical coordinates
(ρ, φ, z). Seen from the patient table, z runs away into the gantry, φ = 0 is at twelve o'clock and φ grows
counter-clockwise. With the detector at six o'clock, row 1 is the farthest and column 1 the leftmost; central elements
count from 1.

Here the axes are right, down and into the gantry, which are those of LPS for a patient who lies on the back, head
first. In these, θ of `dipmed.operators.ConeBeam` is -φ, columns run as stored and rows the other way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dipmed.io.dicom_elements import Tag, Values, has_element, number, numbers, read_frames
from dipmed.io.geometry import Description
from dipmed.io.projection_scan import projection_scan
from dipmed.patient import affine_in_gantry
from dipmed.scan import DipmedError, Float32, FormatError, GeometryError, ProjectionScan, ShapeError
from operators.ct_cone import ConeBeam
from operators.ct_geometry import FanBeam

N_ROWS = Tag(0x70291010, "NumberofDetectorRows", "whole")
N_COLUMNS = Tag(0x70291011, "NumberofDetectorColumns", "whole")
COLUMN_MM = Tag(0x70291002, "DetectorElementTransverseSpacing", "float")
ROW_MM = Tag(0x70291006, "DetectorElementAxialSpacing", "float")
SHAPE = Tag(0x7029100B, "DetectorShape", "text")
ANGLE = Tag(0x70311001, "DetectorFocalCenterAngularPosition", "float")
AXIAL = Tag(0x70311002, "DetectorFocalCenterAxialPosition", "float")
RADIUS = Tag(0x70311003, "DetectorFocalCenterRadialDistance", "float")
DISTANCE = Tag(0x70311031, "ConstantRadialDistance", "float")
CENTRE = Tag(0x70311033, "DetectorCentralElement", "float")
ANGLE_SHIFT = Tag(0x7033100B, "SourceAngularPositionShift", "float")
AXIAL_SHIFT = Tag(0x7033100C, "SourceAxialPositionShift", "float")
RADIUS_SHIFT = Tag(0x7033100D, "SourceRadialDistanceShift", "float")
SPECTRUM = Tag(0x70331063, "SpectrumIndex", "whole")
PHOTONS = Tag(0x70331065, "PhotonStatistics", "float")
LOGARITHM = Tag(0x70391009, "LogFlag", "text")
WATER = Tag(0x70411001, "WaterAttenuationCoefficient", "decimal")
NUMBER = Tag(0x00200013, "InstanceNumber", "decimal")
SERIES = Tag(0x0020000E, "SeriesInstanceUID", "text")
POSITION = Tag(0x00185100, "PatientPosition", "text")
SLOPE = Tag(0x00281053, "RescaleSlope", "decimal")
INTERCEPT = Tag(0x00281052, "RescaleIntercept", "decimal")

_TAGS = (
    *(N_ROWS, N_COLUMNS, COLUMN_MM, ROW_MM, SHAPE, ANGLE, AXIAL, RADIUS, DISTANCE, CENTRE),
    *(ANGLE_SHIFT, AXIAL_SHIFT, RADIUS_SHIFT, SPECTRUM, PHOTONS, LOGARITHM, WATER),
    *(NUMBER, SERIES, POSITION, SLOPE, INTERCEPT),
)
_SHIFTS = (ANGLE_SHIFT, AXIAL_SHIFT, RADIUS_SHIFT)
_CURVED = {"CYLINDRICAL": True, "FLAT": False}
_WATER_RANGE = (0.005, 0.1)  # in 1/mm, from above any tube's voltage to below it
_SAME = 1e-4  # of a distance; single precision rounds to less


class View(NamedTuple):
    """A view: its file, what is said of it, and its pixels as they are stored."""

    path: Path
    values: Values
    pixels: NDArray[np.generic]


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as a DICOM file does."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_projection(path: Path) -> bool:
    """Say whether a DICOM file holds a projection and not an image.

    Raises
    ------
    FormatError
        When the file is damaged.
    """
    return has_element(path, ANGLE) or has_element(path, N_COLUMNS)


def dicom_files(folder: Path) -> list[Path]:
    """Return the DICOM files of a folder by their names."""
    return sorted(entry for entry in folder.iterdir() if entry.is_file() and is_dicom(entry))


def read(path: Path) -> ProjectionScan:
    """Read a folder with one file for each view, or one file with many frames.

    Raises
    ------
    FormatError, ShapeError, GeometryError
        When a file is damaged, an element is missing, or views do not fit each other.
    """
    files = dicom_files(path) if path.is_dir() else [path]
    views = []
    for file in files:
        frames = read_frames(file, _TAGS)
        views += [View(file, values, picture) for values, picture in zip(frames.values, frames.pixels, strict=True)]
    if len(views) == 1:
        raise ShapeError(f"{path} holds one view; name the folder with all views of the scan")
    _check_one_series(views)
    views, assumptions = _in_order(views)
    beam = _beam(views)
    integrals = _integrals(views, beam)
    about_first, first = [], views[0]
    if not any(tag in first.values for tag in _SHIFTS):
        about_first.append("The focal spot was taken to stand where the detector is centred: its shifts are not said.")
    if LOGARITHM not in first.values:
        about_first.append("The values were taken as line integrals, the logarithm of counts.")
    position = str(first.values.get(POSITION, ""))
    if not position:
        about_first.append("The patient was taken to lie on the back, head first (HFS).")
    about_first.append("The rotation axis was put at x = y = 0 of the patient's coordinates.")
    description = _placed(beam, views, position or "HFS")
    return projection_scan(
        integrals[None],
        description,
        source="dicom-ct-pd",
        what=str(path),
        counts=_photons(views, integrals),
        assumptions=(*assumptions, *about_first),
    )


def _check_one_series(views: Sequence[View]) -> None:
    for tag in (SERIES, SPECTRUM):
        if len({view.values.get(tag) for view in views}) > 1:
            raise FormatError(
                f"{views[0].path.parent} holds several scans, by {tag}; put each into a folder of its own"
            )


def _in_order(views: list[View]) -> tuple[list[View], tuple[str, ...]]:
    """Sort by the number of the view; frames without one, and files without, keep their order."""
    if not all(NUMBER in view.values for view in views):
        return views, (f"The views were taken in the order of their files, which lack {NUMBER}.",)
    found = [number(view.values, NUMBER, view.path) for view in views]
    if len(set(found)) == 1:  # the number of a file of many frames
        return views, ()
    if len(set(found)) < len(found):
        raise FormatError(f"{views[0].path.parent} holds several views of the same {NUMBER}")
    return [views[index] for index in np.argsort(found)], ()


def _beam(views: Sequence[View]) -> FanBeam | ConeBeam:
    rows, columns = (int(_constant(views, tag)) for tag in (N_ROWS, N_COLUMNS))
    radius, distance, row_mm, column_mm = (_constant(views, tag) for tag in (RADIUS, DISTANCE, ROW_MM, COLUMN_MM))
    central_column, central_row = numbers(views[0].values, CENTRE, views[0].path, 2)
    if any(view.values.get(CENTRE) != views[0].values[CENTRE] for view in views):
        raise GeometryError(f"{CENTRE} changes from view to view, which no detector of this format does")
    shape = str(views[0].values.get(SHAPE, "")).upper()
    if shape not in _CURVED:
        said = f"is {shape!r}" if shape else "is missing"
        raise FormatError(f"{views[0].path}: {SHAPE} {said}; expected {' or '.join(_CURVED)}")
    angles = [-number(view.values, ANGLE, view.path) for view in views]
    heights = [number(view.values, AXIAL, view.path) for view in views]
    shifts = [_source_shift(view, radius) for view in views]
    try:
        cone = ConeBeam(
            angles=tuple(angles),
            n_rows=rows,
            n_columns=columns,
            row_mm=row_mm,
            column_mm=column_mm,
            source_to_axis_mm=radius,
            source_to_detector_mm=distance,
            # rows are turned round, and elements count from 1
            row_offset=central_row - (rows + 1) / 2,
            column_offset=(columns + 1) / 2 - central_column,
            curved=_CURVED[shape],
            z_mm=tuple(heights),
            source_shift_mm=tuple(shifts) if np.any(shifts) else (),
        )
    except DipmedError as error:
        raise GeometryError(f"{views[0].path}: {error}") from error
    return cone.mid_plane if rows == 1 and cone.is_circular else cone


def _constant(views: Sequence[View], tag: Tag) -> float:
    """The number that all views have."""
    found = [number(view.values, tag, view.path) for view in views]
    if max(found) - min(found) > _SAME * abs(found[0]):
        raise GeometryError(f"{tag} changes from view to view, from {min(found):g} to {max(found):g}")
    return found[0]


def _source_shift(view: View, radius: float) -> tuple[float, float, float]:
    """Where the focal spot stands from the focal centre of the detector, along u, v and w."""
    angle, axial, radial = (number(view.values, tag, view.path) if tag in view.values else 0.0 for tag in _SHIFTS)
    spot = radius + radial
    return -spot * math.sin(angle), radius - spot * math.cos(angle), axial


def _integrals(views: Sequence[View], beam: FanBeam | ConeBeam) -> Float32:
    """Line integrals as `beam` orders them."""
    rows, columns = (1, beam.n_columns) if isinstance(beam, FanBeam) else (beam.n_rows, beam.n_columns)
    values = np.empty((len(views), rows, columns), np.float32)
    for target, view in zip(values, views, strict=True):
        if str(view.values.get(LOGARITHM, "YES")).upper() != "YES":
            raise FormatError(
                f"{view.path}: {LOGARITHM} is {view.values[LOGARITHM]}; line integrals (YES) are expected"
            )
        picture = view.pixels
        # some files call the columns of the detector rows of the picture
        if picture.shape != (rows, columns):
            picture = picture.T
        if picture.shape != (rows, columns):
            raise ShapeError(
                f"{view.path} has a picture of {view.pixels.shape}, but {N_ROWS} is {rows} and {N_COLUMNS} is {columns}"
            )
        slope, intercept = (number(view.values, tag, view.path) for tag in (SLOPE, INTERCEPT))
        target[...] = picture[::-1].astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return values[:, 0] if isinstance(beam, FanBeam) else values


def _photons(views: Sequence[View], integrals: Float32) -> Float32 | None:
    """Photons that are expected behind the patient, from those before; None where these are not said."""
    if not all(PHOTONS in view.values for view in views):
        return None
    n_columns = integrals.shape[-1]
    before = np.array([numbers(view.values, PHOTONS, view.path, n_columns) for view in views], np.float32)
    if before.min() < 0:
        raise FormatError(f"{views[0].path}: {PHOTONS} should not be negative")
    counts: Float32 = np.exp(-integrals)
    counts *= before if integrals.ndim == 2 else before[:, None]
    return counts[None]


def _placed(beam: FanBeam | ConeBeam, views: Sequence[View], position: str) -> Description:
    """Put the voxels where they lie in the patient."""
    first = views[0]
    described = Description(beam)
    try:
        grid = described.grid
    except DipmedError as error:
        raise GeometryError(f"{first.path}: {error}") from error
    steps = list(grid.spacing_mm)
    start = [float(grid.coordinates(axis)[0]) for axis in range(len(grid.shape))]
    if isinstance(beam, FanBeam):
        steps.append(_constant(views, ROW_MM) * beam.source_to_axis_mm / beam.source_to_detector_mm)
        start.append(number(first.values, AXIAL, first.path))
    water = number(first.values, WATER, first.path) if WATER in first.values else 0.0
    return Description(
        beam,
        image=grid,
        affine=affine_in_gantry(position, steps, start),
        water_per_mm=water if _WATER_RANGE[0] < water < _WATER_RANGE[1] else None,
    )
