"""K-space in MATLAB files: v5 (``-v6``, ``-v7``) and v7.3, which is HDF5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io import mat5
from dipmed.io.assemble import NamedArray, cartesian_scan
from dipmed.io.hdf5 import find_dataset, open_hdf5, read_array
from dipmed.io.noncartesian import trajectory_scan
from dipmed.io.sidecar import Sidecar, read_sidecar
from dipmed.io.variables import Variable, axes_or_usual, choose_kspace, choose_mask, choose_trajectory
from dipmed.scan import FormatError, KSpaceScan

USUAL_AXES = {
    2: ("x", "y"),
    3: ("x", "y", "coil"),
    4: ("x", "y", "slice", "coil"),
    5: ("x", "y", "slice", "coil", "frame"),
}
_COMPLEX_FIELDS = ("real", "imag")
_MOST_VARIABLES = 1000


def read(path: Path) -> KSpaceScan:
    """Read k-space from a MATLAB file and the JSON file beside it, if there is one.

    Without a JSON file the array is found by its name or by being the only complex one, and its axes are
    (x, y, coil) or (x, y, slice, coil); both are listed as assumptions. A complex array ``k`` or ``traj`` with one
    position for each sample (kx + i ky, cycles per pixel) makes the scan non-Cartesian.

    Raises
    ------
    FormatError, ShapeError
        When a file is damaged, the JSON is not valid, or no array can be k-space.
    """
    import h5py

    sidecar = read_sidecar(path)
    if h5py.is_hdf5(path):
        variables = _hdf5_variables(path)
        return _scan(path, sidecar, variables, lambda name: _hdf5_array(path, name))
    found = mat5.list_variables(path)
    described = {name: Variable(entry.shape, entry.is_complex) for name, entry in found.items()}
    return _scan(path, sidecar, described, lambda name: mat5.read_variable(path, found[name]))


def _scan(
    path: Path, sidecar: Sidecar, variables: dict[str, Variable], get: Callable[[str], NDArray[Any]]
) -> KSpaceScan:
    name = choose_kspace(variables, sidecar, path)
    what = f"{path}: {name}"
    chosen = () if sidecar.variable else (f"The array {name!r} was taken as the k-space.",)
    trajectory = choose_trajectory(variables, name, variables[name].shape[:-1], sidecar, path)
    kspace = get(name)
    if trajectory is not None:
        samples, positions = _readouts_last(kspace, get(trajectory))
        scan = trajectory_scan(samples, positions, sidecar, source="matlab", what=what)
        taken = f"{trajectory!r} was taken as its trajectory, the last axis of {name!r} as the coil."
        return scan.replace(assumptions=(*chosen, taken, *scan.assumptions))
    axes, assumed = axes_or_usual(kspace.shape, sidecar, USUAL_AXES, what)
    mask = choose_mask(variables, sidecar, path)
    return cartesian_scan(
        NamedArray(kspace, axes, what),
        sidecar,
        source="matlab",
        mask=None if mask is None else get(mask),
        assumptions=chosen + assumed,
    )


def _readouts_last(kspace: NDArray[Any], trajectory: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Turn (sample, spoke..., coil) and (sample, spoke...[, dimension]) so that samples are neighbours at the end."""
    n = kspace.ndim - 1
    turned = kspace.transpose(range(n, -1, -1))[None]
    return turned, trajectory.transpose([*range(n - 1, -1, -1), *range(n, trajectory.ndim)])[None]


def _hdf5_variables(path: Path) -> dict[str, Variable]:
    """Describe the numeric arrays at the top level; cells, structures and MATLAB's own groups are left out."""
    found = {}
    with open_hdf5(path) as file:
        if len(file) > _MOST_VARIABLES:
            raise FormatError(f"{path} has {len(file)} variables; save the k-space alone")
        for name in file:
            dataset = find_dataset(file, name)
            if dataset is not None and dataset.shape is not None and not dataset.dtype.hasobject:
                is_complex = dataset.dtype.kind == "c" or dataset.dtype.names == _COMPLEX_FIELDS
                found[name] = Variable(tuple(reversed(dataset.shape)), is_complex)
    return found


def _hdf5_array(path: Path, name: str) -> NDArray[Any]:
    """Read an array with MATLAB's order of axes, which HDF5 holds reversed."""
    with open_hdf5(path) as file:
        dataset = find_dataset(file, name)
        if dataset is None:
            raise FormatError(f"{path} has no array {name!r}")
        array = read_array(dataset)
    if array.dtype.names == _COMPLEX_FIELDS:
        array = mat5.join_complex(array["real"], array["imag"])
    return np.transpose(array)
