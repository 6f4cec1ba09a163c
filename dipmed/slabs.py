"""Overlapping slabs of a volume, and how their images become one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Range = tuple[int, int]
"""First slice and the one after the last."""

SMALLEST = 8
"""Slices of a slab: with fewer, most of it is border, where a network in three dimensions has one neighbour alone."""

_OVERLAP = 4
"""Of the slices of a slab, one in so many is shared with the next one, and two at least."""


def slab_ranges(n_slices: int, size: int) -> list[Range]:
    """Cover slices with slabs of one size, at most ``size``, that overlap by a quarter or more.

    Raises
    ------
    ValueError
        When a slab would have fewer than two slices.
    """
    if size < 2:
        raise ValueError(f"a slab has at least two slices, got {size}")
    if size >= n_slices:
        return [(0, n_slices)]
    overlap = min(size - 1, max(2, size // _OVERLAP))
    number = math.ceil((n_slices - overlap) / (size - overlap))
    # no larger than that number needs, and evenly along the volume
    size = math.ceil((n_slices + (number - 1) * overlap) / number)
    firsts = [round(index * (n_slices - size) / (number - 1)) for index in range(number)]
    return [(first, first + size) for first in firsts]


def slab_weights(ranges: Sequence[Range]) -> list[Tensor]:
    """Weight of each slice of each slab, ``(z,)``: smooth ramps in the overlaps, and one in sum for every slice."""
    windows = [_window(ranges, index) for index in range(len(ranges))]
    total = torch.zeros(ranges[-1][1], dtype=torch.float64)
    for (first, end), window in zip(ranges, windows, strict=True):
        total[first:end] += window
    return [(window / total[first:end]).float() for (first, end), window in zip(ranges, windows, strict=True)]


def blend(images: Sequence[Tensor], ranges: Sequence[Range]) -> Tensor:
    """Join the images of slabs, ``(..., z)``, to that of the volume: the weighted mean where they overlap."""
    volume = images[0].new_zeros((*images[0].shape[:-1], ranges[-1][1]))
    for image, (first, end), weights in zip(images, ranges, slab_weights(ranges), strict=True):
        volume[..., first:end] += image * weights.to(image.device)
    return volume


def _window(ranges: Sequence[Range], index: int) -> Tensor:
    """Rise and fall as squared sines, which add to one where two slabs meet."""
    first, end = ranges[index]
    z = torch.arange(first, end, dtype=torch.float64) + 0.5
    window = torch.ones_like(z)
    if index > 0:
        shared = ranges[index - 1][1] - first
        window *= torch.sin(math.pi / 2 * ((z - first) / shared).clamp(max=1)).square()
    if index < len(ranges) - 1:
        shared = end - ranges[index + 1][0]
        window *= torch.sin(math.pi / 2 * ((end - z) / shared).clamp(max=1)).square()
    return window
