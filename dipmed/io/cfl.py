"""BART's pair of files: ``.hdr``, a text with the sizes, and ``.cfl``, complex64 values with the first axis fastest.

The format is described at https://mrirecon.github.io/bart (Uecker et al., doi:10.5281/zenodo.592960).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.files import atomic_write_all
from dipmed.io.limits import array_bytes, size_in_words
from dipmed.scan import Complex64, FormatError

_VALUE = np.dtype("<c8")
_MOST_AXES = 16
_MOST_HEADER = 2**16


def cfl_paths(path: Path) -> tuple[Path, Path]:
    """Return the names of the data file and the header file; ``path`` is either of them or their common stem."""
    stem = path.with_suffix("") if path.suffix.lower() in (".cfl", ".hdr") else path
    return stem.with_name(stem.name + ".cfl"), stem.with_name(stem.name + ".hdr")


def read_cfl(path: Path) -> Complex64:
    """Read a pair of files as an array with BART's axes in BART's order, at least one, at most 16.

    Raises
    ------
    FormatError
        When one of the two is missing, the header is not one, or their sizes disagree.
    """
    data_path, header_path = cfl_paths(path)
    sizes = _read_sizes(header_path)
    expected = array_bytes(sizes, _VALUE.itemsize)
    try:
        found = data_path.stat().st_size
        if found != expected:
            raise FormatError(
                f"{header_path} says {' x '.join(map(str, sizes))} complex values, {size_in_words(expected)}, "
                f"but {data_path.name} has {size_in_words(found)}; the two do not belong together or were truncated"
            )
        values = np.fromfile(data_path, _VALUE, count=expected // _VALUE.itemsize)
    except OSError as error:
        raise _unreadable(data_path, error) from error
    return values.reshape(sizes, order="F")


def write_cfl(path: Path, array: NDArray[Any], *, force: bool = False) -> None:
    """Write an array with at most 16 axes as a pair of files, both or none.

    Raises
    ------
    OutputError
        When a file exists and ``force`` is not set, or cannot be written.
    """
    sizes = " ".join(str(n) for n in array.shape + (1,) * (_MOST_AXES - array.ndim))
    with atomic_write_all(cfl_paths(path), force=force) as (data_path, header_path):
        # not tofile, whose error does not say that the disk is full
        data_path.write_bytes(np.ascontiguousarray(array.T, _VALUE).data)
        header_path.write_text(f"# Dimensions\n{sizes}\n", encoding="ascii")


def _read_sizes(path: Path) -> tuple[int, ...]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_HEADER + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    # other sections, such as the command that made the file, may hold anything
    lines = [line.strip() for line in raw.decode("utf-8", errors="replace").splitlines()]
    if len(raw) > _MOST_HEADER or lines.count("# Dimensions") != 1:
        raise FormatError(f"{path} is no BART header: expected one line '# Dimensions' followed by the sizes")
    words = [*lines, ""][lines.index("# Dimensions") + 1].split()
    if not 1 <= len(words) <= _MOST_AXES or not all(w.isascii() and w.isdigit() and len(w) < 20 for w in words):
        raise FormatError(f"{path}: expected 1 to 16 sizes under '# Dimensions', got {' '.join(words)[:80]!r}")
    sizes = tuple(int(word) for word in words)
    if min(sizes) < 1:
        raise FormatError(f"{path}: a size is zero: {' '.join(words)}")
    while len(sizes) > 1 and sizes[-1] == 1:
        sizes = sizes[:-1]
    return sizes


def _unreadable(path: Path, error: OSError) -> FormatError:
    if isinstance(error, FileNotFoundError):
        return FormatError(f"{path} is missing; BART keeps an array in two files, .cfl and .hdr, side by side")
    return FormatError(f"{path} cannot be read: {error.strerror or error}")
