"""DICOM images in folders, and which of them are one series; nothing is read but the elements that are asked for."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dipmed.io.limits import array_bytes, check_expansion
from dipmed.scan import DipmedError, FormatError

if TYPE_CHECKING:
    from pydicom import Dataset

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DIRECTORY = "1.2.840.10008.1.3.10"
_MOST_LISTED = 10
_LONGEST_TEXT = 64
SIZE_TAGS = ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated")
SERIES_TAGS = ("SeriesInstanceUID", "SeriesNumber", "Modality")

Image = tuple[Path, "Dataset"]
"""A file and its chosen elements."""


def dicom_images(path: Path, tags: Sequence[str]) -> tuple[list[Image], int]:
    """Read chosen elements of a DICOM image, or of all those in a folder, and count the folder's other files.

    Raises
    ------
    FormatError
        When there is none, or one is damaged, in colour or says an impossible size.
    """
    wanted = [*SIZE_TAGS, *SERIES_TAGS, *tags]
    images: list[Image] = []
    skipped = 0
    for file in _files(path):
        with reading(file):
            if not _is_image(file):
                skipped += 1
                continue
            images.append((file, _header(file, wanted)))
    if not images:
        raise FormatError(f"{path} holds no DICOM images; expected one file for each slice of a series")
    return images, skipped


def choose_series(images: list[Image], series: str | None, where: Path) -> list[Image]:
    """Return the images of one series: the only one, or that with this number or UID.

    Raises
    ------
    FormatError
        When there are several to choose from, or none is so called. The message lists them by what names no person.
    """
    by_uid: dict[str, list[Image]] = {}
    for image in images:
        by_uid.setdefault(_text(image[1], "SeriesInstanceUID"), []).append(image)
    if series is None:
        found = list(by_uid)
    else:
        found = [uid for uid, own in by_uid.items() if series in (uid, _text(own[0][1], "SeriesNumber"))]
    if len(found) == 1:
        return by_uid[found[0]]
    listed = "; ".join(_described(uid, by_uid[uid]) for uid in list(by_uid)[:_MOST_LISTED])
    more = f"; and {len(by_uid) - _MOST_LISTED} more" if len(by_uid) > _MOST_LISTED else ""
    wish = "" if series is None else f", {len(found) or 'none'} of them called {series}"
    raise FormatError(f"{where} holds {len(by_uid)} series{wish}; choose one by UID with --series: {listed}{more}")


@contextmanager
def reading(path: Path, *, private: bool = False) -> Iterator[None]:
    """Turn what pydicom raises on damaged files into one error, without its words if those could name a person."""
    from pydicom.config import disable_value_validation
    from pydicom.errors import BytesLengthException

    damage = (OSError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)
    unreadable = (NotImplementedError, RuntimeError, RecursionError, struct.error, MemoryError)
    try:
        # pydicom warns of values that break the standard, and writes them into its log
        with warnings.catch_warnings(), disable_value_validation():
            warnings.simplefilter("ignore")
            yield
    except DipmedError:
        raise
    except (*damage, *unreadable, BytesLengthException) as error:
        reason = type(error).__name__ if private else " ".join(str(error).split())[:200]
        raise FormatError(
            f"{path} cannot be read as DICOM: it is damaged, or packed in a way that needs another program to unpack "
            f"it, e.g. gdcmconv --raw ({reason})"
        ) from (None if private else error)


def _files(path: Path) -> list[Path]:
    try:
        return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from error


def _is_image(path: Path) -> bool:
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


def _header(path: Path, tags: list[str]) -> Dataset:
    from pydicom import dcmread

    header = dcmread(path, stop_before_pixels=True, specific_tags=list(tags))
    for _ in header.iterall():  # pydicom decodes an element when it is looked at: better here than anywhere later
        pass
    if "Rows" not in header or "Columns" not in header:
        raise FormatError(f"{path} holds no picture, or is truncated; expected slices in DICOM files")
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise FormatError(f"{path} is a colour picture; expected one number for each pixel")
    shape = int(header.get("NumberOfFrames") or 1), int(header.Rows), int(header.Columns)
    bits = int(header.get("BitsAllocated", 0))
    if min(shape) < 1 or bits not in (8, 16, 32):
        raise FormatError(f"{path} has an impossible header: {shape} pixels of {bits} bits")
    check_expansion(array_bytes(shape, bits // 8), path.stat().st_size, str(path))
    return header


def _described(uid: str, images: list[Image]) -> str:
    header = images[0][1]
    n_frames = sum(int(image.get("NumberOfFrames") or 1) for _, image in images)
    number, modality = _text(header, "SeriesNumber") or "none", _text(header, "Modality")
    return f"{uid} (number {number}, {n_frames} {modality} pictures of {header.Rows} x {header.Columns})"


def _text(header: Dataset, name: str) -> str:
    value = header.get(name)
    text = "" if value is None else str(value)[:_LONGEST_TEXT]
    return "".join(character if character.isprintable() else "?" for character in text)
