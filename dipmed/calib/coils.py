"""Coils: fewer virtual ones, and the front door to sensitivity maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.calib.centre import calibration_width
from dipmed.calib.maps import calibration_signal, centred, espirit_maps, jsense_maps
from dipmed.calib.noise import mix_coils
from dipmed.scan import Complex64, DipmedError, KSpaceScan, ShapeError
from operators import centred_ifft

MAP_METHODS = ("espirit", "jsense")

CALIBRATION_WIDTH = 24
"""Largest calibration region that is used, per axis: more costs time and hardly changes the maps."""

MARGIN_CROP = 0.5
"""ESPIRiT: voxels whose eigenvalue is below this are air for certain."""

_LEAST_SEEN = 0.8
"""ESPIRiT: share of the signal that the support has to hold.

Of a head and a knee at R=4 it held 0.96 and more from 11 lines of calibration on, 0.5 with 10 and less than 0.1 with 9,
whose images were 14 dB worse.
"""


@dataclass(frozen=True)
class CoilMaps:
    """Sensitivity maps and how far they can be trusted.

    Parameters
    ----------
    maps
        ``(coil, x, y[, z])`` with ``Σ|s|² = 1`` on the support and in a margin around it, 0 in the air. Several sets
        are ``(set, coil, x, y[, z])``, orthonormal in each voxel.
    support
        ``(x, y[, z])``, of several sets ``(set, 1, x, y[, z])``: true where the calibration data are explained well. A
        narrow support keeps aliasing down; the margin may still hold a faint edge of the object.
    """

    maps: Complex64
    support: NDArray[np.bool_]

    @property
    def cropped(self) -> Complex64:
        """The maps, 0 outside the support."""
        return np.where(self.support, self.maps, np.complex64(0))

    @classmethod
    def everywhere(cls, maps: Complex64) -> Self:
        """Maps ``([set,] coil, x, y[, z])`` that are trusted wherever they are."""
        return cls(maps, np.ones(1, dtype=bool))


@dataclass(frozen=True)
class VolumeReference:
    """What the slices of one volume share, so that their maps are continuous and air gets none.

    Parameters
    ----------
    rotation
        From coils to virtual coils, the first of which is the phase reference.
    signal
        Of the strongest slice, which says what is noise in the others.
    """

    rotation: Complex64
    signal: float


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
    volume: VolumeReference | None = None,
    n_sets: int = 1,
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
    volume
        What this slice shares with others of its volume; a slice of air then has maps that are zero everywhere.
    n_sets
        ESPIRiT: sets of maps, more than one where the field of view is smaller than the object, so that more than one
        part of it lies in a voxel.

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
    _check_sets(n_sets, len(kspace), method)
    if len(kspace) == 1:
        return CoilMaps(np.ones_like(kspace, dtype=np.complex64), np.ones(mask.shape, dtype=bool))
    limit = min(CALIBRATION_WIDTH if calib_width is None else calib_width, *mask.shape[-2:])
    matrix, is_volume = mask.shape[-2:], method == "espirit" and kspace.ndim == 4
    if is_volume:  # of both phase encodes, nothing but the centre is looked at
        y, z = (centred(n, limit) for n in matrix)
        kspace, mask = kspace[..., y, z], mask[:, y, z]
        calibration = None if calibration is None else calibration[..., y, z]
    data, sampled = _calibration_data(kspace, mask, calibration)
    if not data.any():
        if volume is not None:
            sets = (n_sets, 1) if n_sets > 1 else ()
            shape = (*sets[:1], *kspace.shape)
            return CoilMaps(np.zeros(shape, dtype=np.complex64), np.zeros((*sets, *mask.shape), dtype=bool))
        raise DipmedError("the calibration data are all zero, so no sensitivity maps can be estimated")
    # in virtual coils ordered by energy, the first one is the phase reference and dead coils come last
    rotation = _directions([_central_box(data, sampled, limit)]) if volume is None else volume.rotation
    virtual = np.tensordot(rotation, data, axes=1).astype(np.complex64)
    back = rotation.conj().T
    if method == "espirit":
        signal = None if volume is None else volume.signal
        maps, eigenvalues = espirit_maps(
            virtual, sampled, limit, signal, n_sets, crop, matrix, back if is_volume else None
        )
        maps *= eigenvalues > min(crop, MARGIN_CROP)
        support = eigenvalues > crop
    else:
        maps = jsense_maps(virtual, sampled, limit)
        support = np.abs(maps).sum(axis=0) > 0
    if volume is None and not support.any():
        raise DipmedError(
            "ESPIRiT found no voxel with a consistent coil sensitivity: the k-space centre holds noise, or its centre "
            "is not in the middle of the array; use --maps jsense or --maps FILE"
        )
    if method == "espirit" and (volume is None or calibration_signal(virtual, sampled, limit) > volume.signal / 2):
        _check_support(data, sampled, limit, support if n_sets == 1 else np.logical_or.reduce(support[:, 0]))
    if not is_volume:
        maps = np.tensordot(back, maps, axes=1) if n_sets == 1 else np.stack([np.tensordot(back, s, 1) for s in maps])
    return CoilMaps(np.ascontiguousarray(maps, dtype=np.complex64), support)


def volume_reference(
    kspace: Complex64, mask: NDArray[np.bool_], method: str, calibration: Complex64 | None = None
) -> VolumeReference:
    """Find what the slices of one volume share, from ``(slice, coil, x, y)`` and ``(slice, x, y)``."""
    limit = min(CALIBRATION_WIDTH, *mask.shape[1:])
    signal, centres = 0.0, []
    for index, sampled in enumerate(mask):
        data, sampled = _calibration_data(kspace[index], sampled, None if calibration is None else calibration[index])
        if data.any():
            centres.append(_central_box(data, sampled, limit))
            if method == "espirit":
                signal = max(signal, calibration_signal(data, sampled, limit))
    if not centres:
        raise DipmedError("the calibration data are all zero, so no sensitivity maps can be estimated")
    return VolumeReference(_directions(centres), signal)


def _calibration_data(
    kspace: Complex64, mask: NDArray[np.bool_], calibration: Complex64 | None
) -> tuple[Complex64, NDArray[np.bool_]]:
    """Data to calibrate on, and where they were sampled."""
    data, sampled = kspace * mask, mask
    if calibration is not None:
        data, sampled = calibration, np.abs(calibration).sum(axis=0) > 0
    if not np.isfinite(data).all():
        raise DipmedError("the calibration data hold NaN or infinity, so no sensitivity maps can be estimated")
    return data, sampled


def _directions(centres: list[NDArray[np.complex128]]) -> Complex64:
    """Virtual coils of calibration regions ``(coil, x, y[, z])``."""
    centres = [centre.reshape(len(centre), -1) for centre in centres]
    gram = sum((centre @ centre.conj().T for centre in centres[1:]), start=centres[0] @ centres[0].conj().T)
    return principal_directions(gram)[1].astype(np.complex64)


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


def _check_sets(n_sets: int, n_coils: int, method: str) -> None:
    if not 1 <= n_sets <= n_coils:
        raise DipmedError(f"there can be 1 to {n_coils} sets of maps here, as many as coils, got {n_sets}")
    if n_sets > 1 and method != "espirit":
        raise DipmedError(f"several sets of maps are found by ESPIRiT, not by {method}; use --maps espirit")


def _check_support(data: Complex64, sampled: NDArray[np.bool_], limit: int, support: NDArray[np.bool_]) -> None:
    """Refuse maps that leave out much of what the calibration data see: of few lines ESPIRiT finds parts of them."""
    box = _central_box(data, sampled, limit)
    widths = box.shape[1:]
    signal = np.square(np.abs(centred_ifft(torch.from_numpy(box), len(widths)).numpy())).sum(0)
    # a pixel of this coarse image stands for the voxel in its middle
    places = [
        np.clip(np.round((np.arange(w) - w // 2) * n / w).astype(int) + n // 2, 0, n - 1)
        for w, n in zip(widths, support.shape, strict=True)
    ]
    seen = float((signal * support[np.ix_(*places)]).sum() / signal.sum())
    if seen < _LEAST_SEEN:
        raise DipmedError(
            f"the sensitivity maps that ESPIRiT finds in a k-space centre of {' x '.join(map(str, widths))} leave out "
            f"{1 - seen:.0%} of the signal, because it is too small; use --maps jsense, or give maps with --maps FILE"
        )


def _central_box(data: Complex64, sampled: NDArray[np.bool_], limit: int) -> NDArray[np.complex128]:
    """Samples ``(coil, x, y[, z])`` of the calibration region, or of a box of its usual size when it has gaps."""
    widths = [min(limit, w if w else n) for w, n in zip(calibration_width(sampled), sampled.shape, strict=True)]
    box = tuple(centred(n, w) for n, w in zip(sampled.shape, widths, strict=True))
    return data[(slice(None), *box)].astype(np.complex128)
