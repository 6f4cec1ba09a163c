"""Values of an image as DICOM stores them: 16 bits, with a way back and a window to look through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 2**16 - 1
_AIR = -1024.0
_FINEST = 2.0**-4
_SOFT_TISSUE = (40.0, 400.0)
_SEEN = 99.9  # percentile that is white


@dataclass(frozen=True)
class StoredValues:
    """Whole numbers of 16 bits and what they mean.

    Parameters
    ----------
    pixels
        ``uint16``, or ``int16`` where a magnitude would lose a sign.
    slope, intercept
        A voxel is ``slope * pixels + intercept`` up to half a step.
    windows
        Centre and width, and what they are for; the first is what a viewer opens with. Of rescaled values.
    rescaled
        Whether viewers are to rescale, as those of CT do. Otherwise windows are of stored values.
    """

    pixels: NDArray[Any]
    slope: float
    intercept: float
    windows: tuple[tuple[float, float, str], ...]
    rescaled: bool


def store_hounsfield(values: NDArray[Any], *, soft_tissue: bool = True) -> StoredValues:
    """Store Hounsfield units from air upwards, or from their least value, by the finest power of two that fits.

    Steps of 1/16 HU reach up to 3071 HU, steps of 1 HU up to 64511. A viewer opens with a window for soft tissue, if
    asked to.
    """
    intercept = min(_AIR, float(np.floor(values.min())))
    reach = float(values.max()) - intercept
    slope = max(_FINEST, 2.0 ** np.ceil(np.log2(max(reach, 1.0) / _LARGEST)))
    pixels = np.round((values.astype(np.float64) - intercept) / slope).astype(np.uint16)
    windows = [(*_SOFT_TISSUE, "SOFT_TISSUE")] if soft_tissue else []
    return StoredValues(pixels, slope, intercept, (*windows, (*_window(values), "ALL")), rescaled=True)


def store_magnitude(values: NDArray[Any]) -> StoredValues:
    """Store values in arbitrary units over the whole range of 16 bits, zero as zero.

    Scanners and viewers take the numbers of MR as they are stored, so the window is of these.
    """
    is_signed = bool(values.min() < 0)
    largest = _LARGEST // 2 if is_signed else _LARGEST
    slope = float(np.abs(values).max()) / largest or 1.0
    pixels = np.round(values.astype(np.float64) / slope).astype(np.int16 if is_signed else np.uint16)
    return StoredValues(pixels, slope, 0.0, ((*_window(pixels), "ALL"),), rescaled=False)


def _window(values: NDArray[Any]) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, (100 - _SEEN, _SEEN)))
    low = min(low, 0.0) if values.min() < 0 else 0.0
    width = max(round(high - low), 2)
    return round(low) + width / 2, float(width)
