"""The fully sampled centre of k-space; a module of its own because the fit needs it without sigpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

_REACH = 0.75
"""Cycles per field of view: samples one and a half apart leave gaps that the least-squares solution closes."""


def calibration_width(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the size of the fully sampled box around the centre of k-space, 0 along each axis when there is none.

    A cube is grown first and then each axis by itself, so lines give ``(all of x, number of lines)``.

    Parameters
    ----------
    mask
        ``(x, y[, z])``; a box of width w starts at index ``n // 2 - w // 2``.
    """

    def is_full(widths: list[int]) -> bool:
        box = tuple(slice(n // 2 - w // 2, n // 2 - w // 2 + w) for n, w in zip(mask.shape, widths, strict=True))
        return bool(mask[box].all())

    cube = _largest(lambda w: is_full([min(w, n) for n in mask.shape]), max(mask.shape))
    widths = [min(cube, n) for n in mask.shape]
    if cube:
        for axis, n in enumerate(mask.shape):
            others = widths[:axis], widths[axis + 1 :]
            widths[axis] = _largest(partial(lambda o, w: is_full([*o[0], w, *o[1]]), others), n)
    return tuple(widths)


def sampled_cells(trajectory: NDArray[np.floating], matrix: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which locations of the Cartesian grid have a sample of a trajectory close by, bool ``(x, y[, z])``.

    Parameters
    ----------
    trajectory
        Positions in cycles per field of view, ``(sample, dimension)``.
    matrix
        Of the image.
    """
    axes = [np.arange(n) - n // 2 for n in matrix]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    distance, _ = cKDTree(trajectory).query(grid, distance_upper_bound=_REACH)
    return np.asarray(distance <= _REACH)


def _largest(holds: Callable[[int], bool], limit: int) -> int:
    """Bisect for the largest number up to ``limit`` for which ``holds``, which is true up to it and false after."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low
