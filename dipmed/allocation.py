"""What the process does with memory that is freed."""

from __future__ import annotations

import ctypes

# numbers of <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

_LARGEST_KEPT = 2**25
"""Bytes of an array above which it is given back at once; glibc takes no more."""

_KEPT = 2**30
"""Bytes at the end of the heap that stay with the process."""


def keep_freed_memory() -> None:
    """Keep freed memory for the next iteration, which takes as much again; for our commands, and workers on slices.

    Otherwise the system clears and maps the same pages in every iteration. Dask asks for the extreme of that, with a
    threshold of 65536 bytes for its workers, by which a fit of 90 x 108 pixels took 40 % longer. Does nothing where
    the C library has no ``mallopt``.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)
    mallopt(_TRIM_THRESHOLD, _KEPT)
