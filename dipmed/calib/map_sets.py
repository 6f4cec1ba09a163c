"""Several sets of ESPIRiT maps, for voxels into which more than one part of the object folds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import Complex64


def espirit_sets(
    virtual: Complex64, width: int, kernel_width: int, threshold: float, n_sets: int, crop: float
) -> tuple[Complex64, NDArray[np.float32]]:
    """ESPIRiT maps of a slice in several sets, and their eigenvalues (Uecker et al. 2014, doi:10.1002/mrm.24751).

    The eigenvectors of one voxel whose eigenvalues are all near 1 are one basis of many, and differ from voxel to
    voxel by chance. They are turned so that the second set does not see the first virtual coil, the third not the first
    two, and so on, which makes maps that are as smooth as the space that they span.

    Parameters
    ----------
    virtual
        K-space ``(coil, x, y)`` of virtual coils, the strongest first.
    width
        Of the calibration region, fully sampled.
    kernel_width
        Of a block of k-space.
    threshold
        Singular values below this fraction of the largest count as noise.
    n_sets
        At most the number of coils.
    crop
        Eigenvalues above it belong to what the data explain: those are turned among each other.

    Returns
    -------
    maps, eigenvalues
        ``(set, coil, x, y)``, orthonormal in each voxel, and ``(set, 1, x, y)``, largest first.
    """
    covariance = _covariance_image(virtual, width, kernel_width, threshold)
    eigenvalues, vectors = np.linalg.eigh(covariance)
    largest = eigenvalues[..., ::-1][..., :n_sets]
    vectors = _turn(vectors[..., ::-1][..., :n_sets].copy(), (largest > crop).sum(axis=-1))
    maps = np.ascontiguousarray(np.moveaxis(vectors, (-1, -2), (0, 1)), dtype=np.complex64)
    return maps, np.moveaxis(largest, -1, 0)[:, None].astype(np.float32)


def calibration_blocks(kspace: Complex64, width: int, kernel_width: int) -> Complex64:
    """All blocks of the calibration region, ``(block, coil, x, y)`` with kernels along the last axes."""
    x, y = (n // 2 - width // 2 for n in kspace.shape[1:])
    region = kspace[:, x : x + width, y : y + width]
    blocks = np.lib.stride_tricks.sliding_window_view(region, (kernel_width, kernel_width), axis=(1, 2))
    return np.moveaxis(blocks, 0, 2).reshape(-1, len(kspace), kernel_width, kernel_width)


def _covariance_image(virtual: Complex64, width: int, kernel_width: int, threshold: float) -> Complex64:
    """Covariance of the coils in each voxel, ``(x, y, coil, coil)``, whose eigenvalues are 1 at most.

    The kernels are correlated with each other in k-space first, where all of them sum to one small array, and not
    voxel by voxel.
    """
    blocks = calibration_blocks(virtual, width, kernel_width)
    _, values, rows = np.linalg.svd(blocks.reshape(len(blocks), -1), full_matrices=False)
    kernels = rows[values > threshold * values.max()].reshape(-1, *blocks.shape[1:])
    size = 2 * kernel_width
    spectra = np.fft.fft2(kernels, (size, size))
    correlation = np.fft.ifft2(np.einsum("kaxy,kbxy->abxy", spectra, spectra.conj(), optimize=True))
    shifts = np.fft.fftfreq(size, 1 / size)
    waves = [
        np.exp(2j * np.pi * np.outer(np.arange(n) - n // 2, shifts) / n).astype(np.complex64) for n in virtual.shape[1:]
    ]
    image = np.einsum("xi,abij,yj->xyab", waves[0], correlation.astype(np.complex64), waves[1], optimize=True)
    return np.ascontiguousarray(image / kernel_width**2)


def _turn(vectors: Complex64, n_explained: NDArray[np.intp]) -> Complex64:
    """Turn the first ``n_explained`` vectors ``(x, y, coil, set)`` of each voxel, and set the phase of the others."""
    first = vectors[..., :1, :]
    vectors *= np.exp(-1j * np.angle(first))
    for n in range(2, vectors.shape[-1] + 1):
        where = n_explained == n
        chosen = vectors[where][..., :n]
        basis, triangle = np.linalg.qr(np.conj(np.swapaxes(chosen[:, :n], -1, -2)))
        phases = np.exp(1j * np.angle(np.diagonal(triangle, axis1=-2, axis2=-1)))
        vectors[where, :, :n] = (chosen @ basis) * phases[:, None]
    return vectors
