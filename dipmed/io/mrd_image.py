"""Images in ISMRMRD files (Inati et al., doi:10.1002/mrm.26089)."""

from __future__ import annotations

import ctypes
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.files import atomic_write
from dipmed.patient import mrd_from_affine
from dipmed.scan import ImageVolume

_GROUP = "image_0"


def write_mrd_images(volume: ImageVolume, path: Path, *, force: bool = False) -> None:
    """Write one ISMRMRD image for each frame, ``(1, z, y, x)``, with position and directions in LPS.

    Raises
    ------
    GeometryError
        When the affine is sheared, which the format cannot express.
    OutputError
        When the file exists and ``force`` is not set, or cannot be written.
    """
    import ismrmrd

    frames = volume.data if volume.data.ndim == 4 else volume.data[..., None]
    # in memory first: HDF5 does not report a full disk in one clear way
    buffer = BytesIO()
    dataset = ismrmrd.Dataset(buffer, mode="w")
    for index in range(frames.shape[3]):
        dataset.append_image(_GROUP, _image(frames[..., index], volume.affine, index))
    dataset.close()
    with atomic_write(path, force=force) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _image(array: NDArray[Any], affine: NDArray[np.float64], index: int) -> Any:
    import ismrmrd

    geometry = mrd_from_affine(affine, array.shape)
    image = ismrmrd.Image.from_array(np.ascontiguousarray(array.T))
    field_of_view = [size * n for size, n in zip(geometry.voxel_mm, array.shape, strict=True)]
    for name, vector in (
        ("field_of_view", field_of_view),
        ("position", geometry.position),
        ("read_dir", geometry.read_dir),
        ("phase_dir", geometry.phase_dir),
        ("slice_dir", geometry.slice_dir),
    ):
        setattr(image, name, tuple(ctypes.c_float(float(value)) for value in vector))
    image.image_type = ismrmrd.IMTYPE_COMPLEX if np.iscomplexobj(array) else ismrmrd.IMTYPE_MAGNITUDE
    image.image_index = index + 1
    image.image_series_index = 1
    return image
