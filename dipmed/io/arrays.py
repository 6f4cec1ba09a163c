"""Sensitivity maps and sampling masks from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.bart_file import spatial_axes
from dipmed.io.cfl import read_cfl
from dipmed.io.files import check_source, ending_of
from dipmed.io.npy import npz_variables, read_npy, read_npz
from dipmed.io.samples import as_mask, check_samples
from dipmed.scan import Complex64, FormatError

_MAP_NAMES = ("maps", "sens", "csm", "coil_maps", "sensitivities")
_MASK_NAMES = ("mask", "sampling_mask", "samp")
_BART_AXES = 16
_BART_COIL, _BART_SLICE = 3, 13


def load_maps(path: str | Path) -> Complex64:
    """Read coil sensitivity maps, ``(slice, coil, x, y)`` or ``(1, coil, x, y, z)``.

    An ``.npy`` or ``.npz`` (array ``maps``) has these axes, or (coil, x, y) for one slice. A BART ``.cfl`` has
    BART's, with one set of maps.

    Raises
    ------
    FormatError
        When the file is damaged, of another kind, or holds no maps.
    """
    path = Path(path)
    array = _read(path, _maps_from_bart, _MAP_NAMES)
    maps = check_samples(array, str(path), kind="a coil sensitivity map")
    if maps.ndim == 3:
        maps = maps[None]
    if maps.ndim not in (4, 5) or (maps.ndim == 5 and maps.shape[0] != 1):
        raise FormatError(
            f"{path} should hold maps (slice, coil, x, y), (coil, x, y) or (1, coil, x, y, z), but is {maps.shape}"
        )
    return maps


def load_mask(path: str | Path) -> NDArray[np.bool_]:
    """Read a sampling mask of zeros and ones, ``(y,)``, ``(x, y)``, ``(x, y, z)`` or ``(slice, x, y)``.

    From an ``.npy``, an ``.npz`` (array ``mask``) or a BART ``.cfl``.

    Raises
    ------
    FormatError
        When the file is damaged or of another kind, or holds anything but 0 and 1.
    """
    path = Path(path)
    array = _read(path, _mask_from_bart, _MASK_NAMES)
    if array.ndim not in (1, 2, 3):
        raise FormatError(f"{path} should hold a mask (y,), (x, y), (x, y, z) or (slice, x, y), but is {array.shape}")
    return as_mask(array, str(path))


def _read(path: Path, from_bart: Callable[[Path], NDArray[Any]], names: tuple[str, ...]) -> NDArray[Any]:
    """Read BART's pair, an ``.npy``, or of an ``.npz`` the array with one of the names or its only one."""
    ending = ending_of(path)
    if ending not in (".npy", ".npz", ".cfl"):
        raise FormatError(f"{path} cannot be read: its ending should be .npy, .npz or .cfl")
    check_source(path)
    if ending == ".cfl":
        return from_bart(path)
    if ending == ".npy":
        return read_npy(path)
    found = list(npz_variables(path))
    usual = [name for name in names if name in found]
    if not usual and len(found) != 1:
        raise FormatError(f"{path} should hold an array {names[0]!r}, but has {', '.join(found) or 'nothing'}")
    return read_npz(path, usual[0] if usual else found[0])


def _maps_from_bart(path: Path) -> Complex64:
    """Read BART's maps as (slice, coil, x, y[, z])."""
    array = read_cfl(path)
    array = array.reshape([*array.shape, *[1] * (_BART_AXES - array.ndim)])
    sets = {axis: n for axis, n in enumerate(array.shape) if n > 1 and axis > _BART_COIL and axis != _BART_SLICE}
    if sets:
        listed = ", ".join(f"axis {axis}: {n}" for axis, n in sets.items())
        raise FormatError(f"{path} has more than one set of maps ({listed}); keep one")
    kept = [_BART_SLICE, _BART_COIL, *spatial_axes(array, path)]
    others = [axis for axis in range(_BART_AXES) if axis not in kept]
    return array.transpose([*kept, *others]).reshape([array.shape[axis] for axis in kept])


def _mask_from_bart(path: Path) -> NDArray[Any]:
    """Read BART's sampling pattern, without the axes of size 1."""
    array = read_cfl(path)
    if array.ndim > _BART_COIL:
        raise FormatError(f"{path} should hold a mask of BART's axes 0 to 2 alone, but is {array.shape}")
    return array.squeeze()
