"""Masks of a network's weights, as truth values in an ``.npz`` file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipmed.io.files import atomic_write, check_source
from dipmed.io.npy import npz_variables, read_npz
from dipmed.scan import FormatError


def save_masks(masks: Mapping[str, Tensor], path: str | Path, *, force: bool = False) -> None:
    """Write masks by the names of their weights; the file appears whole or not at all.

    Raises
    ------
    OutputError
        When the file exists and ``force`` is not set, or cannot be written.
    """
    arrays: dict[str, Any] = {name: mask.cpu().numpy() for name, mask in masks.items()}
    with atomic_write(path, force=force) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_masks(path: str | Path) -> dict[str, Tensor]:
    """Read a file that `save_masks` has written.

    Raises
    ------
    FormatError
        When it is damaged or holds other things than truth values.
    """
    path = Path(path)
    check_source(path)
    arrays = {name: read_npz(path, name) for name in npz_variables(path)}
    if not arrays or any(array.dtype != np.bool_ for array in arrays.values()):
        raise FormatError(f"{path} should hold masks of weights, truth values by name, but has {', '.join(arrays)}")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
