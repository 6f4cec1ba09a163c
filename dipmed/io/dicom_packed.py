"""Sizes that packed DICOM pictures say themselves: a program that unpacks them believes these and not DICOM's.

JPEG: ITU-T T.81, annex B; JPEG-LS: ITU-T T.87, annex C; JPEG 2000: ITU-T T.800, annex A.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom import Dataset

_START = b"\xff\xd8"
_START_2000 = b"\xff\x4f\xff\x51"
_NO_FRAMES = (0xC4, 0xC8, 0xCC)  # among the markers of frames, those of tables
_FRAMES = (*(marker for marker in range(0xC0, 0xD0) if marker not in _NO_FRAMES), 0xF7)
_SCAN = 0xDA
_RLE = "1.2.840.10008.1.2.5"


def check_packed_sizes(dataset: Dataset, shape: tuple[int, int, int]) -> None:
    """Check that packed pictures have the size that DICOM says, before memory is taken for what they would become.

    Parameters
    ----------
    dataset
        With its pixels, packed or not.
    shape
        Frames, rows and columns.

    Raises
    ------
    ValueError
        When one has another size, or does not say which.
    """
    from pydicom.encaps import generate_frames

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == _RLE:  # RLE does not say a size, and packs 64 fold at most
        return
    for picture in generate_frames(dataset.PixelData, number_of_frames=shape[0]):
        size = _packed_size(picture)
        if size != shape[1:]:
            raise ValueError(
                f"a picture of {size[0]} x {size[1]} pixels is packed where {shape[1]} x {shape[2]} are said"
            )


def _packed_size(picture: bytes) -> tuple[int, int]:
    """Rows and columns that a picture says itself."""
    if picture.startswith(_START_2000):
        right, low, left, top = struct.unpack_from(">4L", picture, 8)
        return low - top, right - left
    if not picture.startswith(_START):
        raise ValueError("a packed picture is neither JPEG nor JPEG 2000")
    place = 2
    while True:
        fill, marker, length = struct.unpack_from(">BBH", picture, place)
        if marker in _FRAMES:
            rows, columns = struct.unpack_from(">HH", picture, place + 5)
            return rows, columns
        if fill != 0xFF or marker == _SCAN:
            raise ValueError("a packed picture does not say its size")
        place += 2 + length
