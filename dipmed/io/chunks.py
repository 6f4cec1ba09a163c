"""Reading of chunked HDF5 arrays without the HDF5 library's unpacking, which a damaged file can crash.

The library finds the chunks; what is in them is unpacked here, with every size checked. Layout and filters are
those of the HDF5 File Format Specification 3.0.
"""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import FormatError

if TYPE_CHECKING:
    import h5py

_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3
_CHECKSUM_BYTES = 4


def read_chunks(dataset: h5py.Dataset, what: str, file_bytes: int, layout: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Read a chunked array of plain numbers; chunks that were never written hold the fill value.

    With a ``layout``, elements are taken as they lie in the file, whatever the library makes of them, and zero
    where they were never written.

    Raises
    ------
    FormatError
        When a chunk is damaged, or packed otherwise than by gzip and shuffle.
    """
    filters = _filters(dataset, what)
    dtype = dataset.dtype if layout is None else layout
    array = np.zeros(dataset.shape, dtype)
    if layout is None:
        array[...] = dataset.fillvalue
    found: list[Any] = []
    dataset.id.chunk_iter(found.append)
    for info in found:
        if not 0 < info.size <= file_bytes:
            raise FormatError(f"{what} is damaged: one of its parts would have {info.size} bytes")
        start = info.chunk_offset
        if any(at % step or at >= n for at, step, n in zip(start, dataset.chunks, dataset.shape, strict=True)):
            raise FormatError(f"{what} is damaged: one of its parts lies at {start}")
        mask, content = dataset.id.read_direct_chunk(start)
        # a set bit says that the filter of this place was left out for this chunk
        used = [name for place, name in enumerate(filters) if not mask >> place & 1]
        values = _unpack(content, used, dataset.chunks, dtype, what)
        place = tuple(slice(at, at + n) for at, n in zip(start, dataset.chunks, strict=True))
        # chunks at the end reach beyond the array
        inside = array[place]
        inside[...] = values[tuple(slice(n) for n in inside.shape)]
    return array


def _filters(dataset: h5py.Dataset, what: str) -> list[int]:
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(place) for place in range(plist.get_nfilters())]
    for number, _, _, name in filters:
        if number not in (_DEFLATE, _SHUFFLE, _CHECKSUM):
            raise FormatError(f"{what} is packed by {name.decode(errors='replace')!r}; save it with gzip or unpacked")
    return [entry[0] for entry in filters]


def _unpack(
    content: bytes, filters: list[int], shape: tuple[int, ...], dtype: np.dtype[Any], what: str
) -> NDArray[Any]:
    """Undo the filters, last one first."""
    expected = math.prod(shape) * dtype.itemsize
    for number in reversed(filters):
        if number == _DEFLATE:
            content = zlib.decompressobj().decompress(content, expected + _CHECKSUM_BYTES)
        elif number == _CHECKSUM:
            content = content[:-_CHECKSUM_BYTES]
        else:
            content = _unshuffle(content, dtype.itemsize)
    if len(content) != expected:
        raise FormatError(f"{what} is damaged: one of its parts has {len(content)} bytes instead of {expected}")
    return np.frombuffer(content, dtype).reshape(shape)


def _unshuffle(content: bytes, itemsize: int) -> bytes:
    """Put the bytes of each number, which are stored by their place in the number, together again."""
    whole = len(content) // itemsize * itemsize
    numbers = np.frombuffer(content, np.uint8, whole).reshape(itemsize, -1).T
    return numbers.tobytes() + content[whole:]
