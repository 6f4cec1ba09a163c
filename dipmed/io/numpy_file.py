"""K-space in NumPy's ``.npy`` and ``.npz`` files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dipmed.io.assemble import NamedArray, cartesian_scan
from dipmed.io.noncartesian import trajectory_scan
from dipmed.io.npy import npz_variables, read_npy, read_npz
from dipmed.io.sidecar import Sidecar, read_sidecar
from dipmed.io.variables import axes_or_usual, choose_kspace, choose_mask, choose_trajectory
from dipmed.scan import FormatError, KSpaceScan

USUAL_AXES = {
    2: ("x", "y"),
    3: ("coil", "x", "y"),
    4: ("slice", "coil", "x", "y"),
    5: ("frame", "slice", "coil", "x", "y"),
}


def read(path: Path) -> KSpaceScan:
    """Read k-space from an ``.npy`` or ``.npz`` file and the JSON file beside it, if there is one.

    Without a JSON file the axes are (coil, x, y) or (slice, coil, x, y), which is listed as an assumption; an
    ``.npz`` may also hold a ``mask``, or a trajectory: ``traj`` (spoke, sample, dimension) in cycles per pixel.

    Raises
    ------
    FormatError, ShapeError
        When a file is damaged, the JSON is not valid, or the array cannot be k-space.
    """
    sidecar = read_sidecar(path)
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    if is_archive:
        return _read_archive(path, sidecar)
    named = sorted(name for name in ("variable", "mask", "trajectory") if getattr(sidecar, name) is not None)
    if named:
        raise FormatError(f"{path} holds one array, so its JSON file cannot name {', '.join(named)}")
    return _cartesian(read_npy(path), sidecar, str(path))


def _read_archive(path: Path, sidecar: Sidecar) -> KSpaceScan:
    variables = npz_variables(path)
    name = choose_kspace(variables, sidecar, path)
    trajectory = choose_trajectory(variables, name, variables[name].shape[1:], sidecar, path)
    kspace = read_npz(path, name)
    what = f"{path}: {name}"
    if trajectory is not None:
        positions = read_npz(path, trajectory)
        return trajectory_scan(kspace[None], positions[None], sidecar, source="numpy", what=what)
    mask = choose_mask(variables, sidecar, path)
    return _cartesian(kspace, sidecar, what, None if mask is None else read_npz(path, mask))


def _cartesian(kspace: NDArray[Any], sidecar: Sidecar, what: str, mask: NDArray[Any] | None = None) -> KSpaceScan:
    axes, assumptions = axes_or_usual(kspace.shape, sidecar, USUAL_AXES, what)
    return cartesian_scan(NamedArray(kspace, axes, what), sidecar, source="numpy", mask=mask, assumptions=assumptions)
