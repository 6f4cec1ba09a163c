"""From an array with named axes to a scan, with every assumption said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.samples import (
    as_mask,
    centre_kspace,
    check_images,
    check_kind,
    find_centre,
    fit_mask,
    sampled_locations,
)
from dipmed.io.sidecar import Sidecar
from dipmed.patient import default_affine, picture_affine
from dipmed.scan import Complex64, FormatError, KSpaceScan

MASK_FROM_ZEROS = "The file has no sampling mask: a location is taken as sampled where any coil is not exactly zero."

UNKNOWN_VOXEL = "The voxel size is unknown: 1 mm was assumed."


@dataclass(frozen=True)
class NamedArray:
    """An array out of a file, with a name for messages and one of `dipmed.io.sidecar.AXES` for each axis."""

    samples: NDArray[Any]
    axes: tuple[str, ...]
    what: str

    def __post_init__(self) -> None:
        if len(self.axes) != self.samples.ndim:
            raise FormatError(
                f"{self.what} has {self.samples.ndim} axes {self.samples.shape}, "
                f"but {len(self.axes)} are described: {', '.join(self.axes)}"
            )


def cartesian_scan(
    array: NamedArray,
    sidecar: Sidecar,
    *,
    source: str,
    mask: NDArray[Any] | None = None,
    assumptions: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> KSpaceScan:
    """Build a scan from an array file that knows nothing but the array itself.

    Where the origin of k-space and of the image are, is measured when the sidecar does not say it.

    Parameters
    ----------
    array
        K-space with named axes, complex.
    sidecar
        What the user says about it.
    source
        Name of the file format.
    mask
        Sampling mask as the file has it, in the order ``(frame, slice, x, y[, z])`` or the last axes of it;
        None: from the samples that are zero.
    assumptions, notes
        What the reader has to say so far.

    Raises
    ------
    FormatError, ShapeError
        When the array cannot be k-space, or the mask does not fit it.
    """
    kspace, damaged = standard_axes(array)
    ndim = kspace.ndim - 3
    sampled = sampled_locations(kspace) if mask is None else fit_mask(as_mask(mask, "the mask"), kspace, "the mask")
    if mask is None:
        assumptions += (MASK_FROM_ZEROS,)
    else:
        kspace = np.where(sampled[:, :, None], kspace, np.complex64(0))
    centre, image_centre, said = _origins(kspace, ndim, sidecar)
    if centre == "corner":
        sampled = np.fft.fftshift(sampled, axes=tuple(range(-ndim, 0)))
    affine, unknown = place(sidecar, kspace)
    return KSpaceScan(
        kspace=centre_kspace(kspace, ndim, centre, image_centre),
        mask=sampled,
        affine=affine,
        image_shape=kspace.shape[3:],
        source=source,
        frame_labels=frame_labels(kspace.shape[0]),
        sequence=sidecar.sequence,
        assumptions=assumptions + damaged + said + unknown,
        notes=notes,
    )


def standard_axes(array: NamedArray) -> tuple[Complex64, tuple[str, ...]]:
    """Return the samples as ``(frame, slice, coil, x, y)``, or with z at the end when it has more than one.

    With them comes what had to be assumed, see `dipmed.io.samples.check_images`.

    Raises
    ------
    FormatError
        When the samples are no k-space, when there is no plane, or both several slices and several z.
    """
    check_kind(array.samples, array.what)
    sizes = dict(zip(array.axes, array.samples.shape, strict=True))
    if sizes["x"] < 2 or sizes["y"] < 2:
        raise FormatError(f"{array.what} is {sizes['x']} x {sizes['y']} in x and y; an image needs at least 2 x 2")
    is_volume = sizes.get("z", 1) > 1
    if is_volume and sizes.get("slice", 1) > 1:
        raise FormatError(f"{array.what} has {sizes['slice']} slices and {sizes['z']} z; give one slab at a time")
    order = [axis for axis in ("frame", "slice", "coil", "x", "y", "z") if axis in sizes]
    kspace = array.samples.transpose([array.axes.index(axis) for axis in order])
    shape = [sizes.get(axis, 1) for axis in ("frame", "slice", "coil", "x", "y")]
    kspace, damaged = check_images(kspace.reshape(shape + ([sizes["z"]] if is_volume else [])), array.what)
    return np.ascontiguousarray(kspace), damaged


def place(sidecar: Sidecar, kspace: Complex64) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the affine and what had to be assumed for it."""
    if sidecar.affine is not None:
        return sidecar.affine, ()
    unknown = () if sidecar.voxel_mm else (UNKNOWN_VOXEL,)
    affine, assumed = unknown_place(sidecar.voxel_mm or (1.0, 1.0, 1.0), kspace.shape[3:], kspace.shape[1])
    return affine, (*unknown, assumed)


def unknown_place(
    voxel_mm: tuple[float, ...], image_shape: tuple[int, ...], n_slices: int
) -> tuple[NDArray[np.float64], str]:
    """Return the affine of images whose voxel size alone is known, and the assumption that it makes."""
    start = "The position and orientation in the patient are unknown: "
    if len(image_shape) == 3:
        directions = "x to the right, y to the front, z to the head"
        return default_affine(voxel_mm, image_shape), f"{start}{directions}, centred, were assumed."
    shape = (*image_shape, n_slices)
    return picture_affine(voxel_mm, shape), f"{start}axial slices, x from front to back, y from right to left, assumed."


def frame_labels(n_frames: int) -> tuple[dict[str, int], ...]:
    """Number the frames when there are several and the file does not say how they differ."""
    return ({},) if n_frames == 1 else tuple({"frame": index} for index in range(n_frames))


def _origins(kspace: Complex64, ndim: int, sidecar: Sidecar) -> tuple[str, str, tuple[str, ...]]:
    """Return the origin of k-space and of the image, said or measured, and a sentence for each that was measured."""
    said: tuple[str, ...] = ()
    centre, image_centre = sidecar.centre, sidecar.image_centre
    if centre is None:
        energy = np.square(np.abs(kspace)).sum(axis=(0, 1, 2))
        centre = find_centre(energy, tuple(max(1, n // 32) for n in energy.shape), otherwise="centre")
        said += (f"The centre of k-space was taken to be {_PLACES[centre]}, where the energy is.",)
    if image_centre is None:
        plane = centre_kspace(kspace[0, kspace.shape[1] // 2], ndim, centre, "centre")
        axes = tuple(range(-ndim, 0))
        images = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(plane, axes=axes), axes=axes), axes=axes)
        energy = np.square(np.abs(images)).sum(axis=0)
        image_centre = find_centre(energy, tuple(n // 4 for n in energy.shape), otherwise="centre")
        said += (f"The Fourier transform's origin in the image was taken to be {_PLACES[image_centre]}.",)
    return centre, image_centre, said


_PLACES = {"centre": "in the middle of the array", "corner": "at index 0, in the corner of the array"}
