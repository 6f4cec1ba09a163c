"""Reading of variable-length values from HDF5 files without the library's conversions, which damage can crash.

The library finds the records; the heap that their variable-length fields point into is read here, with every
address and size checked. Layouts are those of the HDF5 File Format Specification 3.0, sections III.E and IV.A.2.d.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.chunks import read_chunks
from dipmed.io.limits import array_bytes, check_expansion
from dipmed.scan import FormatError

if TYPE_CHECKING:
    import h5py

REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
"""How a file stores a variable-length value: its number of elements, and where in the heap they are."""

_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<HH4xQ")
_ALIGNMENT = 8
_USUAL_WIDTH = 8  # bytes of an address and of a length


class Heap:
    """The variable-length values of an HDF5 file.

    Parameters
    ----------
    file
        The open file.

    Raises
    ------
    FormatError
        When its addresses are not of the usual 8 bytes.
    """

    def __init__(self, file: h5py.File) -> None:
        self._path = Path(file.filename)
        if file.id.get_create_plist().get_sizes() != (_USUAL_WIDTH, _USUAL_WIDTH):
            raise FormatError(f"{self._path} has HDF5 addresses of an unusual width; write it again with 8 bytes")
        self._base = int(file.userblock_size)
        self._content = np.memmap(self._path, np.uint8, "r")
        self._objects: dict[int, dict[int, tuple[int, int]]] = {}
        self._parsed = 0

    def bytes_of(self, reference: np.void, itemsize: int) -> bytes:
        """Return the content of a variable-length value whose elements have ``itemsize`` bytes.

        Raises
        ------
        FormatError
            When the reference points to nothing, or to less than it claims.
        """
        size = int(reference["length"]) * itemsize
        if size == 0:
            return b""
        address, index = int(reference["address"]), int(reference["index"])
        if address not in self._objects:
            self._objects[address] = self._parse(address)
        start, available = self._objects[address].get(index, (0, 0))
        if size > available:
            raise self._damaged(f"a list of {size} bytes was stored in {available}")
        return self._content[start : start + size].tobytes()

    def _parse(self, address: int) -> dict[int, tuple[int, int]]:
        """Return where each object of a collection starts, and its size."""
        at = self._base + address
        if not 0 <= at <= self._content.size - _COLLECTION.size:
            raise self._damaged("a list lies beyond the end")
        signature, version, size = _COLLECTION.unpack(self._content[at : at + _COLLECTION.size].tobytes())
        end = at + size
        self._parsed += size
        # collections do not overlap, so all of them together are no larger than the file
        if signature != b"GCOL" or version != 1 or self._parsed > self._content.size or end > self._content.size:
            raise self._damaged("there is no list where one should be")
        objects = {}
        at += _COLLECTION.size
        while at + _OBJECT.size <= end:
            index, _, size = _OBJECT.unpack(self._content[at : at + _OBJECT.size].tobytes())
            at += _OBJECT.size
            if index == 0:  # the rest is free
                break
            if size > end - at:
                raise self._damaged("a list is longer than the space for it")
            objects[index] = (at, size)
            at += size + -size % _ALIGNMENT
        return objects

    def _damaged(self, how: str) -> FormatError:
        return FormatError(f"{self._path} is truncated or damaged, copy it again: {how}")


def read_references(dataset: h5py.Dataset) -> NDArray[Any]:
    """Read records without following their variable-length fields, which become `REFERENCE`.

    A data set of variable-length values alone becomes an array of `REFERENCE`.

    Raises
    ------
    FormatError
        When the records hold anything but numbers and variable-length values, or do not fit the file.
    """
    what = f"{dataset.file.filename}: {dataset.name}"
    layout = _stored_layout(dataset.id.get_type(), dataset.dtype, what)
    file_bytes = Path(dataset.file.filename).stat().st_size
    shape = tuple(int(n) for n in dataset.shape)
    check_expansion(array_bytes(shape, layout.itemsize), min(dataset.id.get_storage_size(), file_bytes), what)
    if dataset.chunks is not None:
        return read_chunks(dataset, what, file_bytes, layout)
    start, n_bytes = dataset.id.get_offset(), array_bytes(shape, layout.itemsize)
    if start is None or start + n_bytes > file_bytes:
        raise FormatError(f"{what} is not where it should be; the file is truncated or damaged, copy it again")
    with Path(dataset.file.filename).open("rb") as file:
        file.seek(start)
        return np.frombuffer(file.read(n_bytes), layout).reshape(shape)


def _stored_layout(stored: h5py.h5t.TypeID, dtype: np.dtype[Any], what: str) -> np.dtype[Any]:
    """Return how records lie in the file, as a NumPy type."""
    import h5py

    from dipmed.io.hdf5 import check_layout

    if dtype.hasobject and dtype.names is None:
        numbers = h5py.check_vlen_dtype(dtype)
        is_text = h5py.check_string_dtype(dtype) is not None
        if not is_text and (numbers is None or not h5py.h5t.py_create(numbers).equal(stored.get_super())):
            raise FormatError(f"{what} holds neither numbers nor text")
        return REFERENCE
    if not dtype.hasobject:
        check_layout(dtype, what)
        if not h5py.h5t.py_create(dtype, logical=True).equal(stored):
            raise FormatError(f"{what} holds numbers of an unusual kind")
        return dtype
    names = [stored.get_member_name(i).decode(errors="replace") for i in range(stored.get_nmembers())]
    formats = [_stored_layout(stored.get_member_type(i), dtype[name], what) for i, name in enumerate(names)]
    offsets = [stored.get_member_offset(i) for i in range(len(names))]
    layout = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": stored.get_size()})
    check_layout(layout, what)
    return layout
