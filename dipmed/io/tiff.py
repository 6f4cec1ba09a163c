"""Stacks of pictures in TIFF files, read without trust in the sizes that they declare."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.limits import PARSER_ERRORS, array_bytes, check_expansion
from dipmed.scan import DipmedError, FormatError, ShapeError

if TYPE_CHECKING:
    from PIL.Image import Image

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ENDINGS = (".tif", ".tiff")
_MODES = {"L": "u1", "I;16": "<u2", "I;16B": ">u2", "I": "i4", "F": "f4"}
_PACKINGS = ("raw", "packbits", "tiff_lzw", "tiff_deflate", "tiff_adobe_deflate")
_MOST_PAGES = 2**16


def read_tiff(path: Path) -> NDArray[Any]:
    """Read all pages of a file, or of the TIFF files of a folder in the order of their names, ``(page, row, column)``.

    Raises
    ------
    FormatError
        When a file is damaged, in colour, packed in an unusual way, or needs far more memory than it explains.
    ShapeError
        When pages differ in size.
    """
    files = tiff_files(path) if path.is_dir() else [path]
    stacks = [_read(file) for file in files]
    shapes = {stack.shape[1:] for stack in stacks}
    if len(shapes) != 1:
        raise ShapeError(f"{path} holds pictures of different sizes: {', '.join(map(str, sorted(shapes)))}")
    return stacks[0] if len(stacks) == 1 else np.concatenate(stacks)


def tiff_files(folder: Path) -> list[Path]:
    """Return the TIFF files of a folder in the order of their names, numbers in them by their value."""
    found = [entry for entry in folder.iterdir() if entry.suffix.lower() in ENDINGS and entry.is_file()]
    return sorted(found, key=lambda entry: _by_number(entry.name))


def _by_number(name: str) -> list[tuple[int, str]]:
    """Split a name so that 10 comes after 9."""
    parts, digits = [], ""
    for character in [*name, ""]:
        if character.isascii() and character.isdigit():
            digits += character
            continue
        if digits:
            parts.append((int(digits), ""))
            digits = ""
        parts.append((-1, character))
    return parts


def _read(path: Path) -> NDArray[Any]:
    from PIL import Image

    with _errors(path), Image.open(path, formats=["TIFF"]) as picture:
        n_pages = int(getattr(picture, "n_frames", 1))
        dtype = _check(picture, path)
        shape = (n_pages, picture.height, picture.width)
        if n_pages > _MOST_PAGES:
            raise FormatError(f"{path} has {n_pages} pages, more than any scan has views")
        check_expansion(array_bytes(shape, dtype.itemsize), path.stat().st_size, str(path))
        stack = np.empty(shape, dtype)
        for page in range(n_pages):
            picture.seek(page)
            if _check(picture, path) != dtype or (picture.height, picture.width) != shape[1:]:
                raise ShapeError(f"{path}: page {page + 1} differs from the first one in size or kind of numbers")
            stack[page] = np.asarray(picture)
        return stack


def _check(picture: Image, path: Path) -> np.dtype[Any]:
    """Return the kind of numbers of the present page."""
    if picture.mode not in _MODES:
        raise FormatError(f"{path} should hold one number for each pixel, but is {picture.mode}")
    packing = picture.info.get("compression", "raw")
    if packing not in _PACKINGS:
        raise FormatError(f"{path} is packed by {packing}; save it unpacked, or with LZW or deflate")
    return np.dtype(_MODES[picture.mode])


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, which is not used
            yield
    except DipmedError:
        raise
    except Exception as error:
        from PIL.Image import DecompressionBombError

        if not isinstance(error, (*PARSER_ERRORS, DecompressionBombError)):
            raise
        reason = str(error).partition("\n")[0][:200]
        raise FormatError(f"{path} cannot be read as TIFF; it is truncated or damaged ({reason})") from error
