"""Noise of the coils: covariance, prewhitening, and a noise level for scans without a noise measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import DipmedError, KSpaceScan, ShapeError

SINGULAR = 1e-8
"""Eigenvalues of the noise correlation below this fraction of the largest one mean that coils are dependent."""


def noise_covariance(samples: NDArray[Any]) -> NDArray[np.complex128]:
    """Estimate the coil noise covariance ``E[n nᴴ]`` of one complex sample.

    Parameters
    ----------
    samples
        ``(coil, sample...)`` of noise alone, in the units of the k-space that it belongs to. The mean is taken as
        zero, since thermal noise has none.

    Returns
    -------
    covariance
        ``(coil, coil)``, Hermitian.

    Raises
    ------
    ShapeError
        When there are fewer samples than coils: the estimate could not be inverted.
    """
    if samples.ndim < 2:
        raise ShapeError(f"noise samples must be (coil, sample...), got {samples.shape}")
    flat = samples.reshape(samples.shape[0], -1).astype(np.complex128)
    n_coils, n_samples = flat.shape
    if n_samples < n_coils:
        raise ShapeError(f"a noise covariance of {n_coils} coils needs at least as many samples, got {n_samples}")
    covariance: NDArray[np.complex128] = flat @ flat.conj().T / n_samples
    return covariance


def prewhiten(scan: KSpaceScan) -> KSpaceScan:
    """Mix the coils so that their noise is uncorrelated and of unit variance per complex sample.

    The data are multiplied by the inverse of the Cholesky factor of `KSpaceScan.noise_covariance`, k-space and
    calibration alike (Pruessmann et al. 2001, doi:10.1002/mrm.1241). Afterwards the covariance is the identity. A
    coil that was switched off, with neither noise nor signal, is dropped and noted.

    Returns
    -------
    scan
        The same scan when it has no noise covariance.

    Raises
    ------
    ShapeError
        When the covariance is not ``(coil, coil)``.
    DipmedError
        When the covariance is not a covariance (not finite, not Hermitian, not positive) or is singular.
    """
    if scan.noise_covariance is None:
        return scan
    scan, covariance = _without_silent_coils(scan, _checked(scan.noise_covariance, scan.n_coils))
    whitener = _inverse_cholesky(covariance)
    return scan.replace(
        kspace=mix_coils(scan.kspace, whitener),
        calibration=None if scan.calibration is None else mix_coils(scan.calibration, whitener),
        noise_covariance=np.eye(scan.n_coils, dtype=np.complex128),
    )


def mix_coils(kspace: NDArray[np.complex64], matrix: NDArray[Any]) -> NDArray[np.complex64]:
    """Apply ``(new coil, coil)`` to data laid out as `KSpaceScan.kspace`, ``(frame, slice, coil, ...)``."""
    frames, slices, coils = kspace.shape[:3]
    if matrix.shape[1] != coils:
        raise ShapeError(f"a coil matrix for {coils} coils must have as many columns, got {matrix.shape}")
    mixed = np.empty((frames, slices, matrix.shape[0], *kspace.shape[3:]), dtype=np.complex64)
    matrix = matrix.astype(np.complex64)
    for index in np.ndindex(frames, slices):  # one slice at a time, so that no second copy of a large scan is made
        mixed[index] = np.tensordot(matrix, kspace[index], axes=1)
    return mixed


def estimate_noise_level(kspace: NDArray[np.complex64], mask: NDArray[np.bool_], fraction: float = 0.05) -> float:
    """Estimate the noise of a scan that has no noise measurement, from the samples farthest from the centre.

    There the signal is weakest, so the median of ``|y|²``, which for complex Gaussian noise is ``σ² ln 2``, is
    governed by noise (the median absolute deviation of complex data; Donoho & Johnstone 1994,
    doi:10.1093/biomet/81.3.425). Fine structure raises it, so the figure is an upper estimate. When a noise scan
    exists use its covariance instead; after `prewhiten` the level is 1.

    Parameters
    ----------
    kspace
        ``(coil, x, y[, z])``.
    mask
        ``(x, y[, z])``, the sampled locations.
    fraction
        Fraction of the sampled locations to use.

    Returns
    -------
    level
        Standard deviation σ of one complex sample, ``E|n|² = σ²``, root mean square over the coils.

    Raises
    ------
    ShapeError
        When k-space and mask do not belong together.
    DipmedError
        When fewer than 32 samples are left, or they are all zero (a filter or zero filling has removed the noise).
    """
    if kspace.shape[1:] != mask.shape:
        raise ShapeError(f"the mask of k-space {kspace.shape} must be {kspace.shape[1:]}, got {mask.shape}")
    if not 0 < fraction <= 1:
        raise DipmedError(f"the fraction of samples to use must be above 0 and at most 1, got {fraction}")
    axes = np.ogrid[tuple(slice(0, n) for n in mask.shape)]
    radius2 = sum(((axis - n // 2) / n) ** 2 for axis, n in zip(axes, mask.shape, strict=True))
    distance = np.broadcast_to(radius2, mask.shape)[mask]
    return outermost_noise_level(kspace[:, mask], distance, fraction)


def outermost_noise_level(samples: NDArray[Any], distance: NDArray[Any], fraction: float = 0.05) -> float:
    """Do the same for samples anywhere, ``(coil, sample)``, each at a ``distance`` from the centre, ``(sample,)``."""
    n_used = int(fraction * distance.size)
    if n_used < 32:
        raise DipmedError(f"a noise level needs 32 samples or more, {fraction:g} of {distance.size} leaves {n_used}")
    outermost = np.argpartition(distance, -n_used)[-n_used:]
    power = np.abs(samples[:, outermost].astype(np.complex128)) ** 2
    level2 = float(np.mean(np.median(power, axis=1))) / np.log(2)
    if level2 == 0:
        raise DipmedError(
            "the outer k-space is exactly zero, so it says nothing of the noise: the data were filtered or "
            "zero-filled; give the noise level or a noise scan"
        )
    return float(np.sqrt(level2))


def _checked(covariance: NDArray[Any], n_coils: int) -> NDArray[np.complex128]:
    if covariance.shape != (n_coils, n_coils):
        raise ShapeError(
            f"the noise covariance of {n_coils} coils must be {(n_coils, n_coils)}, got {covariance.shape}"
        )
    if not np.isfinite(covariance).all():
        raise DipmedError("the noise covariance holds NaN or infinity: the noise scan is damaged; read without it")
    asymmetry = np.abs(covariance - covariance.conj().T).max()
    if asymmetry > 1e-5 * np.abs(covariance).max() or np.diagonal(covariance).real.min() < 0:
        raise DipmedError("the noise covariance is not Hermitian with a positive diagonal, so it is no covariance")
    hermitian: NDArray[np.complex128] = (covariance + covariance.conj().T).astype(np.complex128) / 2
    return hermitian


def _without_silent_coils(
    scan: KSpaceScan, covariance: NDArray[np.complex128]
) -> tuple[KSpaceScan, NDArray[np.complex128]]:
    """Drop coils without noise; a receiver that is on always has some."""
    silent = np.diagonal(covariance).real == 0
    if not silent.any():
        return scan, covariance
    names = ", ".join(map(str, np.flatnonzero(silent)))
    if silent.all() or scan.kspace[:, :, silent].any():
        raise DipmedError(
            f"the noise covariance is singular: coils {names} have signal but no noise, so the noise scan does not "
            "belong to these data; read without it"
        )
    live = ~silent
    scan = scan.replace(
        kspace=scan.kspace[:, :, live],
        calibration=None if scan.calibration is None else scan.calibration[:, :, live],
        noise_covariance=covariance[np.ix_(live, live)],
        notes=(*scan.notes, f"Coils {names} have neither noise nor signal and were left out."),
    )
    return scan, covariance[np.ix_(live, live)]


def _inverse_cholesky(covariance: NDArray[np.complex128]) -> NDArray[np.complex128]:
    # judged on the correlation matrix, so that coils of very different gain are not taken for dependent ones
    deviation = np.sqrt(np.diagonal(covariance).real)
    eigenvalues = np.linalg.eigvalsh(covariance / np.outer(deviation, deviation))
    if eigenvalues[0] < SINGULAR * eigenvalues[-1]:
        rank = int((eigenvalues >= SINGULAR * eigenvalues[-1]).sum())
        raise DipmedError(
            f"the noise covariance of {len(deviation)} coils has rank {rank}: the noise scan is too short or coils "
            f"depend on each other; go on without prewhitening by scan.replace(noise_covariance=None)"
        )
    return np.asarray(np.linalg.inv(np.linalg.cholesky(covariance)), dtype=np.complex128)
