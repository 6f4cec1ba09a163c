"""From the positions and directions of readouts to the order of slices and the place of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipmed.patient import (
    MrdGeometry,
    affine_from_mrd,
    default_affine,
    siemens_image_axes,
    stack_slices,
)
from dipmed.scan import GeometryError

_PARALLEL = 1e-3  # largest difference of direction cosines between slices of one stack
_NOTABLE_MISFIT_MM = 0.1


@dataclass(frozen=True)
class Placement:
    """Where slices are.

    Parameters
    ----------
    slice_index
        For each readout the index of its slice along the slice axis.
    n_slices
        How many slices there are.
    affine
        4x4, voxel index to RAS in mm.
    assumptions
        As in `dipmed.scan.KSpaceScan`.
    """

    slice_index: NDArray[np.int64]
    n_slices: int
    affine: NDArray[np.float64]
    assumptions: tuple[str, ...] = ()


def place_slices(
    slices: NDArray[np.int64],
    positions: NDArray[np.float64],
    directions: NDArray[np.float64],
    voxel_mm: tuple[float, float, float],
    shape: tuple[int, ...],
    *,
    siemens: bool,
) -> Placement:
    """Order slices by their position, and find the affine of the image.

    Parameters
    ----------
    slices
        Slice counter of each readout.
    positions
        Centre of the slice (or slab) of each readout, LPS, mm, ``(readout, 3)``.
    directions
        Read, phase and slice directions of each readout, LPS, ``(readout, 3, 3)``; zero where unknown.
    voxel_mm
        Voxel size along x, y and z; for a 2-D scan the last is the slice thickness.
    shape
        ``(x, y[, z])`` of the image.
    siemens
        Whether the directions are as Siemens' raw data have them.

    Raises
    ------
    GeometryError
        When slices are not parallel, overlap, or the figures are impossible.
    """
    numbers, first, index = np.unique(slices, return_index=True, return_inverse=True)
    index = index.reshape(-1)
    where, axes = positions[first], directions[first]
    if not axes.any():
        volume = shape if len(shape) == 3 else (*shape, len(numbers))
        unknown = (
            "The file does not say where the image lies in the patient; axes along right, front and head with the "
            "centre at the origin were assumed."
        )
        return Placement(index, len(numbers), default_affine(voxel_mm, volume), (unknown,))
    if np.abs(axes - axes[0]).max() > _PARALLEL:
        raise GeometryError(
            f"the {len(numbers)} slices of this scan are not parallel, so no single volume can hold them; "
            "export each orientation as a scan of its own"
        )
    image_axes = (axes[0, 0], axes[0, 1], axes[0, 2])
    if siemens:
        image_axes = siemens_image_axes(image_axes, three_d=len(shape) == 3)
    if len(shape) == 3:
        return Placement(index, 1, affine_from_mrd(MrdGeometry(where[0], *image_axes, voxel_mm), shape))
    assumptions: tuple[str, ...] = ()
    if len(numbers) > 1 and not np.ptp(where, axis=0).any():
        where = where + np.arange(len(numbers))[:, None] * voxel_mm[2] * image_axes[2]
        assumptions = (
            "The file gives one position for all slices; slices without gaps, in their order, were assumed.",
        )
    stack = stack_slices(where, image_axes, voxel_mm, (shape[0], shape[1]))
    rank = np.argsort(stack.order)
    assumptions += _unequal_spacing(stack.misfit_mm)
    return Placement(rank[index], len(numbers), stack.affine, assumptions)


def _unequal_spacing(misfit_mm: float) -> tuple[str, ...]:
    if misfit_mm <= _NOTABLE_MISFIT_MM:
        return ()
    return (
        f"The slices are unequally spaced; their mean spacing was assumed, and some lie up to {misfit_mm:.1f} mm from "
        "where the image has them.",
    )
