"""Image volumes from DICOM: a series in a folder, one slice or many a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.dicom_files import SIZE_TAGS, Image, choose_series, dicom_images, reading
from dipmed.io.dicom_frames import FRAME_TAGS, Frame, frames_of
from dipmed.io.dicom_packed import check_packed_sizes
from dipmed.patient import SliceStack, stack_slices
from dipmed.scan import FormatError, GeometryError, ImageVolume

if TYPE_CHECKING:
    from pydicom import Dataset

_PIXEL_TAGS = ("PhotometricInterpretation", "BitsStored", "HighBit", "PixelRepresentation")

_UNEQUAL = 0.05
"""Of the distance between slices: more than that is no rounding of positions."""

_SLANTED = 0.01
"""Shift of slices in their plane, in distances between them."""

_SAME_PLACE_MM = 1e-3


@dataclass(frozen=True)
class DicomSeries:
    """A volume, the modality that the files name (``"CT"``, ``"MR"``), and what was left out or assumed."""

    volume: ImageVolume
    modality: str
    notes: tuple[str, ...]


def read_series(path: Path, series: str | None = None) -> DicomSeries:
    """Read a series of slices, sorted along their normal, rescaled as each file says.

    The voxel axes are along the rows of the pictures, down their columns, and along the normal of the slices. Pictures
    of the same places at other times, acquisitions or echoes are frames. Files that are no DICOM images are passed
    over.

    Parameters
    ----------
    path
        A folder, or a file with many frames.
    series
        Number or UID of the series to take of several.

    Raises
    ------
    FormatError
        When there is no series or several, a file is damaged or in colours, or slices differ in size or direction.
    GeometryError
        When slices are missing, lie at one place or shift against each other, as with a tilted gantry.
    """
    found, skipped = dicom_images(path, FRAME_TAGS)
    images = choose_series(found, series, path)
    _check_alike(images, path)
    with reading(path):
        frames = [frame for file, header in images for frame in frames_of(file, header)]
    header = images[0][1]
    stacks = [_place(part, header, path) for part in _split(frames)]
    stack, order = stacks[0][0], [frame for _, ordered in stacks for frame in ordered]
    if any(np.abs(other.affine - stack.affine).max() > _SAME_PLACE_MM for other, _ in stacks):
        raise GeometryError(f"the frames in {path} lie at different places")
    data = _fill(order, dict(images), path)
    if len(stacks) > 1:
        data = data.reshape(*data.shape[:2], -1, len(stacks), order="F")
    notes = _notes(frames, skipped, len(found) - len(images))
    return DicomSeries(ImageVolume(data, stack.affine), str(header.get("Modality", "")), notes)


def _notes(frames: list[Frame], skipped: int, others: int) -> tuple[str, ...]:
    notes = []
    if len(frames) == 1 and frames[0].thickness_mm is None:
        notes.append("The files do not say how thick the slice is: 1 mm was assumed.")
    if skipped:
        notes.append(f"{skipped} other files in the folder are no DICOM images and were passed over.")
    if others:
        notes.append(f"{others} files of other series were passed over.")
    return tuple(notes)


def _check_alike(images: list[Image], path: Path) -> None:
    for name in ("Modality", "Rows", "Columns"):
        values = {str(header.get(name)) for _, header in images}
        if len(values) > 1:
            raise FormatError(f"the slices in {path} differ in {name}: {', '.join(sorted(values)[:4])}")


def _split(frames: list[Frame]) -> list[list[Frame]]:
    """Pictures of the same places into one list each, if time, acquisition or echo tell them apart."""
    n_places = _count_places(frames)
    for kind in range(len(frames[0].marks)):
        groups: dict[float | None, list[Frame]] = {}
        for frame in frames:
            groups.setdefault(frame.marks[kind], []).append(frame)
        parts = list(groups.values())
        if None not in groups and len(parts) > 1 and len(parts) * n_places == len(frames):
            values = sorted(value for value in groups if value is not None)
            if all(len(part) == n_places == _count_places(part) for part in parts):
                return [groups[value] for value in values]
    return [frames]


def _count_places(frames: list[Frame]) -> int:
    return len({tuple(np.round(frame.corner / _SAME_PLACE_MM).tolist()) for frame in frames})


def _place(frames: list[Frame], header: Dataset, path: Path) -> tuple[SliceStack, list[Frame]]:
    """Order the slices and check that they pile up evenly, straight over each other."""
    for name, values in (
        ("direction", np.array([frame.orientation for frame in frames])),
        ("pixel spacing", np.array([frame.spacing_mm for frame in frames])),
    ):
        if np.abs(values - values[0]).max() > 1e-3:
            raise GeometryError(f"the slices in {path} differ in {name}; expected parallel slices of one size")
    row, column = frames[0].orientation[:3], frames[0].orientation[3:]
    normal = np.cross(row, column)
    down_mm, across_mm = (float(size) for size in frames[0].spacing_mm)
    shape = int(header.Columns), int(header.Rows)
    to_centre = row * across_mm * (shape[0] // 2) + column * down_mm * (shape[1] // 2)
    centres = np.array([frame.corner for frame in frames]) + to_centre
    thickness = frames[0].thickness_mm or 1.0
    stack = stack_slices(centres, (row, column, normal), (across_mm, down_mm, thickness), shape)
    _check_stack(centres[list(stack.order)], normal, path)
    return stack, [frames[number] for number in stack.order]


def _check_stack(centres: NDArray[np.float64], normal: NDArray[np.float64], path: Path) -> None:
    if len(centres) == 1:
        return
    steps = np.diff(centres, axis=0)
    gaps = steps @ normal
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > _UNEQUAL * usual:
        raise GeometryError(
            f"slices {worst} and {worst + 1} in {path} are {gaps[worst]:.3g} mm apart, others "
            f"{usual:.3g} mm: a slice is missing, or the spacing changes; expected an even spacing"
        )
    slant = float(np.linalg.norm(steps - gaps[:, None] * normal, axis=1).max()) / usual
    if slant > _SLANTED:
        raise GeometryError(
            f"the slices in {path} shift against each other by {slant:.3g} of their distance, as with a tilted "
            f"gantry ({np.degrees(np.arctan(slant)):.1f} degrees); resample them to a straight stack first"
        )


def _fill(frames: list[Frame], headers: dict[Path, Dataset], path: Path) -> NDArray[np.float32]:
    """The values of all pictures in their order, ``(column, row, picture)``, each rescaled as it says itself."""
    first = headers[frames[0].path]
    data = np.empty((int(first.Columns), int(first.Rows), len(frames)), dtype=np.float32)
    places: dict[Path, list[int]] = {}
    for place, frame in enumerate(frames):
        places.setdefault(frame.path, []).append(place)
    for file, stored in ((file, _stored(file, headers[file])) for file in places):
        for place in places[file]:
            frame = frames[place]
            with np.errstate(over="ignore", invalid="ignore"):  # refused below
                data[:, :, place] = (stored[frame.number] * frame.slope + frame.intercept).T
    if not np.isfinite(data).all():
        raise FormatError(f"{path}: rescaled voxels are no finite numbers")
    return data


def _stored(path: Path, header: Dataset) -> NDArray[Any]:
    """Pictures of a file as they are stored, ``(frame, row, column)``."""
    from pydicom import dcmread

    shape = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    with reading(path):
        dataset = dcmread(path, specific_tags=[*SIZE_TAGS, *_PIXEL_TAGS, "PixelData"])
        check_packed_sizes(dataset, shape)
        stored = dataset.pixel_array
    if stored.size != np.prod(shape):
        raise FormatError(f"{path} should hold {shape} pixels, but holds {stored.shape}")
    return stored.reshape(shape)
