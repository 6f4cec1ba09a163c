"""The readout of Cartesian scans: oversampling away, and a 3-D acquisition as slices across its readout."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.scan import Complex64, DipmedError, KSpaceScan, ShapeError
from operators.fourier import centred_fft, centred_ifft


def remove_oversampling(scan: KSpaceScan) -> KSpaceScan:
    """Crop the field of view along the readout to ``scan.image_shape[0]`` samples.

    An inverse transform along x, a crop around the centre, a transform back. All are orthonormal, so image values
    and the noise variance of one k-space sample stay what they were: white noise stays white, and the covariance
    stays valid. The phase axes are not touched, also when their encoded matrix is larger than the image: lines that
    were skipped cannot be brought to another field of view before the reconstruction.

    Lines that were sampled over a part of the readout (partial echo) keep the mask of the nearest samples; what the
    crop spreads beyond it, a fraction of the edge samples, is set to zero.

    Returns
    -------
    scan
        The same scan when nothing is oversampled or it is not Cartesian.

    Raises
    ------
    ShapeError
        When a line was sampled with gaps along x, so that x is no readout.
    """
    n, n_encoded = scan.image_shape[0], scan.matrix_shape[0]
    if scan.mask is None or n >= n_encoded:
        return scan
    mask = _crop_mask(scan.mask, n)
    kspace = _crop_readout(scan.kspace, n)
    kspace *= mask[:, :, None]
    return scan.replace(
        kspace=kspace,
        mask=mask,
        calibration=None if scan.calibration is None else _crop_readout(scan.calibration, n),
    )


def split_readout(scan: KSpaceScan) -> KSpaceScan:
    """Turn a 3-D acquisition into slices across its readout, each a 2-D problem of both phase encodes.

    Where the readout is fully sampled, an inverse transform along it leaves nothing to solve for along x. The transform
    is orthonormal, so white noise stays white and its covariance stays valid. Oversampling along x goes on the way.

    Returns
    -------
    scan
        With k-space ``(frame, x, coil, y, z)``: axes of the image are y and z, slices are positions along x. The affine
        has its columns changed accordingly, so each voxel stays where it was in the patient.

    Raises
    ------
    DipmedError
        When the scan is not 3-D and Cartesian, or its readout is not fully sampled.
    """
    if scan.mask is None or scan.ndim != 3:
        kind = "has a trajectory" if scan.mask is None else "is 2-D"
        raise DipmedError(f"the readout of a 3-D Cartesian acquisition can be split into slices; this scan {kind}")
    lines = scan.mask.any(axis=2)
    if not np.array_equal(lines, scan.mask.all(axis=2)):
        raise DipmedError(
            f"the readout is not fully sampled (of {scan.matrix_shape[0]} samples along x, lines hold "
            f"{int(scan.mask.sum(axis=2)[lines].min())} or more), so the scan cannot be split into slices; leave "
            "--split-readout out and reconstruct it in 3-D"
        )
    n = min(scan.image_shape[0], scan.matrix_shape[0])
    return scan.replace(
        kspace=_positions_first(scan.kspace, n),
        mask=np.repeat(lines, n, axis=1),
        calibration=None if scan.calibration is None else _positions_first(scan.calibration, n),
        affine=scan.affine[:, [1, 2, 0, 3]],
        image_shape=scan.matrix_shape[1:],
        notes=(*scan.notes, f"The 3-D acquisition was split into {n} slices across its readout."),
    )


def _positions_first(kspace: Complex64, n: int) -> Complex64:
    """Transform ``(frame, 1, coil, x, y, z)`` along x and keep the middle, ``(frame, x, coil, y, z)``."""
    n_frames, _, n_coils, n_encoded, *encoded = kspace.shape
    start = n_encoded // 2 - n // 2
    slices = np.empty((n_frames, n, n_coils, *encoded), dtype=np.complex64)
    for frame, coil in np.ndindex(n_frames, n_coils):  # to hold no second copy of a large scan
        lines = torch.from_numpy(np.moveaxis(kspace[frame, 0, coil], 0, -1).astype(np.complex64))
        slices[frame, :, coil] = np.moveaxis(centred_ifft(lines, 1)[..., start : start + n].numpy(), -1, 0)
    return slices


def _crop_readout(kspace: Complex64, n: int) -> Complex64:
    cropped = np.empty((*kspace.shape[:3], n, *kspace.shape[4:]), dtype=np.complex64)
    start = kspace.shape[3] // 2 - n // 2
    for index in np.ndindex(kspace.shape[:2]):  # a slice at a time, to hold no second copy of a large scan
        lines = torch.from_numpy(np.moveaxis(kspace[index], 1, -1).astype(np.complex64))
        image = centred_ifft(lines, 1)[..., start : start + n]
        cropped[index] = np.moveaxis(centred_fft(image, 1).numpy(), -1, 1)
    return cropped


def _crop_mask(mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    n_encoded = mask.shape[2]
    edges = np.diff(mask.astype(np.int8), axis=2, prepend=0, append=0)
    if (np.abs(edges).sum(axis=2) > 2).any():
        raise ShapeError(
            f"the matrix of {n_encoded} is to be cropped to {n} along x, but lines have gaps along x, so it is no "
            "readout; set image_shape to the encoded matrix"
        )
    nearest = n_encoded // 2 + np.rint((np.arange(n) - n // 2) * (n_encoded / n)).astype(int)
    return np.take(mask, np.clip(nearest, 0, n_encoded - 1), axis=2)
