"""Where each picture of a DICOM file lies and how its values are scaled, of files with one picture or with many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import FormatError, GeometryError

if TYPE_CHECKING:
    from pydicom import Dataset

_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_GROUPS = {
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "ImagePositionPatient": "PlanePositionSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionNumber": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
}
"""Sequences that hold an element of one frame, or of all frames alike."""
_MARKS = (
    ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    ("AcquisitionNumber", "FrameAcquisitionNumber"),
    ("EchoNumbers", "EffectiveEchoTime"),
)
"""What tells pictures of one place apart: in files of one picture, and in those of many."""
_MAPPING = "RealWorldValueMappingSequence"
_SINGLE = tuple(name for name in _GROUPS if not name.startswith(("Temporal", "Frame", "Effective")))

FRAME_TAGS = (*_SINGLE, *(single for single, _ in _MARKS), _MAPPING, _SHARED, _PER_FRAME)
"""All that is read of a file besides its pixels and their size: nothing in it names a person."""


@dataclass(frozen=True)
class Frame:
    """One picture.

    Parameters
    ----------
    path, number
        Its file, and which one it is in there.
    orientation, corner
        DICOM's direction cosines of rows and columns, and the centre of the first pixel, LPS, mm.
    spacing_mm
        Between rows, and between columns.
    thickness_mm
        None where the file does not say.
    slope, intercept
        From stored values to the image's.
    marks
        What tells it from others at its place, None where the file does not say.
    """

    path: Path
    number: int
    orientation: NDArray[np.float64]
    corner: NDArray[np.float64]
    spacing_mm: NDArray[np.float64]
    thickness_mm: float | None
    slope: float
    intercept: float
    marks: tuple[float | None, ...]


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """Return the pictures of a file in their order.

    Raises
    ------
    FormatError
        When it has several pictures, but does not describe each.
    GeometryError
        When the place of a picture is missing or is no number.
    """
    n_frames = int(header.get("NumberOfFrames") or 1)
    own = header.get(_PER_FRAME)
    if own is None:
        if n_frames > 1:
            raise FormatError(f"{path} holds {n_frames} frames and does not say where each lies")
        return [_frame(path, 0, [header], nested=False)]
    shared = header.get(_SHARED) or []
    if len(own) != n_frames:
        raise FormatError(f"{path} should describe each of its {n_frames} frames, but describes {len(own)}")
    return [_frame(path, number, [item, *shared, header], nested=True) for number, item in enumerate(own)]


def _frame(path: Path, number: int, sources: list[Any], *, nested: bool) -> Frame:
    def values(name: str, n: int, default: list[float] | None = None) -> list[float]:
        found = _find(sources, name, nested)
        return default if found is None and default is not None else _numbers(found, name, n, path)

    thickness = values("SliceThickness", 1, [0.0])[0]
    slope, intercept = values("RescaleSlope", 1, [1.0])[0], values("RescaleIntercept", 1, [0.0])[0]
    if (slope, intercept) == (1.0, 0.0):
        slope, intercept = _real_world(sources)
    return Frame(
        path=path,
        number=number,
        orientation=np.array(values("ImageOrientationPatient", 6)),
        corner=np.array(values("ImagePositionPatient", 3)),
        spacing_mm=np.array(values("PixelSpacing", 2)),
        thickness_mm=thickness or None,
        slope=slope,
        intercept=intercept,
        marks=tuple(_mark(_find(sources, names[nested], nested)) for names in _MARKS),
    )


def _find(sources: list[Any], name: str, nested: bool) -> Any:
    """The element of the frame itself, or else of all frames; an empty one counts as none."""
    for source in sources:
        holders = source.get(_GROUPS[name]) or [] if nested else [source]
        for holder in holders:
            value = holder.get(name)
            if value is not None and value != "":
                return value
    return None


def _real_world(sources: list[Any]) -> tuple[float, float]:
    """The scaling to real values where there is exactly one; scanners of MR say it in place of a rescaling."""
    for source in sources:
        items = source.get(_MAPPING) or []
        if len(items) == 1 and "RealWorldValueSlope" in items[0]:
            item = items[0]
            return float(item.RealWorldValueSlope), float(item.get("RealWorldValueIntercept") or 0.0)
    return 1.0, 0.0


def _mark(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _numbers(value: Any, name: str, n: int, path: Path) -> list[float]:
    try:
        numbers = [float(part) for part in (value if n > 1 else [value])]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != n or not np.isfinite(numbers).all():
        count = f"{n} numbers" if n > 1 else "a number"
        raise GeometryError(f"{path} needs {count} as {name}, got {str(value)[:60]}")
    return numbers
