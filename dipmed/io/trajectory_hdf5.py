"""HDF5 files with the samples in ``kspace`` and their positions in ``traj``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dipmed.io.hdf5 import find_dataset, is_plain, open_hdf5, read_array
from dipmed.io.noncartesian import trajectory_scan
from dipmed.io.sidecar import Sidecar
from dipmed.scan import FormatError, KSpaceScan, SequenceFigures

if TYPE_CHECKING:
    import h5py


def read(path: Path) -> KSpaceScan:
    """Read non-Cartesian k-space: ``kspace`` (frame, coil, spoke, sample), ``traj`` (frame, spoke, sample, dimension).

    Positions are in cycles per pixel. The attributes ``matrix``, ``TR_ms`` and ``flip_angle_deg`` are used when
    they are there.

    Raises
    ------
    FormatError, ShapeError
        When an array is missing or damaged, or the two do not fit.
    """
    with open_hdf5(path) as file:
        kspace, trajectory = find_dataset(file, "kspace"), find_dataset(file, "traj")
        if kspace is None or trajectory is None:
            raise FormatError(f"{path} should hold 'kspace' and 'traj', but has {', '.join(list(file)[:20])}")
        matrix = tuple(int(n) for n in _attribute(file, "matrix"))
        sidecar = Sidecar(matrix=matrix or None, sequence=_sequence(file))
        left_out = sorted(set(list(file)[:20]) - {"kspace", "traj"})
        samples = read_array(kspace)
        if samples.ndim != 4:
            raise FormatError(f"{path}: kspace should be (frame, coil, spoke, sample), but is {samples.shape}")
        return trajectory_scan(
            samples,
            read_array(trajectory),
            sidecar,
            source="hdf5-trajectory",
            what=f"{path}: kspace",
            notes=(f"Not used: {', '.join(left_out)}.",) if left_out else (),
        )


def _sequence(file: h5py.File) -> SequenceFigures:
    return SequenceFigures(
        repetition_times_s=tuple(ms / 1000 for ms in _attribute(file, "TR_ms")),
        flip_angles_rad=tuple(math.radians(degrees) for degrees in _attribute(file, "flip_angle_deg")),
    )


def _attribute(file: h5py.File, name: str) -> tuple[float, ...]:
    """Return an attribute's positive numbers, none when it is missing."""
    if name not in file.attrs:
        return ()
    stored = file.attrs.get_id(name)
    if not is_plain(stored.get_type(), stored.dtype):
        raise FormatError(f"the attribute {name} of {file.filename} should be positive numbers")
    values = np.atleast_1d(file.attrs[name])
    if values.dtype.kind not in "iuf" or values.ndim != 1 or not (np.isfinite(values).all() and (values > 0).all()):
        raise FormatError(f"the attribute {name} of {file.filename} should be positive numbers")
    return tuple(float(value) for value in values)
