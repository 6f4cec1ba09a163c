"""Where a voxel lies in the patient: the only place for LPS and RAS, directions, centres and slice order.

Scanners speak in LPS (x to the patient's left, y to the back, z to the head), images here in RAS (x to the
right, y to the front, z to the head), both in mm. Voxel coordinates are those of the voxel's centre, and the
centre of a Fourier-encoded axis of n voxels is voxel ``n // 2``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dipmed.scan import GeometryError

Vector = NDArray[np.float64]

_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
_LPS_OF = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
_IN_GANTRY = {
    "HFS": "LPH",
    "HFP": "RAH",
    "HFDL": "ALH",
    "HFDR": "PRH",
    "FFS": "RPF",
    "FFP": "LAF",
    "FFDL": "PLF",
    "FFDR": "ARF",
}
"""Towards which side of the patient right, down and into the gantry run, as seen from the table."""
_TOLERANCE = 1e-3  # of a direction's length and of a right angle; headers hold single precision or few digits


@dataclass(frozen=True)
class MrdGeometry:
    """Place of a volume in the words of ISMRMRD: LPS, mm.

    Parameters
    ----------
    position
        Centre, that is voxel ``n // 2`` of each axis.
    read_dir, phase_dir, slice_dir
        Unit vectors along the three voxel axes.
    voxel_mm
        Voxel size along these.
    """

    position: Vector
    read_dir: Vector
    phase_dir: Vector
    slice_dir: Vector
    voxel_mm: tuple[float, float, float]


@dataclass(frozen=True)
class PictureAxes:
    """How a slice ``(x, y)`` is turned into the picture that doctors look at.

    Parameters
    ----------
    down, across
        Which voxel axis, 0 or 1, runs down the picture and which across it.
    down_reversed, across_reversed
        Whether it runs up, or to the left.
    """

    down: int
    across: int
    down_reversed: bool
    across_reversed: bool

    def turn(self, slice_: NDArray[Any]) -> NDArray[Any]:
        """Return the picture, ``(row, column)``, of a slice ``(x, y)``."""
        picture = slice_.transpose(self.down, self.across)
        return picture[:: -1 if self.down_reversed else 1, :: -1 if self.across_reversed else 1]


@dataclass(frozen=True)
class DicomPlanes:
    """Place of the pictures of a volume in the words of DICOM: LPS, mm.

    Parameters
    ----------
    axes
        How a slice of the volume is turned into its picture.
    order
        Index of the slice that comes first along the normal of the pictures, of the second, and so on.
    row_dir, column_dir
        Unit vectors along a row of the picture, from left to right, and down a column.
    spacing_mm
        Between rows, and between columns.
    distance_mm
        Between slices, along their normal.
    corners
        Centre of the first pixel of each picture, in that order, ``(slice, 3)``.
    """

    axes: PictureAxes
    order: tuple[int, ...]
    row_dir: Vector
    column_dir: Vector
    spacing_mm: tuple[float, float]
    distance_mm: float
    corners: NDArray[np.float64]


@dataclass(frozen=True)
class SliceStack:
    """How slices pile up.

    Parameters
    ----------
    order
        Index of the slice that comes first along the slice direction, of the second, and so on.
    affine
        4x4, voxel index (x, y, slice in that order) to RAS in mm.
    misfit_mm
        Largest distance between where a slice is and where the affine, which knows one spacing only, puts it.
    """

    order: tuple[int, ...]
    affine: NDArray[np.float64]
    misfit_mm: float


def lps_to_ras(points: ArrayLike) -> Vector:
    """Turn LPS coordinates or directions, ``(..., 3)``, into RAS; the way back is the same."""
    return np.asarray(points, dtype=np.float64) * _LPS_TO_RAS


def default_affine(voxel_mm: Sequence[float], shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine of a volume of unknown place: axes along RAS, the central voxel at the origin.

    Parameters
    ----------
    voxel_mm
        Voxel size along x, y and z (or slice), in mm.
    shape
        Voxels along x, y and z (or slice).

    Raises
    ------
    GeometryError
        When a voxel size is not a positive number.
    """
    voxel = _voxel_sizes(voxel_mm)
    return _affine(np.diag(voxel), np.zeros(3), _centre(shape))


def picture_affine(voxel_mm: Sequence[float], shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine of slices of unknown place that are stored as pictures, rows first.

    The first axis runs down the picture, from the front of the patient to the back, the second across it, from the
    patient's right to the left: an axial slice as a doctor looks at it. The central voxel is at the origin.

    Parameters
    ----------
    voxel_mm
        Voxel size down, across and between slices, in mm.
    shape
        Voxels along these.

    Raises
    ------
    GeometryError
        When a voxel size is not a positive number.
    """
    down, across, up = (0, -1, 0), (-1, 0, 0), (0, 0, 1)
    return _affine(np.array([down, across, up]).T * _voxel_sizes(voxel_mm), np.zeros(3), _centre(shape))


def picture_axes(affine: NDArray[np.float64]) -> PictureAxes:
    """Return how slices of this affine are shown by the radiological convention.

    The patient's right is on the left of the picture, the front on top of an axial slice, the head on top of a
    coronal and of a sagittal one, where the front is on the left. Oblique slices are shown as the nearest of these.
    """
    columns = np.asarray(affine, dtype=np.float64)[:3, :2]
    columns = columns / np.linalg.norm(columns, axis=0)
    normal = int(np.argmax(np.abs(np.cross(columns[:, 0], columns[:, 1]))))
    left, back, feet = np.diag([-1.0, -1.0, -1.0])
    towards_down, towards_across = {0: (feet, back), 1: (feet, left), 2: (back, left)}[normal]
    along_down = towards_down @ columns
    down = int(np.argmax(np.abs(along_down)))
    across = 1 - down
    return PictureAxes(down, across, bool(along_down[down] < 0), bool(towards_across @ columns[:, across] < 0))


def dicom_planes(affine: NDArray[np.float64], shape: Sequence[int]) -> DicomPlanes:
    """Return where DICOM puts the slices of a volume of ``shape`` (x, y, slice), turned as doctors look at them.

    Slices may be shifted against each other, as with a tilted gantry: each has its own place.

    Raises
    ------
    GeometryError
        When the axes of a slice are not perpendicular, or the slices do not span a volume.
    """
    axes = picture_axes(plane_affine(affine))
    first, last = np.zeros(3), np.array(shape[:3]) - 1.0
    steps = affine[:3, :3].copy()
    for axis, is_reversed in ((axes.down, axes.down_reversed), (axes.across, axes.across_reversed)):
        if is_reversed:
            first[axis] = last[axis]
            steps[:, axis] *= -1
    down_mm, across_mm = (float(np.linalg.norm(steps[:, axis])) for axis in (axes.down, axes.across))
    row_dir, column_dir = steps[:, axes.across] / across_mm, steps[:, axes.down] / down_mm
    normal = np.cross(row_dir, column_dir)
    check_directions(row_dir, column_dir, normal)
    distance = float(steps[:, 2] @ normal)
    order = range(shape[2])[:: 1 if distance > 0 else -1]
    corners = affine[:3, :3] @ first + affine[:3, 3] + np.array(order)[:, None] * steps[:, 2]
    return DicomPlanes(
        axes=axes,
        order=tuple(order),
        row_dir=lps_to_ras(row_dir),
        column_dir=lps_to_ras(column_dir),
        spacing_mm=(down_mm, across_mm),
        distance_mm=abs(distance),
        corners=lps_to_ras(corners),
    )


def affine_in_gantry(
    patient_position: str, steps_mm: Sequence[float], first_mm: Sequence[float]
) -> NDArray[np.float64]:
    """Return the affine of voxels along the axes of a CT scanner: right, down and into the gantry, from the table.

    Parameters
    ----------
    patient_position
        DICOM's word for how the patient lies: ``"HFS"`` is head first on the back.
    steps_mm
        From voxel to voxel along these axes.
    first_mm
        Where the first voxel lies along them, from the point of the rotation axis that is the patient's origin.

    Raises
    ------
    GeometryError
        When the position is unknown or a figure is impossible.
    """
    if patient_position not in _IN_GANTRY:
        raise GeometryError(
            f"patient position {patient_position!r} is unknown; expected one of {', '.join(_IN_GANTRY)}"
        )
    directions = lps_to_ras([_LPS_OF[side] for side in _IN_GANTRY[patient_position]]).T
    return _affine(directions * _voxel_sizes(steps_mm), directions @ _finite(first_mm, "first voxel"), np.zeros(3))


def affine_from_mrd(geometry: MrdGeometry, shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the affine (to RAS, in mm) of a volume of ``shape`` (x, y, z) whose place ISMRMRD describes.

    Raises
    ------
    GeometryError
        When the directions are no three perpendicular unit vectors, or a figure is not finite.
    """
    directions = check_directions(geometry.read_dir, geometry.phase_dir, geometry.slice_dir)
    voxel = _voxel_sizes(geometry.voxel_mm)
    columns = lps_to_ras(directions * voxel[:, None]).T
    return _affine(columns, lps_to_ras(_finite(geometry.position, "position")), _centre(shape))


def mrd_from_affine(affine: NDArray[np.float64], shape: Sequence[int]) -> MrdGeometry:
    """Return the place of a volume of ``shape`` (x, y, z) as ISMRMRD says it, the inverse of `affine_from_mrd`.

    Raises
    ------
    GeometryError
        When the affine is singular or sheared, which unit vectors and voxel sizes cannot express.
    """
    columns = _finite(affine, "affine")[:3, :3]
    voxel = np.linalg.norm(columns, axis=0)
    sizes = _voxel_sizes(voxel.tolist())
    read_dir, phase_dir, slice_dir = check_directions(*lps_to_ras((columns / sizes).T))
    centre = affine[:3, :3] @ _centre(shape) + affine[:3, 3]
    x, y, z = (float(size) for size in sizes)
    return MrdGeometry(lps_to_ras(centre), read_dir, phase_dir, slice_dir, (x, y, z))


def plane_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of the first slice of a stack alone: the third axis normal to it, as long as the spacing.

    Slices of a slanted stack are shifted in their plane, which makes the affine of the stack sheared; that of one
    slice is not.

    Raises
    ------
    GeometryError
        When the first two axes are parallel, or the third lies in their plane.
    """
    x, y, step = _finite(affine, "affine")[:3, :3].T
    normal = np.cross(x, y)
    area = float(np.linalg.norm(normal))
    distance = float(step @ normal) / area if area > 0 else 0.0
    if distance == 0.0:
        raise GeometryError("the axes of the affine do not span a volume")
    plane = affine.copy()
    plane[:3, 2] = normal / area * distance
    return plane


def stack_slices(
    positions: ArrayLike,
    directions: tuple[Vector, Vector, Vector],
    voxel_mm: tuple[float, float, float],
    shape: tuple[int, int],
) -> SliceStack:
    """Order parallel slices along their normal and return the affine of the stack.

    Parameters
    ----------
    positions
        Centre of each slice, LPS, mm, ``(slice, 3)``.
    directions
        Unit vectors of the read, phase and slice directions, LPS; slices are ordered along the last.
    voxel_mm
        In-plane voxel sizes, and the thickness, which is the spacing when there is one slice.
    shape
        Voxels along x and y.

    Raises
    ------
    GeometryError
        When several slices lie at one place, or a figure is impossible.
    """
    where = _finite(positions, "slice positions")
    read_dir, phase_dir, slice_dir = check_directions(*directions)
    along = where @ slice_dir
    order = np.argsort(along, kind="stable")
    voxel = _voxel_sizes(voxel_mm)
    step = slice_dir * voxel[2]
    if len(where) > 1:
        gaps = np.diff(along[order])
        if gaps.min() < _TOLERANCE * voxel[2]:
            raise GeometryError(f"{len(where)} slices were expected side by side, but some lie at the same place")
        step = (where[order[-1]] - where[order[0]]) / (len(where) - 1)
    first = where[order[0]]
    expected = first + np.arange(len(where))[:, None] * step
    misfit = float(np.abs(where[order] - expected).max())
    columns = lps_to_ras(np.stack([read_dir * voxel[0], phase_dir * voxel[1], step])).T
    affine = _affine(columns, lps_to_ras(first), np.array([shape[0] // 2, shape[1] // 2, 0]))
    return SliceStack(tuple(int(i) for i in order), affine, misfit)


def directions_from_quaternion(quaternion: ArrayLike) -> tuple[Vector, Vector, Vector]:
    """Return the read, phase and slice directions (LPS) of a Siemens readout.

    Parameters
    ----------
    quaternion
        ``(w, x, y, z)`` of the rotation whose columns are the phase, read and slice directions.

    Raises
    ------
    GeometryError
        When it is not a unit quaternion.
    """
    w, *axis = _finite(quaternion, "quaternion")
    vector = np.array(axis)
    if abs(w * w + vector @ vector - 1) > 10 * _TOLERANCE:
        raise GeometryError(f"the orientation should be a unit quaternion, got {[w, *axis]}")
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross  # Rodrigues' formula in half angles
    return rotation[:, 1], rotation[:, 0], rotation[:, 2]


def siemens_image_axes(directions: tuple[Vector, Vector, Vector], *, three_d: bool) -> tuple[Vector, Vector, Vector]:
    """Return the directions along which the voxels of an image from Siemens raw data follow each other.

    Siemens' directions hold for an image that a forward Fourier transform makes from k-space. Here the inverse
    transform does that, as in most other programs, which mirrors each Fourier-encoded axis; so along these the
    voxels run the other way. The same was found by MRpro (pull request 833) and by twixtools (``prs_to_pcs``).
    """
    read_dir, phase_dir, slice_dir = directions
    return -read_dir, -phase_dir, -slice_dir if three_d else slice_dir


def check_directions(read_dir: ArrayLike, phase_dir: ArrayLike, slice_dir: ArrayLike) -> NDArray[np.float64]:
    """Return three directions as rows after making sure that they are perpendicular unit vectors.

    They need not be right-handed: a mirrored image axis is a valid place.

    Raises
    ------
    GeometryError
        When they are not.
    """
    rows = _finite(np.stack([np.asarray(axis) for axis in (read_dir, phase_dir, slice_dir)]), "directions")
    if np.abs(rows @ rows.T - np.eye(3)).max() > _TOLERANCE:
        raise GeometryError(
            f"read, phase and slice directions should be perpendicular unit vectors, got {rows.round(4).tolist()}"
        )
    return rows


def _affine(columns: NDArray[np.float64], position: Vector, centre: Vector) -> NDArray[np.float64]:
    """Put voxel ``centre`` at ``position``."""
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = position - columns @ centre
    return affine


def _centre(shape: Sequence[int]) -> Vector:
    return np.array([n // 2 for n in shape], dtype=np.float64)


def _voxel_sizes(voxel_mm: Sequence[float]) -> Vector:
    sizes = np.asarray(voxel_mm, dtype=np.float64)
    if sizes.shape != (3,) or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise GeometryError(f"voxel sizes should be three positive numbers in mm, got {tuple(voxel_mm)}")
    return sizes


def _finite(values: ArrayLike, what: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise GeometryError(f"the {what} should be finite numbers, got {array.tolist()}")
    return array
