"""Reading of NumPy's files without pickle and without trust in the sizes that they declare."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from dipmed.io.limits import array_bytes, check_expansion
from dipmed.io.variables import Variable
from dipmed.scan import DipmedError, FormatError

_MOST_AXES = 16
_MOST_ARRAYS = 1000
_KINDS = "biufc"  # numbers and truth values; objects would need pickle, which runs code
# what the parsers of the header and of the archive raise on nonsense
_DAMAGE = (SyntaxError, TokenError, RecursionError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_DEFLATE = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npy(path: Path) -> NDArray[Any]:
    """Read the array of an ``.npy`` file.

    Raises
    ------
    FormatError
        When it is no such file, is truncated, or holds other things than numbers.
    """
    with _errors(path), path.open("rb") as file:
        return _read(file, path.stat().st_size, str(path))


def npz_variables(path: Path) -> dict[str, Variable]:
    """Describe the numeric arrays in an ``.npz`` file.

    Raises
    ------
    FormatError
        When it is no such file.
    """
    found = {}
    with _errors(path), zipfile.ZipFile(path) as archive:
        for name in archive.namelist()[:_MOST_ARRAYS]:
            if name.endswith(".npy"):
                with _open(archive, name, path) as file:
                    shape, dtype = _read_header(file, f"{path}: {name}")
                if dtype.kind in _KINDS:
                    found[name.removesuffix(".npy")] = Variable(shape, dtype.kind == "c")
    return found


def read_npz(path: Path, name: str) -> NDArray[Any]:
    """Read one array of an ``.npz`` file.

    Raises
    ------
    FormatError
        When there is none of this name, the file is damaged, or the array would need far more memory than the
        file explains.
    """
    with _errors(path), zipfile.ZipFile(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise FormatError(f"{path} has no array {name!r}, only {_listed(archive)}")
        with _open(archive, f"{name}.npy", path) as file:
            return _read(file, archive.getinfo(f"{name}.npy").file_size, f"{path}: {name}")


def _open(archive: zipfile.ZipFile, name: str, path: Path) -> IO[bytes]:
    member = archive.getinfo(name)
    if member.flag_bits & 1 or member.compress_type not in _DEFLATE:
        raise FormatError(f"{path}: {name} is encrypted or packed in an unusual way; save it with numpy.savez")
    check_expansion(member.file_size, min(member.compress_size, path.stat().st_size), f"{path}: {name}")
    return archive.open(member)


def _read_header(file: IO[bytes], what: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy_format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = npy_format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = npy_format.read_array_header_2_0(file)
    else:
        raise FormatError(f"{what} is of the .npy version {version[0]}.{version[1]}, which no plain array needs")
    if len(shape) > _MOST_AXES or any(n < 0 for n in shape):
        raise FormatError(f"{what} declares the impossible shape {shape}")
    return shape, dtype


def _read(file: IO[bytes], total_bytes: int, what: str) -> NDArray[Any]:
    """Read one array; ``total_bytes`` is the size of header and data together."""
    shape, dtype = _read_header(file, what)
    if dtype.kind not in _KINDS:
        raise FormatError(f"{what} holds {dtype.name!r} and not plain numbers; save a numeric array")
    expected = array_bytes(shape, dtype.itemsize)
    found = total_bytes - file.tell()
    if expected != found:
        raise FormatError(
            f"{what} declares {shape} values of {dtype}, {expected} bytes, but has {found}; it is truncated or damaged"
        )
    file.seek(0)
    return npy_format.read_array(file, allow_pickle=False)


def _listed(archive: zipfile.ZipFile) -> str:
    return ", ".join(name.removesuffix(".npy") for name in archive.namelist()[:20]) or "nothing"


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DipmedError:
        raise
    except (*_DAMAGE, OSError, ValueError, EOFError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise FormatError(f"{path} cannot be read as a NumPy file; it is truncated or damaged ({reason})") from error
