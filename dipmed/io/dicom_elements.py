"""Chosen elements of DICOM files, read without trust: nothing else is looked at, and no patient's data.

Private elements in files of implicit type come as bytes, so the types of all elements are said here.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dipmed.io.limits import PARSER_ERRORS, size_in_words
from dipmed.scan import DipmedError, FormatError

if TYPE_CHECKING:
    from pydicom import Dataset

_PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
"""Transfer syntaxes without compression, little-endian."""
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_PIXELS = 0x7FE00010
_BYTES = {"float": "<f4", "whole": "<u2"}


class Tag(NamedTuple):
    """An element: its number, its name, and what it holds: ``float``, ``whole``, ``decimal`` or ``text``."""

    number: int
    name: str
    kind: str

    def __str__(self) -> str:
        return f"({self.number >> 16:04X},{self.number & 0xFFFF:04X}) {self.name}"


Value = tuple[float, ...] | str
Values = Mapping[Tag, Value]

ROWS, COLUMNS = Tag(0x00280010, "Rows", "whole"), Tag(0x00280011, "Columns", "whole")
FRAMES = Tag(0x00280008, "NumberOfFrames", "decimal")
BITS, SIGN = Tag(0x00280100, "BitsAllocated", "whole"), Tag(0x00280103, "PixelRepresentation", "whole")


@dataclass(frozen=True)
class Frames:
    """The pictures of one file, ``(frame, row, column)`` as stored, and what is said about each."""

    values: tuple[Values, ...]
    pixels: NDArray[Any]


def has_element(path: Path, tag: Tag) -> bool:
    """Say whether a DICOM file has an element, in its frames or for all of them.

    Raises
    ------
    FormatError
        When the file is damaged.
    """
    with _errors(path):
        dataset = _open(path, [tag.number, _SHARED, _PER_FRAME], pixels=False)
        return any(tag in values for values in _values(dataset, (tag,), 1))


def read_frames(path: Path, tags: Sequence[Tag]) -> Frames:
    """Read pictures of 16 bits and the elements that are there.

    Raises
    ------
    FormatError
        When the file is damaged, compressed, or has fewer pixels than it says.
    """
    needed = (ROWS, COLUMNS, FRAMES, BITS, SIGN)
    with _errors(path):
        dataset = _open(path, [tag.number for tag in (*tags, *needed)] + [_SHARED, _PER_FRAME, _PIXELS], pixels=True)
        found = _own(dataset, needed)
        rows, columns, bits = (int(number(found, tag, path)) for tag in (ROWS, COLUMNS, BITS))
        n_frames = int(number(found, FRAMES, path)) if FRAMES in found else 1
        if bits != 16 or min(rows, columns, n_frames) < 1:
            raise FormatError(
                f"{path} should hold pictures of 16 bits, but says {bits} in {BITS} of {rows} x {columns}"
            )
        signed = SIGN in found and number(found, SIGN, path) == 1
        content = dataset[_PIXELS].value if _PIXELS in dataset else b""
        expected = 2 * n_frames * rows * columns
        if not isinstance(content, bytes) or len(content) < expected:
            has = size_in_words(len(content)) if isinstance(content, bytes) else "nothing plain"
            raise FormatError(f"{path} should hold {size_in_words(expected)} of pixels, but has {has}; it is truncated")
        pixels = np.frombuffer(content, "<i2" if signed else "<u2", expected // 2).reshape(n_frames, rows, columns)
        return Frames(_values(dataset, tags, n_frames), pixels)


def number(values: Values, tag: Tag, path: Path) -> float:
    """Return the one finite number that an element holds.

    Raises
    ------
    FormatError
        When it is missing, or holds something else.
    """
    return numbers(values, tag, path, 1)[0]


def numbers(values: Values, tag: Tag, path: Path, n: int) -> tuple[float, ...]:
    """Return the finite numbers that an element holds.

    Raises
    ------
    FormatError
        When it is missing, or does not hold ``n`` finite numbers.
    """
    if tag not in values:
        raise FormatError(f"{path} lacks {tag}")
    value = values[tag]
    if isinstance(value, str) or len(value) != n or not np.isfinite(value).all():
        raise FormatError(f"{path}: {tag} should hold {n} finite number{'s' if n > 1 else ''}")
    return value


def _open(path: Path, wanted: list[int], *, pixels: bool) -> Dataset:
    from pydicom.filereader import dcmread, read_file_meta_info

    syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", _PLAIN[0]))
    if syntax not in _PLAIN:
        raise FormatError(f"{path} is compressed or big-endian ({syntax}); convert it to explicit little-endian")
    # from memory, so that no more is read than the file has, whatever lengths it claims
    content = io.BytesIO(path.read_bytes())
    return dcmread(content, stop_before_pixels=not pixels, specific_tags=wanted)


def _values(dataset: Dataset, tags: Sequence[Tag], n_frames: int) -> tuple[Values, ...]:
    """What is said about each frame: by itself, for all frames, or by the file."""
    common = _own(dataset, tags)
    if _SHARED in dataset:
        for item in dataset[_SHARED].value:
            common |= _nested(item, tags)
    if _PER_FRAME not in dataset:
        return (common,) * n_frames
    items = dataset[_PER_FRAME].value
    if len(items) < n_frames:
        raise ValueError(f"{n_frames} frames, but {len(items)} items that describe them")
    return tuple({**common, **_nested(item, tags)} for item in items[:n_frames])


def _nested(item: Dataset, tags: Sequence[Tag]) -> dict[Tag, Value]:
    """Elements of an item, and of the items one step below it."""
    found: dict[Tag, Value] = {}
    for element in item:
        if element.VR == "SQ":
            for inner in element.value:
                found |= _own(inner, tags)
    return found | _own(item, tags)


def _own(dataset: Dataset, tags: Sequence[Tag]) -> dict[Tag, Value]:
    return {tag: _value(dataset[tag.number].value, tag.kind) for tag in tags if tag.number in dataset}


def _value(value: Any, kind: str) -> Value:
    if isinstance(value, bytes):
        if kind in _BYTES:
            return tuple(np.frombuffer(value, _BYTES[kind]).astype(float).tolist())
        value = value.rstrip(b" \0").decode("ascii")
        if kind == "decimal":
            value = value.split("\\")
    if kind == "text":
        return str(value).strip()
    if value is None:
        return ()
    listed = [value] if isinstance(value, (str, int, float)) else list(value)
    return tuple(float(entry) for entry in listed)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd values in elements that are not used
            yield
    except DipmedError:
        raise
    except Exception as error:
        from pydicom.errors import BytesLengthException, InvalidDicomError

        if not isinstance(error, (*PARSER_ERRORS, BytesLengthException, InvalidDicomError)):
            raise
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise FormatError(f"{path} cannot be read as DICOM; it is truncated or damaged ({reason})") from error
