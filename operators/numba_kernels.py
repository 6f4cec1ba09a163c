"""Functions compiled by numba, shared out over threads; imported by the modules of such functions alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar, cast

import numba
import torch

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def compiled(function: Kernel) -> Kernel:
    """Compile without the interpreter's lock, kept on disk where the folder can be written to."""
    try:
        kernel: Any = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no place for the cache
        kernel = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(Kernel, kernel)


def share(n: int, step: int, kernel: Callable[..., Any], *arguments: Any) -> None:
    """Call a kernel for all parts of a range, over as many threads as torch uses."""
    starts = range(0, n, step)
    n_threads = min(torch.get_num_threads(), len(starts))
    if n_threads == 1:
        kernel(0, n, *arguments)
        return
    pool = _pool(torch.get_num_threads())
    for done in [pool.submit(kernel, start, min(start + step, n), *arguments) for start in starts]:
        done.result()


@cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(n_threads, "numba-kernel")


# threads do not live on in a forked process, which would wait for them for ever
os.register_at_fork(after_in_child=_pool.cache_clear)
