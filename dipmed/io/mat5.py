"""Arrays and structures of MATLAB's v5 files (``save -v6`` and ``-v7``), read without trust in their declared sizes.

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
_STRUCTURE, _CHARACTERS = 2, 4
_TEXTS = {2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_COMPLEX_FLAG = 0x0800
_MOST_FIELDS, _MOST_DEPTH = 200, 4
_HEAD_BYTES = 1024  # flags, sizes and name of an array, before its numbers


@dataclass(frozen=True)
class _Place:
    """Where an element lies in the file: its first byte, length, and whether it is packed."""

    start: int
    n_bytes: int
    is_packed: bool


@dataclass(frozen=True)
class MatVariable:
    """A numeric array in the file, and where it lies."""

    name: str
    shape: tuple[int, ...]
    is_complex: bool
    dtype: str
    place: _Place


@dataclass(frozen=True)
class MatStructure:
    """A single structure in the file, the names of its fields, and where it lies."""

    name: str
    fields: tuple[str, ...]
    place: _Place


def list_variables(path: Path) -> dict[str, MatVariable]:
    """Return the numeric arrays at the top level of the file; structures, cells and texts are left out.

    Raises
    ------
    FormatError
        When it is no MATLAB v5 file or is truncated.
    """
    found = (_as_variable(head, place) for _, head, _, place in _top_level(path))
    return {variable.name: variable for variable in found if variable is not None}


def list_structures(path: Path) -> dict[str, MatStructure]:
    """Return the structures at the top level of the file, those that are no arrays of structures.

    Raises
    ------
    FormatError
        When it is no MATLAB v5 file or is truncated.
    """
    found = {}
    for content, head, order, place in _top_level(path):
        if head.kind == _STRUCTURE and set(head.shape) == {1}:
            try:
                names = _field_names(content, order, head)[0]
            except (struct.error, ValueError) as error:
                raise _damaged(path, error) from error
            found[head.name] = MatStructure(head.name, names, place)
    return found


def read_structure(path: Path, structure: MatStructure) -> dict[str, Any]:
    """Read a structure: numeric arrays, texts and structures in it by their names, None for anything else.

    Raises
    ------
    FormatError
        When its bytes are damaged.
    """
    try:
        content, order = _content(path, structure.place, structure.name)
        return _fields(content, order, f"{path}: {structure.name}", 0)
    except (struct.error, zlib.error, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def read_variable(path: Path, variable: MatVariable) -> NDArray[Any]:
    """Read one array of the file, in MATLAB's order of axes.

    Raises
    ------
    FormatError
        When its bytes are damaged, or do not fit the shape that it declares.
    """
    try:
        content, order = _content(path, variable.place, variable.name)
        return _numbers(content, order, variable, f"{path}: {variable.name}")
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


@dataclass(frozen=True)
class _Head:
    """What an array says of itself before its content, which starts at `at`."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    at: int


def _top_level(path: Path) -> Iterator[tuple[bytes, _Head, str, _Place]]:
    """Go through the arrays: their first bytes, what these say, the order of bytes, and where the array lies."""
    try:
        with path.open("rb") as file:
            order = _byte_order(file, path)
            for start, n_bytes, is_packed in _elements(file, order, path):
                file.seek(start)
                content = file.read(min(n_bytes, _HEAD_BYTES))
                if is_packed:
                    content = zlib.decompressobj().decompress(content, _HEAD_BYTES)[8:]
                if content:  # or it is empty
                    yield content, _head(content, order), order, _Place(start, n_bytes, is_packed)
    except (struct.error, zlib.error, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _head(content: bytes, order: str) -> _Head:
    _, flags_at, _, following = _element(content, order, 0)
    flags = struct.unpack_from(order + "I", content, flags_at)[0]
    _, at, length, following = _element(content, order, following)
    shape = struct.unpack_from(f"{order}{length // 4}i", content, at)
    _, at, length, following = _element(content, order, following)
    name = content[at : at + length].decode("latin-1")
    return _Head(flags & 0xFF, bool(flags & _COMPLEX_FLAG), shape, name, following)


def _as_variable(head: _Head, place: _Place) -> MatVariable | None:
    if head.kind not in _CLASSES or min(head.shape, default=0) < 1:
        return None
    return MatVariable(head.name, head.shape, head.is_complex, _CLASSES[head.kind], place)


def _content(path: Path, place: _Place, name: str) -> tuple[bytes, str]:
    """Return the bytes of an array, unpacked, and their order."""
    with path.open("rb") as file:
        order = _byte_order(file, path)
        file.seek(place.start)
        content = file.read(place.n_bytes)
    return _unpack(content, order, f"{path}: {name}") if place.is_packed else content, order


def _field_names(content: bytes, order: str, head: _Head) -> tuple[tuple[str, ...], int]:
    """Return the names of a structure's fields, and where the first of their values starts."""
    _, at, _, following = _element(content, order, head.at)
    width = struct.unpack_from(order + "i", content, at)[0]
    _, at, length, following = _element(content, order, following)
    if width < 1 or length % width or length // width > _MOST_FIELDS:
        raise ValueError(f"a structure with {length} bytes of names")
    names = [content[start : start + width] for start in range(at, at + length, width)]
    return tuple(name.split(b"\0")[0].decode("latin-1") for name in names), following


def _fields(content: bytes, order: str, what: str, depth: int) -> dict[str, Any]:
    names, at = _field_names(content, order, _head(content, order))
    found = {}
    for name in names:
        kind, start, length, at = _element(content, order, at)
        if kind != _MATRIX or start + length > len(content):
            raise ValueError(f"the field {name!r} does not fit its structure")
        found[name] = _value(content[start : start + length], order, f"{what}.{name}", depth + 1)
    return found


def _value(content: bytes, order: str, what: str, depth: int) -> Any:
    if not content:
        return None
    head = _head(content, order)
    if head.kind == _STRUCTURE and set(head.shape) == {1} and depth < _MOST_DEPTH:
        return _fields(content, order, what, depth)
    if head.kind == _CHARACTERS:
        kind, at, length, _ = _element(content, order, head.at)
        encoding = _TEXTS.get(kind, "latin-1")
        if encoding == "utf-16":
            encoding += "-le" if order == "<" else "-be"
        return content[at : at + length].decode(encoding)
    variable = _as_variable(head, _Place(0, len(content), False))
    return None if variable is None else _numbers(content, order, variable, what)


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


def _numbers(content: bytes, order: str, variable: MatVariable, what: str) -> NDArray[Any]:
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
            raise FormatError(f"{what} is damaged: its numbers do not fill {variable.shape}")
        values = np.frombuffer(content, stored, length // stored.itemsize, start)
        parts.append(values.astype(variable.dtype))
    array = join_complex(*parts) if variable.is_complex else parts[0]
    return array.reshape(variable.shape, order="F")


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(f"{path} cannot be read as a MATLAB file; it is truncated or damaged ({error})")
