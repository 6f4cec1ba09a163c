"""Volumes as the page's viewer takes them: slices turned as doctors look at them, 16 bits a voxel, packed."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dipmed.patient import picture_axes
from dipmed.places import Places
from dipmed.scan import ImageVolume

_MOST_VOXELS = 2**25
"""Of one volume; of a larger one the page shows every second, third, … slice, so that browsers can hold it."""

_WHITE = 99.9
_STEPS = 2**16 - 1


@dataclass(frozen=True)
class Layer:
    """A volume of the page.

    ``kind`` is ``"image"`` for what is shown in grey and shares one window, ``"map"`` for what is shown in colours.
    Maps of one ``group`` share their window, those without a group have one each. ``white`` is where a window ends at
    first; None for the brightest voxels. What is ``below`` stands under the layer before it.
    """

    title: str
    caption: str
    kind: Literal["image", "map"]
    volume: ImageVolume
    group: str = ""
    white: float | None = None
    below: bool = False


@dataclass(frozen=True)
class Viewer:
    """The viewer's data, for JSON; panels in columns, each with title and caption; how many slices of how many."""

    data: dict[str, Any]
    columns: tuple[tuple[tuple[str, str], ...], ...]
    shown: int
    of: int


def pack(layers: Sequence[Layer], places: Places) -> Viewer:
    """Pack volumes of one shape and place."""
    volume = layers[0].volume
    n_slices = volume.data.shape[2]
    n = n_slices * places.n_frames
    chosen = list(range(0, n, -(-volume.data.size // _MOST_VOXELS)))
    axes = picture_axes(volume.affine)
    sizes = np.linalg.norm(volume.affine[:3, :2], axis=0)
    packed = [_pack(layer, chosen) for layer in layers]
    slices = []
    for number in chosen:
        place = divmod(number, n_slices)
        slices.append({"label": places.name_slice(*place), "part": places.part_of(*place)})
    data = {
        "layers": packed,
        "slices": slices,
        "rows": volume.data.shape[axes.down],
        "columns": volume.data.shape[axes.across],
        "rowMm": float(sizes[axes.down]),
        "columnMm": float(sizes[axes.across]),
    }
    columns: list[tuple[tuple[str, str], ...]] = []
    for layer in layers:
        above = columns.pop() if layer.below else ()
        columns.append((*above, (layer.title, layer.caption)))
    return Viewer(data, tuple(columns), len(chosen), n)


def _pack(layer: Layer, chosen: Sequence[int]) -> dict[str, Any]:
    values = shown(layer.volume.data)
    values = values.reshape(*values.shape[:2], -1, order="F")[:, :, chosen]
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    turn = picture_axes(layer.volume.affine).turn
    steps = np.stack([turn(values[:, :, index]) for index in range(values.shape[2])])
    steps = ((steps - low) * (_STEPS / span)).round().astype("<u2")
    black = min(0.0, float(np.percentile(values, 100 - _WHITE)))
    white = float(np.percentile(values, _WHITE)) if layer.white is None else layer.white
    return {
        "kind": layer.kind,
        "group": layer.group,
        "low": low,
        "step": span / _STEPS,
        "window": [black, white if white > black else black + span],
        "voxels": base64.b64encode(zlib.compress(np.ascontiguousarray(steps).tobytes(), 6)).decode(),
    }


def shown(values: NDArray[Any]) -> NDArray[np.float32]:
    """What is shown of an image: its magnitude where it is complex; what is no number as zero."""
    magnitude: NDArray[Any] = np.abs(values) if np.iscomplexobj(values) else values
    return np.nan_to_num(magnitude.astype(np.float32), posinf=0.0, neginf=0.0)
