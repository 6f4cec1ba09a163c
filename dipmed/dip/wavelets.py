"""Shrinkage in an orthogonal periodic wavelet basis, over any number of trailing axes."""

from __future__ import annotations

import torch
from torch import Tensor

# Daubechies' filter of four taps, orthogonal with two vanishing moments (doi:10.1002/cpa.3160410705)
_ROOT3 = 3**0.5
_LOW = tuple(tap / (4 * 2**0.5) for tap in (1 + _ROOT3, 3 + _ROOT3, 3 - _ROOT3, 1 - _ROOT3))
_HIGH = tuple((-1) ** k * tap for k, tap in enumerate(reversed(_LOW)))


def shrink_details(x: Tensor, threshold: float, levels: int, ndim: int) -> Tensor:
    """Bring all detail coefficients nearer to zero by ``threshold``, the proximal map of their l1 norm.

    Parameters
    ----------
    x
        ``(..., x, y[, z])``; the last ``ndim`` sizes are multiples of ``2**levels``.
    threshold
        In the units of ``x``.
    levels
        How often the low band is split again.
    """
    if levels == 0:
        return x
    low, *details = analyse(x, ndim)
    low = shrink_details(low, threshold, levels - 1, ndim)
    return synthesise([low, *(soft_threshold(detail, threshold) for detail in details)], ndim)


def soft_threshold(x: Tensor, threshold: float) -> Tensor:
    """Shrink magnitudes by ``threshold``, keep phases."""
    return x * (1 - threshold / x.abs().clamp(min=threshold))


def analyse(x: Tensor, ndim: int) -> list[Tensor]:
    """Split the last ``ndim`` axes into ``2**ndim`` bands of half the size, the lowest first."""
    bands = [x]
    for axis in range(-ndim, 0):
        low, high = [], []
        for band in bands:
            low.append(_filter_down(band, _LOW, axis))
            high.append(_filter_down(band, _HIGH, axis))
        bands = low + high
    return bands


def synthesise(bands: list[Tensor], ndim: int) -> Tensor:
    """The inverse and the adjoint of `analyse`."""
    for axis in reversed(range(-ndim, 0)):
        half = len(bands) // 2
        bands = [
            _filter_up(low, _LOW, axis) + _filter_up(high, _HIGH, axis)
            for low, high in zip(bands[:half], bands[half:], strict=True)
        ]
    return bands[0]


def _filter_down(x: Tensor, taps: tuple[float, ...], axis: int) -> Tensor:
    # even and odd samples apart, so that no filtered sample is computed to be thrown away
    even, odd = x.unfold(axis, 2, 2).unbind(-1)
    return sum(
        (tap * (odd if k % 2 else even).roll(-(k // 2), axis) for k, tap in enumerate(taps)),
        start=torch.zeros_like(even),
    )


def _filter_up(x: Tensor, taps: tuple[float, ...], axis: int) -> Tensor:
    even = sum((tap * x.roll(k, axis) for k, tap in enumerate(taps[0::2])), start=torch.zeros_like(x))
    odd = sum((tap * x.roll(k, axis) for k, tap in enumerate(taps[1::2])), start=torch.zeros_like(x))
    return torch.stack([even, odd], axis).flatten(axis - 1, axis)
