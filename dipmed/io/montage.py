"""One picture of a volume: its slices side by side, turned as doctors look at them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.files import atomic_write
from dipmed.patient import picture_axes
from dipmed.scan import ImageVolume

_MOST_TILES = 64
_WINDOW_PERCENTILE = 99.9
_SQUARE = 0.02  # a voxel whose sides differ by less is drawn as it is


def montage(volume: ImageVolume) -> NDArray[np.uint8]:
    """Return all slices (at most 64, evenly chosen) as grey values of one picture, complex ones as magnitudes.

    Frames follow each other, each with its slices. Black is zero, or the 0.1th percentile where there are negative
    values, white the 99.9th percentile of the volume.
    Voxels are drawn square in mm, the patient's right is on the left (see `dipmed.patient.picture_axes`).
    """
    values = (np.abs(volume.data) if np.iscomplexobj(volume.data) else volume.data).astype(np.float32)
    values = values.reshape(*values.shape[:2], -1, order="F")
    n = values.shape[2]
    chosen = np.unique(np.linspace(0, n - 1, min(n, _MOST_TILES)).round().astype(int))
    black = min(0.0, float(np.percentile(values, 100 - _WINDOW_PERCENTILE)))
    white = float(np.percentile(values, _WINDOW_PERCENTILE)) or float(values.max()) or black + 1.0
    tiles = [_tile((values[:, :, index] - black) / (white - black), volume.affine) for index in chosen]
    height, width = tiles[0].shape
    n_columns = min(len(tiles), max(1, round(math.sqrt(len(tiles) * height / width))))
    n_rows = math.ceil(len(tiles) / n_columns)
    tiles += [np.zeros_like(tiles[0])] * (n_rows * n_columns - len(tiles))
    rows = [np.hstack(tiles[start : start + n_columns]) for start in range(0, len(tiles), n_columns)]
    return (np.clip(np.vstack(rows), 0, 1) * 255).round().astype(np.uint8)


def write_montage(volume: ImageVolume, path: Path, *, force: bool = False) -> None:
    """Write the montage as a PNG."""
    from matplotlib.image import imsave

    grey = montage(volume)
    with atomic_write(path, force=force) as temporary:
        imsave(temporary, grey, cmap="gray", vmin=0, vmax=255, format="png")


def _tile(slice_: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Turn one slice ``(x, y)`` upright, with square pixels."""
    from scipy.ndimage import zoom

    sizes = np.linalg.norm(affine[:3, :2], axis=0)
    factors = sizes / sizes.min()
    if factors.max() > 1 + _SQUARE:
        slice_ = zoom(slice_, factors, order=1, grid_mode=True, mode="nearest")
    return picture_axes(affine).turn(slice_)
