"""The noise level of an image volume that no scan stands behind any more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import DipmedError, Float32

_GAUSSIAN_MEDIAN = 0.6745
"""Median of the magnitude of a standard normal number."""

_BRIGHT = 0.25
"""Of the brightest voxels: below lies air, where the noise of magnitudes is smaller than in the object."""


def image_noise_level(volume: Float32, known: NDArray[np.bool_] | None = None) -> float:
    """Estimate the standard deviation of the noise of a volume, in its units.

    The median of the finest diagonal Haar coefficients in the slices (D. Donoho, I. Johnstone, 1994,
    doi:10.1093/biomet/81.3.425), over blocks of two by two voxels in the brighter parts. What has structure moves it
    upwards; noise that was smoothed when the image was made, downwards. Of a single plane across the slices, blocks lie
    in that plane.

    Parameters
    ----------
    volume
        ``(x, y, z)``, of which the darkest voxels are air.
    known
        Voxels that count, bool ``(x, y, z)``; None for all.

    Raises
    ------
    DipmedError
        When no block of voxels is known in full.
    """
    whole = np.ones(volume.shape, bool) if known is None else known
    thin = [axis for axis in range(3) if volume.shape[axis] == 1]
    last = list(range(-len(thin), 0))
    volume, whole = np.moveaxis(volume, thin, last), np.moveaxis(whole, thin, last)
    n_x, n_y = (n - n % 2 for n in volume.shape[:2])
    corners = [(slice(i, n_x, 2), slice(j, n_y, 2)) for i in (0, 1) for j in (0, 1)]
    blocks = np.stack([volume[corner] for corner in corners])
    usable = np.all([whole[corner] for corner in corners], axis=0)
    if not usable.any():
        raise DipmedError("no block of voxels is known in full, so that their noise cannot be estimated; give --sigma")
    darkest, brightest = np.percentile(volume[whole], (0.1, 99.9))
    bright = blocks.mean(axis=0) > darkest + _BRIGHT * (brightest - darkest)
    a, b, c, d = blocks[:, usable & bright if (usable & bright).any() else usable]
    return float(np.median(np.abs(a - b - c + d)) / 2 / _GAUSSIAN_MEDIAN)
