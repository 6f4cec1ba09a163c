"""How X-rays run through a volume: cone beams on circles and helices, beams of any pose, in millimetres and radians.

The axes are those of `operators.ct_geometry`, with the rotation axis as z. The rows of the detector are counted along
``w = (0, 0, 1)``::

        z, w              detector, columns along u, rows along w
        ^              +---------+
        |              |    *    |
        |              +----|----+
        |                   |  v
        +-----> u         source

u, v and w are a right-handed system, which turns about z and, on a helix, moves along it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from operators.ct_geometry import Array, FanBeam, Grid, ParallelBeam
from operators.errors import DipmedError, ShapeError

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class ConeBeam:
    """Rays from a point to rows and columns, on a circle or a helix.

    Parameters
    ----------
    angles
        θ of each view.
    n_rows, n_columns
        Size of the detector.
    row_mm, column_mm
        Distance between the middles of two rows and of two columns; columns are counted along a curved detector.
    source_to_axis_mm, source_to_detector_mm
        Distances from the nominal source.
    row_offset, column_offset
        Rows and columns by which the middle of the detector lies beyond the central ray, along w and along u.
    curved
        Columns lie on an arc about the nominal source; rows are parallel to the axis in either case.
    axis_shift_mm
        How far source and detector are moved together along u.
    z_mm
        Height of source and detector at each view; empty for a circle at 0.
    source_shift_mm
        Where the focal spot stands at each view, along u, v and w from the nominal source, while the detector stays
        (flying focal spot); empty for none.

    Raises
    ------
    DipmedError
        When a number is not finite or not positive where it has to be, or there are not as many heights or shifts as
        views.
    """

    angles: tuple[float, ...]
    n_rows: int
    n_columns: int
    row_mm: float
    column_mm: float
    source_to_axis_mm: float
    source_to_detector_mm: float
    row_offset: float = 0.0
    column_offset: float = 0.0
    curved: bool = False
    axis_shift_mm: float = 0.0
    z_mm: tuple[float, ...] = ()
    source_shift_mm: tuple[Vector, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "z_mm", tuple(float(z) for z in self.z_mm))
        object.__setattr__(self, "source_shift_mm", _vectors(self.source_shift_mm, "source_shift_mm"))
        object.__setattr__(self, "angles", self.mid_plane.angles)  # whose checks hold here as well
        if self.n_rows < 1 or not (math.isfinite(self.row_mm) and self.row_mm > 0):
            raise DipmedError(f"a detector needs rows of positive height, got {self.n_rows} of {self.row_mm} mm")
        if not all(map(math.isfinite, (self.row_offset, *self.z_mm))):
            raise DipmedError("the offset of the rows and the heights of the views must be finite")
        for name in ("z_mm", "source_shift_mm"):
            n_given = len(getattr(self, name))
            if n_given not in (0, len(self.angles)):
                raise DipmedError(
                    f"{name} needs one entry for each of {len(self.angles)} views, or none; got {n_given}"
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """``(view, row, column)`` of the projections."""
        return len(self.angles), self.n_rows, self.n_columns

    @property
    def is_parallel(self) -> bool:
        """False: every ray of a view comes from one point."""
        return False

    @property
    def is_circular(self) -> bool:
        """Whether all views lie on one circle, and the focal spot where it should."""
        return len(set(self.z_mm)) < 2 and not np.any(self.source_shift_mm)

    @property
    def mid_plane(self) -> FanBeam:
        """The fan of the rays at the height of the source."""
        return FanBeam(
            self.angles,
            self.n_columns,
            self.column_mm,
            self.source_to_axis_mm,
            self.source_to_detector_mm,
            self.column_offset,
            self.curved,
            self.axis_shift_mm,
        )

    @property
    def columns_mm(self) -> Array:
        """Middles of the columns along the detector, from the central ray, ``(column,)``."""
        return (_from_middle(self.n_columns) + self.column_offset) * self.column_mm

    @property
    def rows_mm(self) -> Array:
        """Middles of the rows along w, from the central ray, ``(row,)``."""
        return (_from_middle(self.n_rows) + self.row_offset) * self.row_mm

    def with_views(self, views: Sequence[int]) -> ConeBeam:
        """Return the beam of some of its views."""
        return replace(
            self,
            angles=tuple(self.angles[view] for view in views),
            z_mm=tuple(self.z_mm[view] for view in views) if self.z_mm else (),
            source_shift_mm=tuple(self.source_shift_mm[view] for view in views) if self.source_shift_mm else (),
        )

    def source(self, view: int) -> Array:
        """Return where the focal spot stands, ``(3,)``."""
        if not self.source_shift_mm:
            return self._nominal_source(view)
        return self._nominal_source(view) + np.array(self.source_shift_mm[view]) @ np.stack(_axes(self.angles[view]))

    def cells(self, view: int, rows: Array, columns: Array) -> Array:
        """Return places on the detector, by numbers of rows and columns that count from 0, ``(row, column, 3)``."""
        u, v, w = _axes(self.angles[view])
        along_w = (rows - (self.n_rows - 1) / 2 + self.row_offset) * self.row_mm
        along_u = (columns - (self.n_columns - 1) / 2 + self.column_offset) * self.column_mm
        distance = self.source_to_detector_mm
        depth = np.full_like(along_u, distance)
        if self.curved:
            angle = along_u / distance
            along_u, depth = distance * np.sin(angle), distance * np.cos(angle)
        places = along_u[:, None] * u + depth[:, None] * v
        return self._nominal_source(view) + places[None, :, :] + along_w[:, None, None] * w

    def rays(self, view: int, rows: Array, columns: Array) -> tuple[Array, Array]:
        """Return a point and the direction of length 1 of rays, ``(row, column, 3)``; arguments as for `cells`."""
        return _rays(self, view, rows, columns)

    def _nominal_source(self, view: int) -> Array:
        u, v, w = _axes(self.angles[view])
        return self.axis_shift_mm * u - self.source_to_axis_mm * v + (self.z_mm[view] if self.z_mm else 0.0) * w


@dataclass(frozen=True)
class PosedBeam:
    """Flat detectors anywhere, one pose for each view, as a robot's arm or a laminography has them.

    Parameters
    ----------
    sources_mm
        Where the source stands at each view, ``(view, 3)``; with ``parallel``, the direction of its rays.
    centres_mm
        Middles of the detector.
    row_steps_mm, column_steps_mm
        From the middle of one row, or column, to the next.
    n_rows, n_columns
        Size of the detector.
    parallel
        Rays are parallel.

    Raises
    ------
    DipmedError
        When the poses are not as many as each other, not finite, or a detector has no area or is seen from its edge.
    """

    sources_mm: tuple[Vector, ...]
    centres_mm: tuple[Vector, ...]
    row_steps_mm: tuple[Vector, ...]
    column_steps_mm: tuple[Vector, ...]
    n_rows: int
    n_columns: int
    parallel: bool = False

    def __post_init__(self) -> None:
        names = ("sources_mm", "centres_mm", "row_steps_mm", "column_steps_mm")
        for name in names:
            object.__setattr__(self, name, _vectors(getattr(self, name), name))
        counts = {len(getattr(self, name)) for name in names}
        if len(counts) > 1 or counts == {0}:
            raise DipmedError(f"{', '.join(names)} need one entry for each view, got {sorted(counts)}")
        if min(self.n_rows, self.n_columns) < 1:
            raise DipmedError(f"a detector needs rows and columns, got {self.n_rows} and {self.n_columns}")
        sources, centres, rows, columns = (np.array(getattr(self, name)) for name in names)
        across = np.cross(rows, columns)
        towards = sources if self.parallel else centres - sources
        area = np.linalg.norm(rows, axis=1) * np.linalg.norm(columns, axis=1) * np.linalg.norm(towards, axis=1)
        flat = np.abs((across * towards).sum(axis=1)) <= 1e-9 * area
        if flat.any():
            raise DipmedError(
                f"the detector of view {int(flat.argmax())} has no area or is seen from its edge: rows, columns and "
                "rays must have three different directions"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """``(view, row, column)`` of the projections."""
        return len(self.sources_mm), self.n_rows, self.n_columns

    @property
    def is_parallel(self) -> bool:
        """Whether the rays of a view are parallel."""
        return self.parallel

    def with_views(self, views: Sequence[int]) -> PosedBeam:
        """Return the beam of some of its views."""
        names = ("sources_mm", "centres_mm", "row_steps_mm", "column_steps_mm")
        sources, centres, rows, columns = (tuple(getattr(self, name)[view] for view in views) for name in names)
        return PosedBeam(sources, centres, rows, columns, self.n_rows, self.n_columns, self.parallel)

    def source(self, view: int) -> Array:
        """Return where the source stands, or the direction of parallel rays, ``(3,)``."""
        return np.array(self.sources_mm[view])

    def cells(self, view: int, rows: Array, columns: Array) -> Array:
        """Return places on the detector, by numbers of rows and columns that count from 0, ``(row, column, 3)``."""
        along_rows = (rows - (self.n_rows - 1) / 2)[:, None, None] * np.array(self.row_steps_mm[view])
        along_columns = (columns - (self.n_columns - 1) / 2)[None, :, None] * np.array(self.column_steps_mm[view])
        return np.array(self.centres_mm[view]) + along_rows + along_columns

    def rays(self, view: int, rows: Array, columns: Array) -> tuple[Array, Array]:
        """Return a point and the direction of length 1 of rays, ``(row, column, 3)``; arguments as for `cells`."""
        return _rays(self, view, rows, columns)


VolumeBeam = ConeBeam | PosedBeam


def posed(beam: ParallelBeam | ConeBeam, n_rows: int = 1, row_mm: float = 1.0) -> PosedBeam:
    """Return the poses of a beam with a flat detector.

    Parameters
    ----------
    beam
        Any such beam.
    n_rows, row_mm
        Rows of a `ParallelBeam`, which has none itself: they lie upon each other.

    Raises
    ------
    DipmedError
        When the detector is curved.
    """
    views = range(len(beam.angles))
    axes = [_axes(angle) for angle in beam.angles]
    if isinstance(beam, ConeBeam):
        if beam.curved:
            raise DipmedError("a curved detector has no pose: it is not flat")
        n_rows, row_mm = beam.n_rows, beam.row_mm
        middle = np.array([(n_rows - 1) / 2]), np.array([(beam.n_columns - 1) / 2])
        sources = [beam.source(view) for view in views]
        centres = [beam.cells(view, *middle)[0, 0] for view in views]
    else:
        sources = [v for _, v, _ in axes]
        centres = [beam.column_offset * beam.column_mm * u for u, _, _ in axes]
    return PosedBeam(
        _vectors(sources, "sources_mm"),
        _vectors(centres, "centres_mm"),
        _vectors([row_mm * w for _, _, w in axes], "row_steps_mm"),
        _vectors([beam.column_mm * u for u, _, _ in axes], "column_steps_mm"),
        n_rows,
        beam.n_columns,
        isinstance(beam, ParallelBeam),
    )


def volume_of_view_mm(beam: VolumeBeam) -> tuple[float, float, float]:
    """Return the radius of the cylinder about z that every view sees, and the lowest and highest point of z it sees.

    The radius is that at the height of the middle row; the heights are where the outermost rows pass the axis, in the
    lowest and in the highest view.

    Raises
    ------
    DipmedError
        When a ray runs along the axis, so that there is no such cylinder.
    """
    edges = np.array([-0.5, 0.5])
    rows, columns = (edges + np.array([0, n - 1]) for n in beam.shape[1:])
    radius, heights = math.inf, []
    for view in range(beam.shape[0]):
        reach = _past_axis(*beam.rays(view, rows.mean(keepdims=True), columns))[0]
        radius = min(radius, -float(reach.min()), float(reach.max()))
        heights.append(_past_axis(*beam.rays(view, rows, columns.mean(keepdims=True)))[1])
    return max(0.0, radius), float(np.min(heights)), float(np.max(heights))


def volume_grid(beam: VolumeBeam, n: int | None = None) -> Grid:
    """Return voxels over what `volume_of_view_mm` says, as wide as a column is at the axis, as high as a row is there.

    Parameters
    ----------
    beam
        How the rays run.
    n
        Voxels along x and y; those along z keep their proportion.

    Raises
    ------
    DipmedError
        When no point is seen by every view, or a ray runs along the axis.
    """
    radius, low, high = volume_of_view_mm(beam)
    if radius <= 0 or high <= low:
        raise DipmedError("no point is seen by every view: the detector lies wholly beside the axis")
    row, column = (np.array([(size - 1) / 2]) for size in beam.shape[1:])
    step = np.array([-0.5, 0.5])
    voxel = float(np.ptp(_past_axis(*beam.rays(0, row, column + step))[0]))
    slice_ = float(np.ptp(_past_axis(*beam.rays(0, row + step, column))[1]))
    n = max(1, round(2 * radius / voxel)) if n is None else n
    n_slices = max(1, round((high - low) / slice_ * (n * voxel / (2 * radius))))
    spacing = 2 * radius / n, 2 * radius / n, (high - low) / n_slices
    return Grid((n, n, n_slices), spacing, (0.0, 0.0, (low + high) / 2))


def _past_axis(points: Array, directions: Array) -> tuple[Array, Array]:
    """Signed distance and height at which rays pass the axis."""
    squared = (directions[..., :2] ** 2).sum(axis=-1)
    if (squared < 1e-6).any():
        raise DipmedError("a ray runs along the rotation axis: give the grid to reconstruct on")
    reach = (points[..., 0] * directions[..., 1] - points[..., 1] * directions[..., 0]) / np.sqrt(squared)
    nearest = -(points[..., :2] * directions[..., :2]).sum(axis=-1) / squared
    return reach, points[..., 2] + nearest * directions[..., 2]


def _rays(beam: VolumeBeam, view: int, rows: Array, columns: Array) -> tuple[Array, Array]:
    cells, source = beam.cells(view, rows, columns), beam.source(view)
    if beam.is_parallel:
        return cells, np.broadcast_to(source / np.linalg.norm(source), cells.shape)
    towards = cells - source
    return np.broadcast_to(source, cells.shape), towards / np.linalg.norm(towards, axis=-1, keepdims=True)


def _axes(angle: float) -> tuple[Array, Array, Array]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([cos, sin, 0.0]), np.array([-sin, cos, 0.0]), np.array([0.0, 0.0, 1.0])


def _from_middle(n: int) -> Array:
    return np.arange(n, dtype=np.float64) - (n - 1) / 2


def _vectors(values: Sequence[Sequence[float] | NDArray[np.float64]], name: str) -> tuple[Vector, ...]:
    """Return vectors of three finite numbers."""
    found = []
    for value in values:
        vector = tuple(float(number) for number in value)
        if len(vector) != 3 or not all(map(math.isfinite, vector)):
            raise ShapeError(f"{name} needs three finite numbers for each view, got {vector}")
        found.append(vector)
    return tuple(found)
