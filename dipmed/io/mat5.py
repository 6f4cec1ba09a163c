"""Numeric arrays in MATLAB's v5 files (``save -v6`` and ``-v7``), read without trust in the sizes that they declare.

The layout is MathWorks' "MAT-File Format", level 5. SciPy reads these files too, but does not tell which
variables are complex before it reads them, and allocates what the file asks for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.limits import check_expansion
from dipmed.scan import FormatError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_COMPLEX_FLAG = 0x0800
_HEAD_BYTES = 1024  # flags, sizes and name of an array, before its numbers


@dataclass(frozen=True)
class MatVariable:
    """A numeric array in the file, and where it lies: its element's first byte, length and packing."""

    name: str
    shape: tuple[int, ...]
    is_complex: bool
    dtype: str
    start: int
    n_bytes: int
    is_packed: bool


def list_variables(path: Path) -> dict[str, MatVariable]:
    """Return the numeric arrays at the top level of the file; structures, cells and texts are left out.

    Raises
    ------
    FormatError
        When it is no MATLAB v5 file or is truncated.
    """
    try:
        with path.open("rb") as file:
            order = _byte_order(file, path)
            found = [_describe(file, order, *element) for element in _elements(file, order, path)]
    except (struct.error, zlib.error, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return {variable.name: variable for variable in found if variable is not None}


def read_variable(path: Path, variable: MatVariable) -> NDArray[Any]:
    """Read one array of the file, in MATLAB's order of axes.

    Raises
    ------
    FormatError
        When its bytes are damaged, or do not fit the shape that it declares.
    """
    try:
        with path.open("rb") as file:
            order = _byte_order(file, path)
            file.seek(variable.start)
            content = file.read(variable.n_bytes)
        if variable.is_packed:
            content = _unpack(content, order, f"{path}: {variable.name}")
        return _numbers(content, order, variable, path)
    except (struct.error, zlib.error, OSError) as error:
        raise _damaged(path, error) from error


def join_complex(real: NDArray[Any], imaginary: NDArray[Any]) -> NDArray[Any]:
    """Return one complex array; a sum with ``1j`` would turn an infinite part into one that is no number."""
    joined = np.empty(real.shape, np.result_type(real.dtype, np.complex64))
    joined.real, joined.imag = real, imaginary
    return joined


def _byte_order(file: IO[bytes], path: Path) -> str:
    header = file.read(_HEADER)
    if header[126:128] not in (b"IM", b"MI") or 1 not in header[124:126]:
        raise FormatError(f"{path} is no MATLAB v5 file; save it with -v7 or -v7.3")
    return "<" if header[126:128] == b"IM" else ">"


def _elements(file: IO[bytes], order: str, path: Path) -> Iterator[tuple[int, int, bool]]:
    """Go through the top level: first byte of the content, length, and whether it is packed."""
    total = path.stat().st_size
    start = _HEADER
    while start < total:
        file.seek(start)
        kind, n_bytes = struct.unpack(order + "II", file.read(8))
        if start + 8 + n_bytes > total:
            raise FormatError(f"{path} ends in the middle of a variable; it was truncated, copy it again")
        if kind in (_MATRIX, _COMPRESSED):
            yield start + 8, n_bytes, kind == _COMPRESSED
        start += 8 + n_bytes


def _describe(file: IO[bytes], order: str, start: int, n_bytes: int, is_packed: bool) -> MatVariable | None:
    file.seek(start)
    head = file.read(min(n_bytes, _HEAD_BYTES))
    if is_packed:
        head = zlib.decompressobj().decompress(head, _HEAD_BYTES)[8:]
    if not head:
        return None  # an empty array
    _, flags_at, _, following = _element(head, order, 0)
    flags = struct.unpack_from(order + "I", head, flags_at)[0]
    if flags & 0xFF not in _CLASSES:
        return None
    _, at, length, following = _element(head, order, following)
    shape = struct.unpack_from(f"{order}{length // 4}i", head, at)
    _, at, length, _ = _element(head, order, following)
    name = head[at : at + length].decode("latin-1")
    if min(shape, default=0) < 1:
        return None
    return MatVariable(name, shape, bool(flags & _COMPLEX_FLAG), _CLASSES[flags & 0xFF], start, n_bytes, is_packed)


def _element(content: bytes, order: str, at: int) -> tuple[int, int, int, int]:
    """Return kind, first byte, length of the element at a position, and the position of the next one."""
    word = struct.unpack_from(order + "I", content, at)[0]
    if word >> 16:  # up to four bytes are kept in the tag itself
        return word & 0xFFFF, at + 4, word >> 16, at + 8
    length = struct.unpack_from(order + "I", content, at + 4)[0]
    return word, at + 8, length, at + 8 + (length + 7) // 8 * 8


def _unpack(packed: bytes, order: str, what: str) -> bytes:
    unpacker = zlib.decompressobj()
    kind, n_bytes = struct.unpack(order + "II", unpacker.decompress(packed, 8))
    if kind != _MATRIX:
        raise FormatError(f"{what} is damaged: a packed element that holds no array")
    check_expansion(n_bytes, len(packed), what)
    return unpacker.decompress(unpacker.unconsumed_tail, n_bytes)


def _numbers(content: bytes, order: str, variable: MatVariable, path: Path) -> NDArray[Any]:
    at = 0
    for _ in range(3):  # flags, sizes, name
        at = _element(content, order, at)[3]
    parts = []
    for _ in range(1 + variable.is_complex):
        kind, start, length, at = _element(content, order, at)
        # small whole numbers are kept in fewer bytes than their class has
        stored = np.dtype(order + _NUMBERS.get(kind, "V1"))
        expected = int(np.prod([int(n) for n in variable.shape], dtype=object)) * stored.itemsize
        if stored.kind == "V" or length != expected or start + length > len(content):
            raise FormatError(f"{path}: {variable.name} is damaged: its numbers do not fill {variable.shape}")
        values = np.frombuffer(content, stored, length // stored.itemsize, start)
        parts.append(values.astype(variable.dtype))
    array = join_complex(*parts) if variable.is_complex else parts[0]
    return array.reshape(variable.shape, order="F")


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} cannot be read as a MATLAB file; it is truncated or damaged ({error})")
