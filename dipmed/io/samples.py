"""Checks of measured samples, and where their centre is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import Complex64, FormatError, ShapeError

_LARGEST = 1e15  # sums of squares of more samples than a scan has stay within single precision
_MARGIN = 2.0  # how many times more energy the corner must hold before the centre is given up


def check_samples(array: NDArray[Any], what: str, kind: str = "k-space") -> Complex64:
    """Return measured samples as complex64 after making sure that they can be what their ``kind`` says.

    Raises
    ------
    FormatError
        When it is real, empty, not finite, zero throughout, or too large for single precision.
    """
    check_kind(array, what, kind)
    with np.errstate(over="ignore", invalid="ignore"):
        samples: Complex64 = array.astype(np.complex64, copy=False)
        # NaN is not below anything
        n_bad = samples.size - int((np.abs(samples) < _LARGEST).sum())
    if n_bad:
        raise FormatError(
            f"{n_bad} of {samples.size} samples of {what} are NaN, infinite or larger than 1e15; export them again"
        )
    if not samples.any():
        raise FormatError(f"all {samples.size} samples of {what} are zero; nothing can be reconstructed from them")
    return samples


def check_kind(array: NDArray[Any], what: str, kind: str = "k-space") -> None:
    """Refuse what is no array of complex numbers.

    Raises
    ------
    FormatError
        When it is real, or empty.
    """
    if array.dtype.kind != "c":
        raise FormatError(
            f"{what} holds {array.dtype} numbers, but {kind} is complex; "
            "store it as one complex array (real part + 1j * imaginary part)"
        )
    if array.size == 0:
        raise FormatError(f"{what} is empty, its shape is {array.shape}")


def check_images(kspace: NDArray[Any], what: str) -> tuple[Complex64, tuple[str, ...]]:
    """Do as `check_samples` does with ``(frame, slice, …)``, but leave an image empty that holds damaged samples.

    Of one image, or where every image is damaged, nothing is left, and the samples are refused.

    Returns
    -------
    kspace, assumptions
        The samples, and a sentence that names the images which were left empty.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        good = (np.abs(kspace) < _LARGEST).all(axis=tuple(range(2, kspace.ndim)))
    sentences = left_empty(good, "samples")
    if sentences:
        kspace = np.where(good.reshape(good.shape + (1,) * (kspace.ndim - 2)), kspace, kspace.dtype.type(0))
    return check_samples(kspace, what), sentences


def left_empty(good: NDArray[np.bool_], values: str) -> tuple[str, ...]:
    """Name the images ``(frame, slice)`` that are not good; nothing where all are, or none is."""
    if good.all() or not good.any():
        return ()
    of_frame = [f" of frame {frame}" if len(good) > 1 else "" for frame in range(len(good))]
    names = ", ".join(f"slice {index}{of_frame[frame]}" for frame, index in np.argwhere(~good).tolist())
    return (f"Some {values} are NaN, infinite or far too large, so these images were left empty: {names}.",)


def sampled_locations(kspace: Complex64) -> NDArray[np.bool_]:
    """Take every location as sampled where any coil is not exactly zero.

    ``(frame, slice, coil, x, y[, z])`` to ``(frame, slice, x, y[, z])``.
    """
    return (kspace != 0).any(axis=2)


def as_mask(array: NDArray[Any], what: str) -> NDArray[np.bool_]:
    """Return a mask as bool after making sure that it holds nothing but 0 and 1.

    Raises
    ------
    FormatError
        When there are other values, or when nothing at all is sampled.
    """
    if array.dtype.kind not in "biufc" or not np.isin(array, (0, 1)).all():
        raise FormatError(f"{what} should hold 0 (not sampled) and 1 (sampled) alone")
    mask = array.astype(bool) if array.dtype.kind != "c" else array.real.astype(bool)
    if not mask.any():
        raise FormatError(f"{what} says that nothing was sampled")
    return mask


def fit_mask(mask: NDArray[np.bool_], kspace: Complex64, what: str) -> NDArray[np.bool_]:
    """Repeat a mask over the axes in front that it does not have.

    ``(y,)``, ``(x, y)``, ``(slice, x, y)`` or the like to ``(frame, slice, x, y[, z])`` of the k-space
    ``(frame, slice, coil, x, y[, z])``.

    Raises
    ------
    ShapeError
        When the shapes do not fit.
    """
    shape = kspace.shape[:2] + kspace.shape[3:]
    try:
        return np.broadcast_to(mask, shape).copy()
    except ValueError:
        raise ShapeError(
            f"{what} has the shape {mask.shape}; expected that of the k-space, {shape} (frame, slice, x, y[, z]), "
            "or the last axes of it"
        ) from None


def find_centre(energy: NDArray[Any], half_widths: tuple[int, ...], otherwise: str) -> str:
    """Say where most of the energy lies, ``"centre"`` (index ``n // 2``) or ``"corner"`` (index 0).

    Parameters
    ----------
    energy
        Energy at each location.
    half_widths
        For each axis how far the two windows that are compared reach from their middle.
    otherwise
        The answer when neither window holds clearly more.
    """

    def inside(middle_of: tuple[int, ...]) -> float:
        windows = [
            np.arange(middle - half, middle + half + 1) % n
            for middle, half, n in zip(middle_of, half_widths, energy.shape, strict=True)
        ]
        return float(energy[np.ix_(*windows)].sum(dtype=np.float64))

    centre = inside(tuple(n // 2 for n in energy.shape))
    corner = inside((0,) * energy.ndim)
    if corner > _MARGIN * centre:
        return "corner"
    if centre > _MARGIN * corner:
        return "centre"
    return otherwise


def centre_kspace(kspace: Complex64, ndim: int, centre: str, image_centre: str) -> Complex64:
    """Make the Fourier transform's origin index ``n // 2`` of the last ``ndim`` axes in k-space and in the image.

    Each is ``"corner"`` when the origin was index 0 there, as for a plain ``fft2`` of an image. A shift of the
    image is a phase over k-space, so samples that are zero stay exactly zero.
    """
    for axis in range(-ndim, 0):
        n = kspace.shape[axis]
        if centre == "corner":
            kspace = np.fft.fftshift(kspace, axes=axis)
        if image_centre == "corner":
            ramp = np.exp(2j * np.pi * (np.arange(n) - n // 2) * (n // 2) / n).astype(np.complex64)
            kspace = kspace * ramp.reshape([-1] + [1] * (-1 - axis))
    return kspace
