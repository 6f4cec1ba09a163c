"""Our formats for MONAI's ``LoadImage`` and ``SaveImage``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.image_reader import ImageReader
from monai.data.image_writer import SUPPORTED_WRITERS, ImageWriter, init, register_writer
from monai.transforms.io.array import SUPPORTED_READERS
from monai.utils.misc import ensure_tuple
from numpy.typing import NDArray

from dipmed.io import load, save_image
from dipmed.scan import DipmedError, ImageVolume, Scan
from dipmed.transforms.tensors import scan_to_tensor

_SCANS = (".h5", ".hdf5", ".mrd", ".mat", ".dat", ".cfl")
"""Endings of k-space and projections that no reader of MONAI's own claims."""

_IMAGES = ("cfl", "npz", "h5")
"""Endings of images that no writer of MONAI's own claims."""


class ScanReader(ImageReader):
    """Reads k-space and projections as ``LoadImage`` asks for it.

    Chosen by itself for ``.h5``, ``.mrd``, ``.mat``, ``.dat`` (Siemens) and ``.cfl`` (BART); for others, such as
    ``.npy`` or a folder of projections, by ``LoadImage(reader=ScanReader)``. ``LoadImage`` makes all values float32, so
    k-space comes as pairs of real and imaginary part along a last axis, as in ``monai.apps.reconstruction``; the rest
    is that of `LoadScan`.
    """

    def verify_suffix(self, filename: Sequence[str | PathLike[str]] | str | PathLike[str]) -> bool:
        return all(Path(name).suffix.lower() in _SCANS for name in ensure_tuple(filename))

    def read(self, data: Sequence[str | PathLike[str]] | str | PathLike[str], **_: Any) -> Scan:
        names = ensure_tuple(data)
        if len(names) != 1:
            raise DipmedError(f"a scan is one file or folder, got {len(names)}")
        return load(Path(names[0]))

    def get_data(self, img: Scan) -> tuple[NDArray[Any], dict[str, Any]]:
        tensor = scan_to_tensor(img)
        values = tensor.as_tensor()
        return (torch.view_as_real(values) if values.is_complex() else values).numpy(), dict(tensor.meta)


class VolumeWriter(ImageWriter):
    """Writes ``(channel, x, y, z)`` by `dipmed.io.save_image`, whole or not at all; nothing is resampled."""

    def set_data_array(
        self, data_array: Any, channel_dim: int | None = 0, squeeze_end_dims: bool = True, **_: Any
    ) -> None:
        array = np.asarray(data_array.as_tensor().cpu() if hasattr(data_array, "as_tensor") else data_array)
        if channel_dim is not None:
            array = np.moveaxis(array, channel_dim, -1)
        if squeeze_end_dims and array.ndim == 4 and array.shape[-1] == 1:
            array = array[..., 0]
        self.data_obj = array

    def set_metadata(self, meta_dict: Mapping[Any, Any] | None = None, **options: Any) -> None:
        affine = (meta_dict or {}).get("affine")
        self.affine = np.eye(4) if affine is None else np.asarray(affine, dtype=np.float64)

    def write(self, filename: str | PathLike[str], verbose: bool = False, **_: Any) -> None:
        volume = ImageVolume(np.asarray(self.data_obj), self.affine)
        save_image(volume, Path(filename), complex=np.iscomplexobj(volume.data), force=True)


def register() -> None:
    """Let ``LoadImage`` and ``SaveImage`` find these by the endings of files; again and again does no harm."""
    SUPPORTED_READERS["dipmed"] = ScanReader
    if not SUPPORTED_WRITERS:
        init()  # MONAI does so at the first look, and would not if ours were there already
    for ending in _IMAGES:
        register_writer(ending, VolumeWriter)
