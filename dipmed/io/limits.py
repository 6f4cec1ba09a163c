"""Bounds on what a file may ask for, checked before memory is allocated."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

from dipmed.scan import FormatError

PARSER_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,  # which an unknown feature is as well
    SyntaxError,
    MemoryError,
    EOFError,
    struct.error,
)
"""What libraries for file formats raise on damaged files, besides exceptions of their own."""

_FREE_BYTES = 16 * 2**20
_MOST_EXPANSION = 200  # k-space with many unsampled zeros packs about 20 fold, deflate reaches 1032


def check_expansion(claimed_bytes: int, stored_bytes: int, what: str) -> None:
    """Refuse to read an array that would need far more memory than its file explains.

    Parameters
    ----------
    claimed_bytes
        Size of the array in memory as the file declares it.
    stored_bytes
        Bytes that hold it in the file, packed or not.
    what
        Name of the array for the message, e.g. ``"scan.h5: kspace"``.

    Raises
    ------
    FormatError
        When the two cannot belong together: the file is truncated, damaged or made to fill the memory.
    """
    if claimed_bytes > _FREE_BYTES + _MOST_EXPANSION * stored_bytes:
        raise FormatError(
            f"{what} asks for {size_in_words(claimed_bytes)} but only {size_in_words(stored_bytes)} of the file hold "
            "it; the file is truncated or damaged, copy it again"
        )


def array_bytes(shape: Sequence[int], itemsize: int) -> int:
    """Return the bytes of an array, in numbers that cannot overflow."""
    return math.prod(int(n) for n in shape) * int(itemsize)


def size_in_words(n_bytes: int) -> str:
    """Return a size for a message: ``"3.4 MiB"``."""
    for unit, factor in (("EiB", 60), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if n_bytes >= 2**factor:
            return f"{n_bytes / 2**factor:.3g} {unit}"
    return f"{n_bytes} bytes"
