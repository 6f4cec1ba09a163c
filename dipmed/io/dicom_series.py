"""Image volumes from folders of DICOM files, one slice a file."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.limits import array_bytes, check_expansion
from dipmed.patient import SliceStack, stack_slices
from dipmed.scan import DipmedError, Float32, FormatError, GeometryError, ImageVolume

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"
_PLACE_TAGS = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing", "SliceThickness")
_PIXEL_TAGS = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames")
_STORAGE_TAGS = ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept")
_TAGS = ["SOPClassUID", "SeriesInstanceUID", "Modality", *_PLACE_TAGS, *_PIXEL_TAGS, *_STORAGE_TAGS]
"""All that is read of a file besides its pixels: nothing in it names a person."""

_UNEQUAL = 0.05
"""Of the distance between slices: more than that is no rounding of positions."""

_SLANTED = 0.01
"""Shift of slices in their plane, in distances between them."""


@dataclass(frozen=True)
class DicomSeries:
    """A volume, the modality that the files name (``"CT"``, ``"MR"``), and what was left out or assumed."""

    volume: ImageVolume
    modality: str
    notes: tuple[str, ...]


def read_series(folder: Path) -> DicomSeries:
    """Read the one series of slices in a folder, sorted along their normal, rescaled as each file says.

    The voxel axes are along the rows of the pictures, down their columns, and along the normal of the slices. Files
    that are no DICOM images are passed over.

    Raises
    ------
    FormatError
        When there is no series or several, a file is damaged or holds several frames or colours, or slices differ in
        size or direction.
    GeometryError
        When slices are missing, lie at one place or shift against each other, as with a tilted gantry.
    """
    files, skipped = _headers(folder)
    headers = [header for _, header in files]
    _check_alike(headers, folder)
    stack, notes = _place(headers, folder)
    first = headers[0]
    data = np.empty((first.Columns, first.Rows, len(files)), dtype=np.float32)
    for place, number in enumerate(stack.order):
        data[:, :, place] = _pixels(*files[number]).T
    if not np.isfinite(data).all():
        raise FormatError(f"{folder}: rescaled voxels are no finite numbers")
    if skipped:
        notes = (*notes, f"{skipped} other files in the folder are no DICOM images and were passed over.")
    return DicomSeries(ImageVolume(data, stack.affine), str(first.get("Modality", "")), notes)


def _headers(folder: Path) -> tuple[list[tuple[Path, Any]], int]:
    """Read all but the pixels of the folder's DICOM images; count the other files."""
    from pydicom import dcmread

    found, skipped = [], 0
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise FormatError(f"{folder} cannot be read: {error.strerror or error}") from error
    for path in paths:
        with _errors(path):
            if not _is_slice(path):
                skipped += 1
                continue
            header = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
            _check_header(header, path)
        found.append((path, header))
    if not found:
        raise FormatError(f"{folder} holds no DICOM images; expected one file for each slice of a series")
    return found, skipped


def _is_slice(path: Path) -> bool:
    """Tell DICOM files from others and from the index of a folder, and refuse those that are packed as a whole."""
    from pydicom.filereader import read_file_meta_info

    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return False
    meta = read_file_meta_info(path)
    if meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        return False
    if meta.get("TransferSyntaxUID") == _DEFLATED:
        raise FormatError(f"{path} is a deflated DICOM file; unpack it first, e.g. with dcmconv")
    return True


def _check_header(header: Any, path: Path) -> None:
    if "Rows" not in header or "Columns" not in header:
        raise FormatError(f"{path} holds no picture, or is truncated; expected one slice in each DICOM file")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise FormatError(f"{path} holds {header.NumberOfFrames} frames; expected one slice a file, split it first")
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise FormatError(f"{path} is a colour picture; expected one number for each pixel")
    shape = int(header.Rows), int(header.Columns)
    bits = int(header.get("BitsAllocated", 0))
    if min(shape) < 1 or bits not in (8, 16, 32):
        raise FormatError(f"{path} has an impossible header: {shape} pixels of {bits} bits")
    check_expansion(array_bytes(shape, bits // 8), path.stat().st_size, str(path))


def _check_alike(headers: list[Any], folder: Path) -> None:
    series = {str(header.get("SeriesInstanceUID")) for header in headers}
    if len(series) > 1:
        raise FormatError(f"{folder} holds {len(series)} series; put the files of one into a folder of their own")
    for name in ("Modality", "Rows", "Columns"):
        values = {str(header.get(name)) for header in headers}
        if len(values) > 1:
            raise FormatError(f"the slices in {folder} differ in {name}: {', '.join(sorted(values)[:4])}")


def _place(headers: list[Any], folder: Path) -> tuple[SliceStack, tuple[str, ...]]:
    """Order the slices and check that they pile up evenly, straight over each other."""
    orientations = np.array([_numbers(header, "ImageOrientationPatient", 6, folder) for header in headers])
    spacings = np.array([_numbers(header, "PixelSpacing", 2, folder) for header in headers])
    corners = np.array([_numbers(header, "ImagePositionPatient", 3, folder) for header in headers])
    for name, values in (("direction", orientations), ("pixel spacing", spacings)):
        if np.abs(values - values[0]).max() > 1e-3:
            raise GeometryError(f"the slices in {folder} differ in {name}; expected parallel slices of one size")
    row, column = orientations[0, :3], orientations[0, 3:]
    normal = np.cross(row, column)
    down_mm, across_mm = (float(size) for size in spacings[0])
    shape = int(headers[0].Columns), int(headers[0].Rows)
    centres = corners + row * across_mm * (shape[0] // 2) + column * down_mm * (shape[1] // 2)
    thickness, notes = _thickness(headers[0], folder)
    stack = stack_slices(centres, (row, column, normal), (across_mm, down_mm, thickness), shape)
    _check_stack(centres[list(stack.order)], normal, folder)
    return stack, notes if len(headers) == 1 else ()


def _thickness(header: Any, folder: Path) -> tuple[float, tuple[str, ...]]:
    """The distance to a next slice, were there one."""
    if header.get("SliceThickness"):
        return _numbers(header, "SliceThickness", 1, folder)[0], ()
    return 1.0, ("The files do not say how thick the slice is: 1 mm was assumed.",)


def _check_stack(centres: NDArray[np.float64], normal: NDArray[np.float64], folder: Path) -> None:
    if len(centres) == 1:
        return
    steps = np.diff(centres, axis=0)
    gaps = steps @ normal
    usual = float(np.median(gaps))
    worst = int(np.argmax(np.abs(gaps - usual)))
    if abs(gaps[worst] - usual) > _UNEQUAL * usual:
        raise GeometryError(
            f"slices {worst} and {worst + 1} in {folder} are {gaps[worst]:.3g} mm apart, others "
            f"{usual:.3g} mm: a slice is missing, or the spacing changes; expected an even spacing"
        )
    slant = float(np.linalg.norm(steps - gaps[:, None] * normal, axis=1).max()) / usual
    if slant > _SLANTED:
        raise GeometryError(
            f"the slices in {folder} shift against each other by {slant:.3g} of their distance, as with a tilted "
            f"gantry ({np.degrees(np.arctan(slant)):.1f} degrees); resample them to a straight stack first"
        )


def _pixels(path: Path, header: Any) -> Float32:
    """Values of a slice, ``(row, column)``, rescaled as its own header says."""
    from pydicom import dcmread

    with _errors(path):
        dataset = dcmread(path, specific_tags=[*_TAGS, "PixelData"])
        stored = dataset.pixel_array
        slope = 1.0 if header.get("RescaleSlope") is None else float(header.RescaleSlope)
        intercept = 0.0 if header.get("RescaleIntercept") is None else float(header.RescaleIntercept)
    if stored.shape != (header.Rows, header.Columns):
        raise FormatError(f"{path} should hold {header.Rows} x {header.Columns} pixels, but holds {stored.shape}")
    with np.errstate(over="ignore", invalid="ignore"):  # the caller refuses what is not finite
        return (stored * slope + intercept).astype(np.float32)


def _numbers(header: Any, name: str, n: int, folder: Path) -> list[float]:
    value = header.get(name)
    try:
        numbers = [float(part) for part in (value if n > 1 else [value])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != n or not np.isfinite(numbers).all():
        raise GeometryError(f"the slices in {folder} need {n} numbers as {name}, got {str(value)[:60]}")
    return numbers


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    damage = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)
    unreadable = (NotImplementedError, RuntimeError, RecursionError, struct.error, MemoryError)
    try:
        with warnings.catch_warnings():  # pydicom warns of values that break the standard
            warnings.simplefilter("ignore")
            yield
    except DipmedError:
        raise
    except (*damage, *unreadable) as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} cannot be read as DICOM: it is damaged, or packed in a way that needs another program to unpack "
            f"it, e.g. gdcmconv --raw ({reason})"
        ) from error
