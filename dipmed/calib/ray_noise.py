"""The noise of line integrals, told by those rays that meet least of the object."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import DipmedError

_FOURTH = 70
"""Sum of squares of the weights of a fourth difference, 1, 4, 6, 4 and 1."""

_GAUSSIAN_MEDIAN = 0.6745
"""Median of the magnitude of a standard normal number."""

_GROUPS = 8
_ENOUGH = 2**21
"""Differences that are looked at, about; of more data some rows are left out."""


def ray_noise_level(line_integrals: NDArray[np.float32]) -> tuple[float, bool]:
    """Estimate the root mean square of the noise of line integrals ``(..., column)``, without unit.

    Fourth differences along the columns hold noise and what an object has of fine detail, which on a coarse detector
    is as much. Rays that pass little have little of it, so the quarter of least attenuation tells the noise there, by
    the median of the differences. Elsewhere it grows as that of photons does, by half of the exponent of the
    attenuation (Beer and Lambert), or is what the differences there show, whichever is less: so noise that is the same
    everywhere is told as well. Where that quarter shows none at all, because somebody has set the air to zero or
    simulated without noise, the eighth of all rays with the least of it but for such takes its place, where detail may
    be all there is.

    Returns
    -------
    level, is_told
        The estimate, and whether it is more than an upper bound: whether the rays that meet least showed noise.

    Raises
    ------
    DipmedError
        When there are fewer than five columns, or no noise at all.
    """
    n_columns = line_integrals.shape[-1]
    if n_columns < 5:
        raise DipmedError(f"the noise of line integrals needs five columns or more, got {n_columns}")
    rows = line_integrals.reshape(-1, n_columns)
    rows = rows[:: max(1, rows.size // _ENOUGH)].astype(np.float64)
    middle = rows[:, 2:-2].ravel()
    order = np.argsort(middle)
    middle, differences = middle[order], np.diff(rows, n=4).ravel()[order]
    n_least = max(1, len(middle) // 4)
    groups = [
        (passed, _level(seen))
        for passed, seen in zip(np.array_split(middle, _GROUPS), np.array_split(differences, _GROUPS), strict=True)
        if len(seen)
    ]
    passed, least = middle[:n_least], _level(differences[:n_least])
    is_told = least > 0
    if not is_told:
        told = [group for group in groups if group[1] > 0]
        if not told:
            raise DipmedError("the data show no noise at all; give its level, or choose another rule with --stop")
        passed, least = min(told, key=lambda group: group[1])
    there = np.median(passed)
    variances = [min(seen**2, least**2 * _gain(passed - there)) for passed, seen in groups]
    return float(np.sqrt(np.mean(variances))), is_told


def _level(differences: NDArray[Any]) -> float:
    return float(np.median(np.abs(differences)) / _GAUSSIAN_MEDIAN / np.sqrt(_FOURTH))


def _gain(attenuation: NDArray[Any]) -> float:
    """By what factor photons' noise has more variance, on average, than where there is no more attenuation."""
    return float(np.exp(np.minimum(attenuation, 50)).mean())
