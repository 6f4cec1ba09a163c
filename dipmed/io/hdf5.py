"""Reading of HDF5 files that may be damaged or hostile: sizes are checked first, other files are never opened."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.limits import array_bytes, check_expansion
from dipmed.scan import DipmedError, FormatError

if TYPE_CHECKING:
    import h5py

_MOST_TEXT = 4 * 2**20


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
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, IndexError, MemoryError) as error:
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

    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise _elsewhere(group, name)
    item = group.get(name)
    if not isinstance(item, h5py.Dataset):
        return None
    if item.external or item.is_virtual:
        raise _elsewhere(group, name)
    return item


def read_array(dataset: h5py.Dataset) -> NDArray[Any]:
    """Read a whole numeric data set after its size was compared with what the file holds.

    Raises
    ------
    FormatError
        When it holds no plain numbers, or asks for more memory than the stored bytes explain.
    """
    what = f"{dataset.file.filename}: {dataset.name}"
    if dataset.shape is None or dataset.dtype.hasobject:
        raise FormatError(f"{what} holds no plain array of numbers")
    stored = min(dataset.id.get_storage_size(), Path(dataset.file.filename).stat().st_size)
    check_expansion(array_bytes(dataset.shape, dataset.dtype.itemsize), stored, what)
    return np.asarray(dataset[()])


def read_text(dataset: h5py.Dataset) -> str:
    """Read a string, stored as one value or as an array of one, in UTF-8.

    Raises
    ------
    FormatError
        When it is no string, several, or longer than any header.
    """
    what = f"{dataset.file.filename}: {dataset.name}"
    if dataset.shape is None or dataset.size != 1 or dataset.dtype.itemsize > _MOST_TEXT:
        raise FormatError(f"{what} should hold one string")
    value = dataset[()] if dataset.shape == () else dataset[()].item()
    text = value.decode("utf-8") if isinstance(value, bytes) else value
    if not isinstance(text, str) or len(text) > _MOST_TEXT:
        raise FormatError(f"{what} should hold one string")
    return text


def _elsewhere(group: h5py.Group, name: str) -> FormatError:
    return FormatError(f"{group.file.filename}: {name} lies in another file; copy it into this one")
