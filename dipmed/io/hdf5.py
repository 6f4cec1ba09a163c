"""Reading of HDF5 files that may be damaged or hostile: sizes are checked first, other files are never opened."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.chunks import read_chunks
from dipmed.io.heap import Heap, read_references
from dipmed.io.limits import array_bytes, check_expansion
from dipmed.scan import DipmedError, FormatError

if TYPE_CHECKING:
    import h5py

_USUAL_SIZES = {"i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8, 16)}
_MOST_TEXT = 4 * 2**20
_MOST_SOFT_LINKS = 16


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file to read; whatever the HDF5 library says about it becomes a `FormatError`.

    Raises
    ------
    FormatError
        When the file cannot be opened, or when reading in the block fails.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except DipmedError:
        raise
    # the library reports damage by whichever of these its innermost call happens to raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, MemoryError, zlib.error) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(f"{path} cannot be read as HDF5; it is truncated or damaged ({reason})") from error


def find_dataset(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """Return a data set of a group, or None when there is none of that name.

    Raises
    ------
    FormatError
        When the data lie in another file, which might be any file of this computer.
    """
    import h5py

    item = _follow(group, name)
    if not isinstance(item, h5py.Dataset):
        return None
    if item.external or item.is_virtual:
        raise _elsewhere(group, name)
    return item


def find_group(group: h5py.Group, name: str) -> h5py.Group | None:
    """Return a group in a group, or None when there is none of that name.

    Raises
    ------
    FormatError
        When it lies in another file, which might be any file of this computer.
    """
    import h5py

    item = _follow(group, name)
    return item if isinstance(item, h5py.Group) else None


def _follow(group: h5py.Group, name: str) -> Any:
    """Go along a path link by link, because the library would open any file that a link on the way names."""
    import h5py

    here: Any = group
    parts, n_soft = name.split("/"), 0
    while parts:
        part = parts.pop(0)
        if part in ("", "."):
            continue
        if not isinstance(here, h5py.Group):
            return None
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise _elsewhere(group, name)
        if isinstance(link, h5py.SoftLink):
            n_soft += 1
            if n_soft > _MOST_SOFT_LINKS:
                raise FormatError(f"{group.file.filename}: {name} is a link that leads nowhere")
            parts = link.path.split("/") + parts
            here = here.file if link.path.startswith("/") else here
        elif link is None:
            return None
        else:
            here = here[part]
    return here


def read_array(dataset: h5py.Dataset) -> NDArray[Any]:
    """Read a whole numeric data set after its size was compared with what the file holds.

    Raises
    ------
    FormatError
        When it holds no plain numbers, or asks for more memory than the stored bytes explain.
    """
    what = f"{dataset.file.filename}: {dataset.name}"
    if dataset.shape is None or not is_plain(dataset.id.get_type(), dataset.dtype):
        raise FormatError(f"{what} holds no plain array of numbers")
    check_layout(dataset.dtype, what)
    file_bytes = Path(dataset.file.filename).stat().st_size
    stored = min(dataset.id.get_storage_size(), file_bytes)
    check_expansion(array_bytes(dataset.shape, dataset.dtype.itemsize), stored, what)
    if dataset.chunks is not None:
        return read_chunks(dataset, what, file_bytes)
    return np.asarray(dataset[()])


def is_plain(stored: h5py.h5t.TypeID, dtype: np.dtype[Any]) -> bool:
    """Say whether numbers are stored as NumPy has them in memory, so that the library converts nothing."""
    import h5py

    fields = [dtype] if dtype.names is None else [dtype[name] for name in dtype.names]
    if any(field.kind not in "biufc" for field in fields):
        return False
    return bool(h5py.h5t.py_create(dtype, logical=True).equal(stored))


def check_layout(dtype: np.dtype[Any], what: str) -> None:
    """Check that a record's fields lie beside each other and hold numbers of usual sizes, or lists of them.

    The library's conversions can write beyond the memory when a damaged file describes something else.

    Raises
    ------
    FormatError
        When a field reaches into another one or beyond the record, or a number has an odd size.
    """
    if dtype.subdtype is not None:
        check_layout(dtype.subdtype[0], what)
    elif dtype.names is not None:
        end = 0
        for field, offset, *_ in sorted((dtype.fields or {}).values(), key=lambda entry: entry[1]):
            if offset < end:
                raise FormatError(f"{what} is damaged: its fields overlap")
            end = offset + field.itemsize
            check_layout(field, what)
        if end > dtype.itemsize:
            raise FormatError(f"{what} is damaged: its fields do not fit its records")
    elif dtype.kind in "iufc" and dtype.itemsize not in _USUAL_SIZES[dtype.kind]:
        raise FormatError(f"{what} is damaged: it has numbers of {dtype.itemsize} bytes")


def read_text(dataset: h5py.Dataset) -> str:
    """Read a string, stored as one value or as an array of one, in UTF-8.

    Raises
    ------
    FormatError
        When it is no string, several, or longer than any header.
    """
    import h5py

    what = f"{dataset.file.filename}: {dataset.name}"
    kind = h5py.check_string_dtype(dataset.dtype)
    if dataset.shape is None or dataset.size != 1 or kind is None or (kind.length or 0) > _MOST_TEXT:
        raise FormatError(f"{what} should hold one string")
    if kind.length is None:
        reference = read_references(dataset).reshape(-1)[0]
        if reference["length"] > _MOST_TEXT:
            raise FormatError(f"{what} is longer than any header")
        value = Heap(dataset.file).bytes_of(reference, 1)
    else:
        value = np.asarray(dataset[()]).tobytes()
    return value.rstrip(b"\0").decode("utf-8")


def _elsewhere(group: h5py.Group, name: str) -> FormatError:
    return FormatError(f"{group.file.filename}: {name} lies in another file; copy it into this one")
