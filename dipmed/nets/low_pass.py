"""Fixed low-pass filters for up-sampling by two.

Each is a filter along one axis of the finer grid, where every second sample is zero before it. Its taps on even and on
odd positions sum to one each, so that constants pass unchanged and their image at the highest frequency vanishes.
Filters of chosen strength in place of nearest or linear interpolation: Y. Liu et al., ECCV 2024, arXiv:2312.09988.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import DipmedError


@dataclass(frozen=True)
class Kaiser:
    """A sinc that passes the frequencies of the coarser grid, in a Kaiser window.

    Parameters
    ----------
    size
        Taps, odd.
    beta
        Shape of the window: higher ones let less through beyond the transition, which becomes wider.
    """

    size: int = 11
    beta: float = 5.0

    def __post_init__(self) -> None:
        _check(self.size, self.beta >= 0, f"beta must not be negative, got {self.beta}")

    @cached_property
    def taps(self) -> tuple[float, ...]:
        """The weights, centre in the middle."""
        return _normalised(np.sinc(_positions(self.size) / 2) * np.kaiser(self.size, self.beta))


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian.

    Parameters
    ----------
    size
        Taps, odd.
    sigma
        Standard deviation in pixels of the finer grid; below about 0.5 it becomes linear interpolation.
    """

    size: int = 7
    sigma: float = 1.0

    def __post_init__(self) -> None:
        _check(self.size, self.sigma > 0, f"sigma must be positive, got {self.sigma}")

    @cached_property
    def taps(self) -> tuple[float, ...]:
        """The weights, centre in the middle."""
        # relative to the nearest sample of either phase, so that a narrow one does not underflow to nothing
        positions = np.abs(_positions(self.size))
        nearest = positions % 2
        return _normalised(np.exp((nearest**2 - positions**2) / (2 * self.sigma**2)))


LowPass = Kaiser | Gaussian


def _check(size: int, holds: bool, rule: str) -> None:
    if size < 3 or size % 2 == 0:
        raise DipmedError(f"a low-pass filter needs an odd number of taps from 3, got {size}")
    if not holds:
        raise DipmedError(f"of a low-pass filter, {rule}")


def _positions(size: int) -> NDArray[Any]:
    return np.arange(size) - size // 2


def _normalised(taps: NDArray[Any]) -> tuple[float, ...]:
    odd = _positions(len(taps)) % 2 == 1
    sums = np.where(odd, taps[odd].sum(), taps[~odd].sum())
    return tuple(float(tap) for tap in taps / sums)
