"""Sensitivity maps in virtual coils, through sigpy: ESPIRiT and JSENSE."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from dipmed.calib.centre import calibration_width
from dipmed.calib.map_sets import calibration_blocks, espirit_sets
from dipmed.scan import Complex64, DipmedError
from operators.fourier import centred_ifft

KERNEL_WIDTH = 6
MIN_WIDTH = KERNEL_WIDTH + 2
"""Fewer lines than this give too few blocks of k-space to learn a kernel from."""
THRESHOLD = 0.02
"""Singular values below this fraction of the largest one count as noise."""
JSENSE_KERNEL_WIDTH = 8
"""Width of the sensitivities in k-space; wider ones fit noise at the edge of the object."""
JSENSE_LAMBDA = 1e-3
"""Weight of the squared norms of image and maps; with 0 the iteration can divide 0 by 0."""
JSENSE_SUPPORT = 0.05
"""Fraction of the brightest low-resolution voxel below which a voxel is air."""


def espirit_maps(
    virtual: Complex64,
    sampled: NDArray[np.bool_],
    limit: int,
    signal: float | None = None,
    n_sets: int = 1,
    crop: float = 0.8,
    matrix: tuple[int, ...] | None = None,
    back: Complex64 | None = None,
) -> tuple[Complex64, NDArray[np.float32]]:
    """ESPIRiT maps of virtual coils, the first of which is the phase reference, and their eigenvalues.

    An eigenvalue near 1 says that one coil vector explains the calibration data at that voxel; nothing is cropped here.

    A 3-D scan is transformed along its readout and each position is calibrated by itself: the covariance image of
    the 3-D method would need coils² volumes. All positions share the phase reference and the noise threshold, so the
    maps are continuous along the readout and air gets none. Little more than the maps is held: along both phase encodes
    ``virtual`` needs to be no wider than the calibration region, with the ``matrix`` ``(y, z)`` of the maps, and
    ``back`` takes virtual coils to coils, one position after the other. For one slice of such a volume, ``signal`` is
    the largest `calibration_signal` of all slices.

    Several sets of maps are ``(set, coil, x, y[, z])`` with eigenvalues ``(set, 1, x, y[, z])``, see
    `dipmed.calib.map_sets.espirit_sets`.

    Raises
    ------
    DipmedError
        When the fully sampled centre is too small.
    """
    width = _block_width(sampled, limit)
    if virtual.ndim == 4:
        width_x, matrix = calibration_width(sampled)[0], virtual.shape[2:] if matrix is None else matrix
        return _espirit_positions(virtual, width_x, width, n_sets, crop, matrix, back)
    return _espirit_slice(virtual, width, signal, n_sets, crop)


def calibration_signal(data: Complex64, sampled: NDArray[np.bool_], limit: int) -> float:
    """Largest singular value of the calibration matrix of a slice ``(coil, x, y)``, as ESPIRiT forms it."""
    return _largest_singular_value(data, _block_width(sampled, limit))


def _block_width(sampled: NDArray[np.bool_], limit: int) -> int:
    """Width of the calibration region along the axes that are not transformed."""
    widths = calibration_width(sampled)
    encoded = widths if sampled.ndim == 2 else widths[1:]
    if min(encoded) < MIN_WIDTH:
        raise DipmedError(
            f"ESPIRiT needs a fully sampled k-space centre of {MIN_WIDTH} lines or more, this scan has "
            f"{' x '.join(map(str, widths))}; use --maps jsense, or give sensitivity maps with --maps FILE"
        )
    width = min(limit, *encoded)
    if width < MIN_WIDTH:
        raise DipmedError(f"ESPIRiT needs a calibration region of {MIN_WIDTH} lines or more, got {limit}")
    return width


def jsense_maps(virtual: Complex64, sampled: NDArray[np.bool_], limit: int) -> Complex64:
    """JSENSE maps of virtual coils, the first of which is the phase reference; no fully sampled centre is needed.

    Image and sensitivities of limited bandwidth are fitted by turns. With the small penalty on both norms that is used
    here it is what Uecker et al. 2008, doi:10.1002/mrm.21691, solve by Newton's method.
    The support is where the low-resolution image that JSENSE estimates along with the maps is not air, without holes.
    """
    import sigpy as sp
    import sigpy.mri.app

    shape = virtual.shape[1:]
    width = min(limit, *shape)
    app = sigpy.mri.app.JsenseRecon(
        virtual,
        mps_ker_width=min(JSENSE_KERNEL_WIDTH, width),
        ksp_calib_width=width,
        lamda=JSENSE_LAMBDA,
        weights=sampled.astype(np.float32),
        show_pbar=False,
    )
    with np.errstate(invalid="ignore", divide="ignore"):  # sigpy divides 0 by 0 where all maps vanish
        maps = app.run()
    spread = sp.rss([sp.ifft(sp.resize(kernel, shape)) for kernel in app.mps_ker], axes=(0,))
    image = np.abs(sp.ifft(sp.resize(app.img_ker, shape))) * spread
    if not (np.isfinite(image).all() and image.any()):
        raise DipmedError("JSENSE did not converge on these data; use --maps espirit or --maps FILE")
    object_ = image > JSENSE_SUPPORT * image.max()
    # a voxel of the low-resolution image is as wide as a few voxels here, so the edge is uncertain by half of that
    margin = max(1, round(max(shape) / width / 2))
    support = ndimage.binary_fill_holes(ndimage.binary_dilation(object_, iterations=margin))
    return _rotate_to_first(np.nan_to_num(maps) * support)


def _espirit_one(virtual: Complex64, width: int, threshold: float) -> tuple[Complex64, NDArray[np.float32]]:
    import sigpy.mri.app

    app = sigpy.mri.app.EspiritCalib(
        virtual,
        calib_width=width,
        thresh=threshold,
        kernel_width=KERNEL_WIDTH,
        crop=0,
        output_eigenvalue=True,
        show_pbar=False,
    )
    # sigpy refers phases to the first coil, here the principal one, and divides 0 by 0 where it is exactly dark
    with np.errstate(invalid="ignore", divide="ignore"):
        maps, eigenvalues = app.run()
    return np.nan_to_num(maps), np.nan_to_num(eigenvalues).real.astype(np.float32).reshape(maps.shape[1:])


def _espirit_positions(
    virtual: Complex64,
    width_x: int,
    width: int,
    n_sets: int,
    crop: float,
    matrix: tuple[int, ...],
    back: Complex64 | None,
) -> tuple[Complex64, NDArray[np.float32]]:
    n_coils, n_x = virtual.shape[:2]
    region = (slice(None), *(centred(n, width) for n in virtual.shape[2:]))
    middle = centred(n_x, width_x)
    central = np.zeros((n_coils, width, width, n_x), dtype=np.complex64)
    central[..., middle] = np.moveaxis(virtual[:, middle], 1, -1)[region]
    hybrid = np.moveaxis(centred_ifft(torch.from_numpy(central), 1).numpy(), -1, 0)
    signal = max(_largest_singular_value(position, width) for position in hybrid)
    sets = () if n_sets == 1 else (n_sets,)
    maps = np.zeros((*sets, n_coils, n_x, *matrix), dtype=np.complex64)
    eigenvalues = np.zeros((*(() if n_sets == 1 else (n_sets, 1)), n_x, *matrix), dtype=np.float32)
    placed = np.zeros((n_coils, *matrix), dtype=np.complex64)
    for index, position in enumerate(hybrid):
        placed[(slice(None), *(centred(n, width) for n in matrix))] = position
        found, eigenvalues[..., index, :, :] = _espirit_slice(placed, width, signal, n_sets, crop)
        maps[..., index, :, :] = found if back is None else np.einsum("ab,...byz->...ayz", back, found)
    return maps, eigenvalues


def _espirit_slice(
    virtual: Complex64, width: int, signal: float | None, n_sets: int, crop: float
) -> tuple[Complex64, NDArray[np.float32]]:
    """ESPIRiT of one slice whose noise is judged against the ``signal`` of the strongest one, if there are others."""
    threshold = THRESHOLD
    if signal is not None:
        largest = _largest_singular_value(virtual, width)
        if largest <= THRESHOLD * signal:
            shape = virtual.shape[1:]
            empty = np.zeros_like(virtual), np.zeros(shape, dtype=np.float32)
            return empty if n_sets == 1 else (np.stack([empty[0]] * n_sets), np.stack([empty[1][None]] * n_sets))
        threshold = THRESHOLD * signal / largest
    if n_sets == 1:
        return _espirit_one(virtual, width, threshold)
    return espirit_sets(virtual, width, KERNEL_WIDTH, threshold, n_sets, crop)


def _largest_singular_value(kspace: Complex64, width: int) -> float:
    blocks = calibration_blocks(kspace, width, KERNEL_WIDTH)
    return float(np.linalg.norm(blocks.reshape(len(blocks), -1), ord=2))


def centred(n: int, width: int) -> slice:
    """The ``width`` central places of an axis of ``n``."""
    start = n // 2 - width // 2
    return slice(start, start + width)


def _rotate_to_first(maps: Complex64) -> Complex64:
    """Normalise each voxel's coil vector and turn its first entry to phase zero."""
    length = np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    phase = np.exp(-1j * np.angle(maps[0]))
    return np.where(length > 0, maps * phase / np.where(length > 0, length, 1), 0).astype(np.complex64)
