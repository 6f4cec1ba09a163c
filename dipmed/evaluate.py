"""How close an image is to a reference: PSNR, SSIM and NRMSE, and the record of a fit's snapshots.

Nothing here may reach a fit: `dipmed.dip` never imports this module.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from dipmed.calib.coils import estimate_maps
from dipmed.scan import Complex64, DipmedError, ShapeError
from operators.coils import combine_sets
from operators.fourier import centred_ifft

WINDOW = 7
"""Width of the SSIM window along each axis."""

Image = Tensor | NDArray[Any]


@dataclass(frozen=True)
class Scores:
    """Scores of one image; those without ``raw`` are taken after one least-squares real scale factor.

    Parameters
    ----------
    psnr, psnr_raw
        Peak signal-to-noise ratio in dB, the peak being the maximum of the reference.
    ssim, ssim_raw
        Structural similarity, at most 1, with the maximum of the reference as data range.
    nrmse, nrmse_raw
        Root mean square error over that of the reference.
    """

    psnr: float
    ssim: float
    nrmse: float
    psnr_raw: float
    ssim_raw: float
    nrmse_raw: float


def reference_image(kspace: Complex64, n_calib: int = 24, n_sets: int = 1) -> tuple[Complex64, NDArray[np.bool_]]:
    """Combine the coils of a fully sampled scan, with ESPIRiT maps from its centre.

    ``x = Σ conj(s_c) F⁻¹ y_c`` with ``Σ|s_c|² = 1`` on the support of the maps and 0 outside; the images of several
    sets of maps are combined as `operators.combine_sets` does.

    Parameters
    ----------
    kspace
        ``(coil, x, y[, z])``, fully sampled.
    n_calib
        Width of the calibration region along each axis.
    n_sets
        Sets of maps.

    Returns
    -------
    image, support
        ``(x, y[, z])``, complex and bool.

    Raises
    ------
    ShapeError
        When the k-space has another number of axes.
    DipmedError
        When no maps can be estimated.
    """
    full = np.ones(kspace.shape[1:], dtype=bool)
    maps = estimate_maps(kspace, full, calib_width=n_calib, n_sets=n_sets).cropped
    coil_images = centred_ifft(torch.from_numpy(np.ascontiguousarray(kspace)), kspace.ndim - 1).numpy()
    if n_sets > 1:
        images = np.stack([np.sum(one.conj() * coil_images, axis=0) for one in maps])
        return combine_sets(torch.from_numpy(images))[0].numpy(), np.asarray(maps.any(axis=(0, 1)))
    image: Complex64 = np.sum(maps.conj() * coil_images, axis=0)
    return image, np.asarray(maps.any(axis=0))


def score(image: Image, reference: Image, support: Image | None = None) -> Scores:
    """Compare magnitudes of complex images, or real images as they are; both are zero outside the support.

    Parameters
    ----------
    image, reference
        ``(x, y[, z])`` or with the channel axis of length 1 in front; complex or real.
    support
        Of the same shape, true inside the object; None for everywhere.

    Raises
    ------
    ShapeError
        When the shapes differ or an axis is shorter than the window.
    DipmedError
        When a value is not finite or the reference is zero.
    """
    x, truth = _prepared(image, reference, support)
    raw = _metrics(x, truth)
    matched = _metrics(x * _least_squares_factor(x, truth), truth)
    return Scores(*matched, *raw)


def match_scale(image: Image, reference: Image) -> NDArray[np.float64]:
    """Return ``image``, if complex its magnitude, times the real factor that brings it closest to ``reference``.

    Raises
    ------
    ShapeError
        When the shapes differ.
    DipmedError
        When a value is not finite or the reference is zero.
    """
    x, truth = _prepared(image, reference, None)
    return x * _least_squares_factor(x, truth)


def scale_factor(image: Image, reference: Image, support: Image | None = None) -> float:
    """Return the factor of `score`, that brings ``image`` closest to ``reference`` inside the support.

    Raises
    ------
    ShapeError
        When the shapes differ.
    DipmedError
        When a value is not finite or the reference is zero.
    """
    return _least_squares_factor(*_prepared(image, reference, support))


@dataclass(frozen=True)
class Calibration:
    """How well a standard deviation tells the errors of its image.

    Parameters
    ----------
    within
        Share of the pixels whose error is at most 1, 2 and 3 standard deviations.
    correlation
        Of the error's size and the standard deviation, over the pixels; 0 where either is the same everywhere.
    """

    within: tuple[float, ...]
    correlation: float


GAUSSIAN_WITHIN = tuple(math.erf(n / math.sqrt(2)) for n in (1, 2, 3))
"""What `Calibration.within` is for errors that are Gaussian with that standard deviation: 0.683, 0.954, 0.997."""


def calibration(image: Image, std: Image, reference: Image, support: Image | None = None) -> Calibration:
    """Compare errors with the standard deviation that came with an image, both after the scale factor of `score`.

    Fewer pixels within than of a Gaussian means that the standard deviation is too small: fits agree on what is wrong.

    Parameters
    ----------
    image, reference, support
        As for `score`. Without a support, pixels count where the standard deviation is above zero.
    std
        Real, of the same shape.

    Raises
    ------
    ShapeError
        When the shapes differ.
    DipmedError
        When a value is not finite, the reference is zero, or there is no pixel to compare.
    """
    x, truth = _prepared(image, reference, support)
    factor = _least_squares_factor(x, truth)
    sigma = np.abs(factor) * _spatial(std).astype(np.float64)
    if sigma.shape != truth.shape or not np.isfinite(sigma).all():
        raise ShapeError(f"the standard deviation must be finite and {truth.shape}, got {sigma.shape}")
    counts = sigma > 0 if support is None else _spatial(support).astype(bool)
    if not counts.any():
        raise DipmedError("there is no pixel to compare with its standard deviation")
    errors, sigma = np.abs(factor * x - truth)[counts], sigma[counts]
    within = tuple(float(np.mean(errors <= n * sigma)) for n in (1, 2, 3))
    varies = np.ptp(errors) > 0 and np.ptp(sigma) > 0
    return Calibration(within, float(np.corrcoef(errors, sigma)[0, 1]) if varies else 0.0)


def structural_similarity(image: NDArray[Any], reference: NDArray[Any], data_range: float) -> float:
    """Mean structural similarity with a uniform window of 7 along each axis.

    Covariances are the unbiased ones of a window, and windows that reach over the edge are left out (Wang et al.
    2004, doi:10.1109/TIP.2003.819861, with K1 = 0.01 and K2 = 0.03).

    Parameters
    ----------
    image, reference
        Real, of the same shape.
    data_range
        Difference between the largest and the smallest value that are possible.
    """
    x, y = image.astype(np.float64), reference.astype(np.float64)
    mean_x, mean_y = uniform_filter(x, WINDOW), uniform_filter(y, WINDOW)
    n = WINDOW**x.ndim
    unbiased = n / (n - 1)
    var_x = unbiased * (uniform_filter(x * x, WINDOW) - mean_x**2)
    var_y = unbiased * (uniform_filter(y * y, WINDOW) - mean_y**2)
    cov = unbiased * (uniform_filter(x * y, WINDOW) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    inner = (slice(WINDOW // 2, -(WINDOW // 2)),) * x.ndim
    return float(similarity[inner].mean())


class SnapshotScores:
    """Scores of a fit's images along the way, to measure by how much it missed its best one.

    Give an instance to a fit as its observer: it takes the iteration and the image, and hands nothing back.

    Parameters
    ----------
    reference, support
        As for `score`.

    Attributes
    ----------
    curve
        ``(iteration, psnr, ssim)`` of each snapshot.
    seconds
        Time spent here, to be taken off the time of the fit.
    """

    def __init__(self, reference: Image, support: Image | None = None) -> None:
        self._reference = reference
        self._support = support
        self.curve: list[tuple[int, float, float]] = []
        self.seconds = 0.0

    def __call__(self, iteration: int, image: Tensor) -> None:
        start = time.perf_counter()
        scores = score(combine_sets(image), self._reference, self._support)
        self.curve.append((iteration, scores.psnr, scores.ssim))
        self.seconds += time.perf_counter() - start

    @property
    def best_psnr(self) -> float:
        """Highest PSNR of a snapshot in dB, minus infinity when there is none."""
        return max((psnr for _, psnr, _ in self.curve), default=-np.inf)

    def regret(self, final: Image) -> float:
        """Return the best PSNR along the run minus that of the image that the fit returned, in dB, at least 0.

        The snapshots must be what the fit would have returned at that iteration, after any final step.
        """
        return max(0.0, self.best_psnr - score(final, self._reference, self._support).psnr)


def _prepared(image: Image, reference: Image, support: Image | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, truth = (_real(_spatial(part)).astype(np.float64) for part in (image, reference))
    if x.shape != truth.shape:
        raise ShapeError(f"the image must be {truth.shape} like the reference, got {x.shape}")
    if x.ndim not in (2, 3) or min(x.shape) < WINDOW:
        raise ShapeError(f"images to compare must be (x, y[, z]) and {WINDOW} or more along each axis, got {x.shape}")
    if support is not None:
        inside = _spatial(support).astype(bool)
        if inside.shape != truth.shape:
            raise ShapeError(f"the support must be {truth.shape} like the reference, got {inside.shape}")
        x, truth = np.where(inside, x, 0), np.where(inside, truth, 0)
    for name, array in (("image", x), ("reference", truth)):
        if not np.isfinite(array).all():
            raise DipmedError(f"the {name} holds NaN or infinity, so it cannot be scored")
    if not truth.any():
        raise DipmedError("the reference is zero everywhere inside the support: there is nothing to compare with")
    return x, truth


def _real(array: NDArray[Any]) -> NDArray[Any]:
    return np.abs(array) if np.iscomplexobj(array) else array


def _spatial(image: Image) -> NDArray[Any]:
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    return array[0] if array.ndim > 2 and len(array) == 1 else array


def _least_squares_factor(x: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    energy = float((x * x).sum())
    return float((x * truth).sum()) / energy if energy > 0 else 1.0


def _metrics(x: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, float, float]:
    peak = float(truth.max())
    error = float(np.mean((x - truth) ** 2))
    psnr = 10 * np.log10(peak**2 / error) if error > 0 else np.inf
    nrmse = np.sqrt(error / np.mean(truth**2))
    return float(psnr), structural_similarity(x, truth, peak), float(nrmse)
