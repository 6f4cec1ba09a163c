"""The image volume that a restoration starts from, and the mask of what it is to fill."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipmed.io.dicom_series import read_series
from dipmed.io.files import ending_of
from dipmed.io.images import check_volume, is_series, load_image, load_volume
from dipmed.scan import DipmedError, GeometryError, ImageVolume, ShapeError

_MISPLACED = 0.1
"""Of a voxel, by which the corners of a mask may lie elsewhere."""


@dataclass(frozen=True)
class SourceVolume:
    """A volume, the unit of its values and DICOM's word for the modality where files say them, and what was assumed."""

    volume: ImageVolume
    unit: str | None = None
    modality: str | None = None
    notes: tuple[str, ...] = ()


def read_source_volume(path: str | Path, series: str | None = None) -> SourceVolume:
    """Read an image file, or a series of DICOM slices of any modality, of several the named one.

    Raises
    ------
    FormatError
        When it cannot be read, or has voxels that are no finite numbers.
    DipmedError
        When it is complex or has frames.
    """
    path = Path(path)
    if not is_series(path):
        return SourceVolume(load_volume(path))
    found = read_series(path, series)
    unit = "HU" if found.modality == "CT" else None
    return SourceVolume(check_volume(found.volume, path), unit, found.modality, found.notes)


def read_holes(path: str | Path, volume: ImageVolume) -> NDArray[np.bool_]:
    """Read which voxels of a volume are to be filled, bool ``(x, y, z)``: those of an image that are not zero.

    Raises
    ------
    ShapeError
        When it has another shape.
    GeometryError
        When it lies elsewhere, as far as its format says where.
    DipmedError
        When it leaves nothing to fill, or nothing to fill it from.
    """
    mask = load_image(path)
    if mask.data.shape != volume.data.shape:
        raise ShapeError(f"the mask {path} must have the volume's shape {volume.data.shape}, but is {mask.data.shape}")
    corners = np.array([[x, y, z, 1] for x, y, z in np.ndindex(2, 2, 2)])
    corners[:, :3] *= np.array(mask.data.shape) - 1
    moved = float(np.linalg.norm(corners @ (mask.affine - volume.affine).T, axis=1).max())
    has_place = ending_of(path) not in (".npy", ".cfl")
    if has_place and moved > _MISPLACED * np.linalg.norm(volume.affine[:3, :3], axis=0).min():
        raise GeometryError(f"the mask {path} lies up to {moved:.3g} mm off the volume; resample it to the same grid")
    holes = mask.data != 0
    if not holes.any() or holes.all():
        raise DipmedError(f"the mask {path} marks {'every' if holes.any() else 'no'} voxel to be filled")
    return holes
