"""Coils: readout oversampling away, fewer virtual coils, and the front door to sensitivity maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.calib.centre import calibration_width
from dipmed.calib.maps import espirit_maps, jsense_maps
from dipmed.calib.noise import mix_coils
from dipmed.scan import Complex64, DipmedError, KSpaceScan, ShapeError
from operators.fourier import centred_fft, centred_ifft

MAP_METHODS = ("espirit", "jsense")

CALIBRATION_WIDTH = 24
"""Largest calibration region that is used, per axis: more costs time and hardly changes the maps."""

MARGIN_CROP = 0.5
"""ESPIRiT: voxels whose eigenvalue is below this are air for certain."""


@dataclass(frozen=True)
class CoilMaps:
    """Sensitivity maps and how far they can be trusted.

    Parameters
    ----------
    maps
        ``(coil, x, y[, z])`` with ``Σ|s|² = 1`` on the support and in a margin around it, 0 in the air.
    support
        ``(x, y[, z])``, true where the calibration data are explained well. A narrow support keeps aliasing down; the
        margin may still hold a faint edge of the object.
    """

    maps: Complex64
    support: NDArray[np.bool_]

    @property
    def cropped(self) -> Complex64:
        """The maps, 0 outside the support."""
        return np.where(self.support, self.maps, np.complex64(0))


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


def compress_coils(scan: KSpaceScan, n_coils: int) -> KSpaceScan:
    """Combine the coils to fewer virtual ones, by a singular value decomposition of all samples of the scan.

    One matrix serves all frames and slices, so that they stay comparable; its rows are orthonormal, so white noise
    stays white. Prewhiten first: the decomposition takes noise for signal otherwise (Buehrer et al. 2007,
    doi:10.1002/mrm.21237).

    Parameters
    ----------
    scan
        Any scan, Cartesian or not.
    n_coils
        Number of virtual coils.

    Returns
    -------
    scan
        The same scan when it has ``n_coils`` already; otherwise with a note of the energy kept.

    Raises
    ------
    DipmedError
        When ``n_coils`` is below 1 or above the number of coils.
    """
    if not 1 <= n_coils <= scan.n_coils:
        raise DipmedError(f"coils can be compressed to 1 to {scan.n_coils} here, got {n_coils}")
    if n_coils == scan.n_coils:
        return scan
    gram = np.zeros((scan.n_coils, scan.n_coils), dtype=np.complex128)
    for index in np.ndindex(scan.kspace.shape[:2]):
        samples = scan.kspace[index].reshape(scan.n_coils, -1).astype(np.complex128)
        gram += samples @ samples.conj().T
    energies, directions = principal_directions(gram)
    matrix = directions[:n_coils]
    kept = energies[:n_coils].sum() / max(energies.sum(), np.finfo(float).tiny)
    covariance = scan.noise_covariance
    return scan.replace(
        kspace=mix_coils(scan.kspace, matrix),
        calibration=None if scan.calibration is None else mix_coils(scan.calibration, matrix),
        noise_covariance=None if covariance is None else matrix @ covariance @ matrix.conj().T,
        notes=(*scan.notes, f"{scan.n_coils} coils compressed to {n_coils}, with {kept:.1%} of the energy."),
    )


def estimate_maps(
    kspace: Complex64,
    mask: NDArray[np.bool_],
    method: str = "espirit",
    *,
    calibration: Complex64 | None = None,
    crop: float = 0.8,
    calib_width: int | None = None,
) -> CoilMaps:
    """Estimate sensitivity maps from the centre of k-space or from a separate calibration.

    Only the phase of each voxel's coil vector relative to the other coils is measurable; the common phase is chosen
    so that the projection on one direction, the first principal component of the calibration data, is real and
    positive, as BART does by default (doi:10.5281/zenodo.592960). The image then has the smooth phase that this virtual
    coil sees, also where any single coil is dark.

    Parameters
    ----------
    kspace
        ``(coil, x, y[, z])``, zero where not sampled.
    mask
        ``(x, y[, z])``.
    method
        ``"espirit"`` (Uecker et al. 2014, doi:10.1002/mrm.24751) needs a fully sampled centre. ``"jsense"`` (Ying &
        Sheng 2007, doi:10.1002/mrm.21245, with sensitivities of limited bandwidth in place of polynomials) needs none.
    calibration
        A separate fully sampled acquisition laid out as ``kspace``, zero outside; used in place of the centre.
    crop
        ESPIRiT: voxels whose eigenvalue is below this are outside the support.
    calib_width
        Largest width of the calibration region per axis, `CALIBRATION_WIDTH` by default; never more than was sampled.

    Returns
    -------
    maps
        With their support; ones everywhere for one coil.

    Raises
    ------
    ShapeError
        When the arrays do not belong together.
    DipmedError
        When there is nothing to calibrate on; the message says what to use instead.
    """
    _check(kspace, mask, method, calibration)
    if len(kspace) == 1:
        return CoilMaps(np.ones_like(kspace, dtype=np.complex64), np.ones(mask.shape, dtype=bool))
    data, sampled = kspace * mask, mask
    if calibration is not None:
        data, sampled = calibration, np.abs(calibration).sum(axis=0) > 0
    if not np.isfinite(data).all():
        raise DipmedError("the calibration data hold NaN or infinity, so no sensitivity maps can be estimated")
    if not data.any():
        raise DipmedError("the calibration data are all zero, so no sensitivity maps can be estimated")
    limit = min(CALIBRATION_WIDTH if calib_width is None else calib_width, *mask.shape)
    # in virtual coils ordered by energy, the first one is the phase reference and dead coils come last
    centre = _central_box(data, sampled, limit)
    _, directions = principal_directions(centre @ centre.conj().T)
    rotation = directions.astype(np.complex64)
    virtual = np.tensordot(rotation, data, axes=1).astype(np.complex64)
    if method == "espirit":
        maps, eigenvalues = espirit_maps(virtual, sampled, limit)
        maps, support = maps * (eigenvalues > min(crop, MARGIN_CROP)), eigenvalues > crop
    else:
        maps = jsense_maps(virtual, sampled, limit)
        support = np.abs(maps).sum(axis=0) > 0
    if not support.any():
        raise DipmedError(
            "ESPIRiT found no voxel with a consistent coil sensitivity: the k-space centre holds noise, or its centre "
            "is not in the middle of the array; use --maps jsense or --maps FILE"
        )
    rotated = np.tensordot(rotation.conj().T, maps, axes=1)
    return CoilMaps(np.ascontiguousarray(rotated, dtype=np.complex64), support)


def principal_directions(gram: NDArray[np.complex128]) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Return energies and virtual coils of ``(coil, coil)``, strongest first.

    Each row of the second takes coils to one virtual coil; rows are orthonormal, and the phase of each is such that
    its largest weight is real and positive, which makes them the same on every machine.
    """
    energies, vectors = np.linalg.eigh(gram)
    energies, rows = energies[::-1], vectors[:, ::-1].conj().T
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)]
    return np.maximum(energies, 0), rows * (np.abs(largest) / largest)[:, None]


def _check(kspace: Complex64, mask: NDArray[np.bool_], method: str, calibration: Complex64 | None) -> None:
    if kspace.ndim not in (3, 4) or not np.iscomplexobj(kspace):
        raise ShapeError(f"k-space must be complex (coil, x, y[, z]), got {kspace.dtype} {kspace.shape}")
    if mask.shape != kspace.shape[1:]:
        raise ShapeError(f"the mask of k-space {kspace.shape} must be {kspace.shape[1:]}, got {mask.shape}")
    if calibration is not None and calibration.shape != kspace.shape:
        raise ShapeError(f"the calibration must be laid out as the k-space {kspace.shape}, got {calibration.shape}")
    if method not in MAP_METHODS:
        raise DipmedError(f"maps are estimated by {' or '.join(MAP_METHODS)}, got {method!r}")


def _central_box(data: Complex64, sampled: NDArray[np.bool_], limit: int) -> NDArray[np.complex128]:
    """Samples ``(coil, sample)`` of the calibration region, or of a box of its usual size when it has gaps."""
    widths = [min(limit, w if w else n) for w, n in zip(calibration_width(sampled), sampled.shape, strict=True)]
    box = tuple(slice(n // 2 - w // 2, n // 2 - w // 2 + w) for n, w in zip(sampled.shape, widths, strict=True))
    return data[(slice(None), *box)].reshape(len(data), -1).astype(np.complex128)


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
