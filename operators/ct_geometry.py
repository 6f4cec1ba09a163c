r"""How X-rays run through a slice: grids, parallel and fan beams, in millimetres and radians.

All axes are those of the object. At the angle θ the columns of the detector run along ``u = (cos θ, sin θ)`` and the
rays along ``v = (-sin θ, cos θ)``, from the source to the detector::

        y                 detector, columns along u
        ^              ----------*----------
        |                  \     |     /
        |    θ              \    |    /  rays, along v
        +-----> x            \   |   /
       axis                    source

The object stands still and the scanner turns counter-clockwise about the axis, which is the origin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from operators.errors import DipmedError, ShapeError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """Pixels of a slice, or voxels of a volume.

    Parameters
    ----------
    shape
        ``(x, y[, z])``.
    spacing_mm
        Size of a pixel along each axis.
    centre_mm
        Where the middle of the grid lies, counted from the rotation axis; by default on it.

    Raises
    ------
    ShapeError
        When the numbers do not fit each other or a size is not positive.
    """

    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    centre_mm: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.centre_mm:
            object.__setattr__(self, "centre_mm", (0.0,) * len(self.shape))
        sizes = {len(self.shape), len(self.spacing_mm), len(self.centre_mm)}
        if sizes not in ({2}, {3}):
            raise ShapeError(f"a grid has 2 or 3 sizes, spacings and coordinates of its centre, got {self}")
        if min(self.shape) < 1 or not all(math.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise ShapeError(f"sizes and spacings of a grid must be positive, got {self}")
        if not all(math.isfinite(c) for c in self.centre_mm):
            raise ShapeError(f"the centre of a grid must be finite, got {self}")

    def coordinates(self, axis: int) -> Array:
        """Return where the middles of the pixels lie along an axis, in mm from the rotation axis."""
        n = self.shape[axis]
        return (np.arange(n, dtype=np.float64) - (n - 1) / 2) * self.spacing_mm[axis] + self.centre_mm[axis]

    @property
    def radius_mm(self) -> float:
        """Distance of the farthest corner from the rotation axis, within the slice."""
        half = [n * s / 2 for n, s in zip(self.shape[:2], self.spacing_mm[:2], strict=True)]
        return math.hypot(*(abs(c) + h for c, h in zip(self.centre_mm[:2], half, strict=True)))


@dataclass(frozen=True)
class ParallelBeam:
    """Parallel rays, as of a synchrotron.

    Parameters
    ----------
    angles
        θ of each view.
    n_columns
        Number of detector columns.
    column_mm
        Distance between the middles of two columns.
    column_offset
        Columns by which the middle of the detector lies beyond the ray through the rotation axis, along u.

    Raises
    ------
    DipmedError
        When a number is not finite or not positive where it has to be.
    """

    angles: tuple[float, ...]
    n_columns: int
    column_mm: float
    column_offset: float = 0.0

    def __post_init__(self) -> None:
        _check_detector(self)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(view, column)`` of a sinogram."""
        return len(self.angles), self.n_columns

    @property
    def columns_mm(self) -> Array:
        """Middles of the columns along u, from the ray through the axis, ``(column,)``."""
        return _columns(self)

    def with_views(self, views: Sequence[int]) -> ParallelBeam:
        """Return the beam of some of its views."""
        return replace(self, angles=tuple(self.angles[view] for view in views))

    def rays(self, view: int, columns_mm: Array) -> tuple[Array, Array]:
        """Return a point and the direction of length 1 of the rays to these places of the detector, ``(column, 2)``."""
        u, v = _axes(self.angles[view])
        return columns_mm[:, None] * u, np.broadcast_to(v, (len(columns_mm), 2))


@dataclass(frozen=True)
class FanBeam:
    """Rays from a point to a row of columns.

    Parameters
    ----------
    angles, n_columns, column_mm, column_offset
        As for `ParallelBeam`; columns are counted along the detector, which may be curved.
    source_to_axis_mm, source_to_detector_mm
        Distances from the source.
    curved
        Columns lie on an arc about the source, at equal angles, and not on a line.
    axis_shift_mm
        How far source and detector are moved together along u: the line from the source to the middle of the detector
        passes the rotation axis at this distance.

    Raises
    ------
    DipmedError
        When a number is not finite or not positive where it has to be, or the source lies beyond the detector.
    """

    angles: tuple[float, ...]
    n_columns: int
    column_mm: float
    source_to_axis_mm: float
    source_to_detector_mm: float
    column_offset: float = 0.0
    curved: bool = False
    axis_shift_mm: float = 0.0

    def __post_init__(self) -> None:
        _check_detector(self)
        distances = self.source_to_axis_mm, self.source_to_detector_mm
        if not all(math.isfinite(d) and d > 0 for d in distances) or not math.isfinite(self.axis_shift_mm):
            raise DipmedError(f"distances of a fan beam must be positive and finite, got {distances}")
        if self.curved and np.abs(self.columns_mm).max() >= self.source_to_detector_mm * math.pi / 2:
            raise DipmedError("the curved detector reaches around the source: its columns are too wide or too many")

    @property
    def shape(self) -> tuple[int, ...]:
        """``(view, column)`` of a sinogram."""
        return len(self.angles), self.n_columns

    @property
    def columns_mm(self) -> Array:
        """Middles of the columns along the detector, from the ray through its axis, ``(column,)``."""
        return _columns(self)

    @property
    def fan_angles(self) -> Array:
        """Angle between the ray to each column and the central ray, ``(column,)``."""
        return self.fan_angles_at(self.columns_mm)

    def fan_angles_at(self, columns_mm: Array) -> Array:
        """Return the fan angles of places on the detector."""
        ratio = columns_mm / self.source_to_detector_mm
        return ratio if self.curved else np.arctan(ratio)

    def source(self, view: int) -> Array:
        """Return where the source stands, ``(2,)``."""
        u, v = _axes(self.angles[view])
        return self.axis_shift_mm * u - self.source_to_axis_mm * v

    def rays(self, view: int, columns_mm: Array) -> tuple[Array, Array]:
        """Return the source and the direction of length 1 of the rays to places on the detector, ``(column, 2)``."""
        u, v = _axes(self.angles[view])
        gamma = self.fan_angles_at(columns_mm)[:, None]
        return np.broadcast_to(self.source(view), (len(columns_mm), 2)), np.sin(gamma) * u + np.cos(gamma) * v

    def with_views(self, views: Sequence[int]) -> FanBeam:
        """Return the beam of some of its views."""
        return replace(self, angles=tuple(self.angles[view] for view in views))


Beam = ParallelBeam | FanBeam


def field_of_view_mm(beam: Beam) -> float:
    """Return the radius of the disc about the rotation axis that every view sees whole."""
    edges = beam.columns_mm[[0, -1]] + np.array([-0.5, 0.5]) * beam.column_mm
    if isinstance(beam, ParallelBeam):
        return float(max(0.0, min(-edges[0], edges[1])))
    # the outermost rays pass the axis at these distances along u
    gamma = beam.fan_angles_at(edges)
    reach = beam.source_to_axis_mm * np.sin(gamma) + beam.axis_shift_mm * np.cos(gamma)
    return float(max(0.0, min(-reach[0], reach[1])))


def slice_grid(beam: Beam, n: int | None = None) -> Grid:
    """Return square pixels over the field of view, by default as wide as a column is at the axis."""
    diameter = 2 * field_of_view_mm(beam)
    if diameter <= 0:
        raise DipmedError(f"no point is seen by every view: the detector lies wholly beside the axis, {beam}")
    if n is None:
        pixel = beam.column_mm
        if isinstance(beam, FanBeam):
            pixel *= beam.source_to_axis_mm / beam.source_to_detector_mm
        n = max(1, round(diameter / pixel))
    return Grid((n, n), (diameter / n, diameter / n))


def angles_over(n_views: int, span: float = math.pi, start: float = 0.0) -> tuple[float, ...]:
    """Return ``n_views`` equally spaced angles from ``start``, the end of the span left out."""
    return tuple(start + span * view / n_views for view in range(n_views))


def _axes(angle: float) -> tuple[Array, Array]:
    u = np.array([math.cos(angle), math.sin(angle)])
    return u, np.array([-u[1], u[0]])


def _columns(beam: Beam) -> Array:
    index = np.arange(beam.n_columns, dtype=np.float64) - (beam.n_columns - 1) / 2
    return (index + beam.column_offset) * beam.column_mm


def _check_detector(beam: Beam) -> None:
    object.__setattr__(beam, "angles", tuple(float(angle) for angle in beam.angles))
    if not beam.angles or not all(math.isfinite(angle) for angle in beam.angles):
        raise DipmedError(f"a beam needs one or more finite angles, got {beam.angles[:4]}")
    if beam.n_columns < 1 or not (math.isfinite(beam.column_mm) and beam.column_mm > 0):
        raise DipmedError(f"a detector needs columns of positive width, got {beam.n_columns} of {beam.column_mm} mm")
    if not math.isfinite(beam.column_offset):
        raise DipmedError(f"the offset of the detector must be finite, got {beam.column_offset}")
