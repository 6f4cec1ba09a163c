"""The CT scanners of simulations: detectors that see all of the object, cells as fine as the pixels."""

from __future__ import annotations

import math

from operators import ConeBeam, FanBeam, ParallelBeam, angles_over

GEOMETRIES = ("parallel", "fan", "cone")

SOURCE_TO_AXIS_MM = 570.0
SOURCE_TO_DETECTOR_MM = 1040.0
"""As in a clinical scanner."""

_WIDEST = 0.75
"""Of the distance from source to axis: the radius of an object beyond which the scanner is made larger."""

SimulatedBeam = ParallelBeam | FanBeam | ConeBeam


def make_beam(geometry: str, n_views: int, radius_mm: float, pixel_mm: float) -> ParallelBeam | FanBeam:
    """Return a beam whose every view sees the disc of this radius, with columns as wide as a pixel at the axis.

    The detector of a fan is an arc about the source.
    """
    if geometry == "parallel":
        return ParallelBeam(angles_over(n_views), 2 * math.ceil(radius_mm / pixel_mm), pixel_mm)
    to_axis, to_detector = _distances(radius_mm)
    column_mm = pixel_mm * to_detector / to_axis
    n_columns = 2 * math.ceil(to_detector * math.asin(radius_mm / to_axis) / column_mm)
    return FanBeam(angles_over(n_views, 2 * math.pi), n_columns, column_mm, to_axis, to_detector, curved=True)


def make_cone(n_views: int, radius_mm: float, height_mm: float, pixel_mm: float, slice_mm: float) -> ConeBeam:
    """Return a cone beam on a circle whose every view sees the cylinder of this radius and height, on a flat detector.

    A cell of the detector is as large as the outline of a voxel is at the axis.
    """
    to_axis, to_detector = _distances(radius_mm)
    larger = to_detector / to_axis
    half_width = to_detector * math.tan(math.asin(radius_mm / to_axis))
    # the part of the cylinder that is nearest to the source is seen largest
    half_height = height_mm / 2 * to_detector / (to_axis - radius_mm)
    return ConeBeam(
        angles_over(n_views, 2 * math.pi),
        n_rows=2 * math.ceil(half_height / (slice_mm * larger)),
        n_columns=2 * math.ceil(half_width / (pixel_mm * larger)),
        row_mm=slice_mm * larger,
        column_mm=pixel_mm * larger,
        source_to_axis_mm=to_axis,
        source_to_detector_mm=to_detector,
    )


def describe(beam: SimulatedBeam) -> str:
    """Return a sentence about a beam."""
    if isinstance(beam, ParallelBeam):
        return f"The scanner: parallel rays over half a turn, {beam.n_columns} columns of {beam.column_mm:.4g} mm."
    to_axis, to_detector = beam.source_to_axis_mm, beam.source_to_detector_mm
    where = f"{to_detector:.4g} mm from a source that is {to_axis:.4g} mm from the axis, over a full turn"
    if isinstance(beam, FanBeam):
        return f"The scanner: a fan to {beam.n_columns} columns of {beam.column_mm:.4g} mm on an arc, {where}."
    cells = f"{beam.n_rows} x {beam.n_columns} cells of {beam.row_mm:.4g} x {beam.column_mm:.4g} mm"
    return f"The scanner: a cone to {cells} in a plane, {where}."


def _distances(radius_mm: float) -> tuple[float, float]:
    """Return how far axis and detector are from the source, in proportion to the usual ones."""
    larger = max(1.0, radius_mm / (_WIDEST * SOURCE_TO_AXIS_MM))
    return larger * SOURCE_TO_AXIS_MM, larger * SOURCE_TO_DETECTOR_MM
