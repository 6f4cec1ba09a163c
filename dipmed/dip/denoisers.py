"""Denoisers that nothing was trained for: non-local means, and wavelets shifted at random."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from dipmed.dip.wavelets import shrink_details
from dipmed.nets import crop_to, pad_to_multiple

_SEARCH = {2: 5, 3: 2}
_PATCH = {2: 2, 3: 1}
"""Radii of the search window and of the patches, by dimension."""

_MAX_LEVELS = 4


def non_local_means(x: Tensor, strength: float, ndim: int) -> Tensor:
    """Average each pixel with those whose surroundings look alike.

    Two pixels share ``exp(−d / strength²)`` of each other, where d is the mean squared difference of the patches around
    them. Edges are periodic: patches across them count where they truly are alike
    (A. Buades, B. Coll, J.-M. Morel, 2005, doi:10.1109/CVPR.2005.38).

    Parameters
    ----------
    x
        ``(1, set, x, y[, z])``, real or complex; the sets are weighted alike.
    strength
        In the units of ``x``.
    ndim
        2 or 3.
    """
    axes = tuple(range(-ndim, 0))
    pool = functional.avg_pool2d if ndim == 2 else functional.avg_pool3d
    radius = _PATCH[ndim]
    total, weights = x.clone(), torch.ones_like(x.real)
    for offset in _half_window(_SEARCH[ndim], ndim):
        back = [-step for step in offset]
        squares = (x - x.roll(offset, axes)).abs().square().mean(1, keepdim=True)
        distance = pool(functional.pad(squares, [radius] * 2 * ndim, mode="circular"), 2 * radius + 1, 1)
        alike = torch.exp(-distance / strength**2)
        # each pair of pixels is compared once, and counts for both
        total += alike * x.roll(offset, axes) + alike.roll(back, axes) * x.roll(back, axes)
        weights += alike + alike.roll(back, axes)
    return total / weights


def shifted_wavelets(x: Tensor, threshold: float, ndim: int, generator: torch.Generator) -> Tensor:
    """Shrink wavelet coefficients in a basis that is shifted at random.

    Over many calls the shifts average the block pattern of one basis away (R. Coifman, D. Donoho, 1995,
    doi:10.1007/978-1-4612-2544-7_9).

    Parameters
    ----------
    x
        ``(..., x, y[, z])``, real or complex.
    threshold
        In the units of ``x``.
    ndim
        2 or 3.
    generator
        Of the shifts.
    """
    shape = tuple(x.shape[-ndim:])
    axes = tuple(range(-ndim, 0))
    levels = min(_MAX_LEVELS, *(max(0, n.bit_length() - 3) for n in shape))
    shifts = torch.randint(0, 2**levels, (ndim,), generator=generator, device=generator.device).tolist()
    padded = pad_to_multiple(x, ndim * (2**levels,))
    shrunk = shrink_details(padded.roll(shifts, axes), threshold, levels, ndim)
    return crop_to(shrunk.roll([-shift for shift in shifts], axes), shape)


def _half_window(radius: int, ndim: int) -> Iterator[tuple[int, ...]]:
    """One of each two opposite steps within a window, none of length zero."""
    for offset in product(range(-radius, radius + 1), repeat=ndim):
        if offset > (0,) * ndim:
            yield offset
