"""Data-Exchange: HDF5 of synchrotrons with readings, flats, darks and angles.

F. De Carlo et al., 2014, doi:10.1107/S160057751401604X.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.counts import integrals_from_counts
from dipmed.io.geometry import Description
from dipmed.io.hdf5 import find_dataset, open_hdf5, read_array
from dipmed.io.projection_scan import projection_scan
from dipmed.scan import DipmedError, FormatError, GeometryError, ProjectionScan, ShapeError
from operators.ct_geometry import ParallelBeam, angles_over

if TYPE_CHECKING:
    import h5py

_DATA, _WHITE, _DARK, _THETA = (f"exchange/{name}" for name in ("data", "data_white", "data_dark", "theta"))


def is_data_exchange(file: h5py.File) -> bool:
    """Say whether the file has readings where this format keeps them."""
    return find_dataset(file, _DATA) is not None


def read(path: Path) -> ProjectionScan:
    """Read parallel projections: ``exchange/data`` (view, row, column), ``data_white``, ``data_dark``, ``theta``.

    Flats and darks are averaged. Angles are in degrees, or in radians where all of ten or more lie within a turn in
    those. Attributes are not read.

    Raises
    ------
    FormatError, ShapeError, GeometryError
        When something is missing or damaged, or does not fit.
    """
    with open_hdf5(path) as file:
        readings = _needed(file, _DATA)
        if readings.ndim != 3:
            raise ShapeError(f"{path}: {_DATA} should be (view, row, column), but is {readings.shape}")
        flat = _average(_needed(file, _WHITE), readings.shape, f"{path}: {_WHITE}")
        dark_given = find_dataset(file, _DARK)
        dark = np.zeros_like(flat)
        if dark_given is not None:
            dark = _average(read_array(dark_given), readings.shape, f"{path}: {_DARK}")
        theta = find_dataset(file, _THETA)
        angles, about_angles = _angles(None if theta is None else read_array(theta), len(readings), path)
    assumptions = [*about_angles, "The size of a detector element is unknown: 1 mm was assumed."]
    if dark_given is None:
        assumptions.append("There is no dark reading: zero was assumed.")
    assumptions.append(
        "The scanner was taken to turn counter-clockwise seen from the last row; else the image is mirrored."
    )
    what = f"{path}: {_DATA}"
    found = integrals_from_counts(readings.transpose(1, 0, 2), flat[:, None], dark[:, None], what)
    try:
        beam = ParallelBeam(angles, readings.shape[2], 1.0)
    except DipmedError as error:
        raise GeometryError(f"{path}: {error}") from error
    return projection_scan(
        found.values,
        # rows are as high as columns are wide
        Description(beam, slice_mm=1.0, centre_known=False),
        source="data-exchange",
        what=what,
        counts=found.weights,
        assumptions=tuple(assumptions),
        notes=found.notes,
    )


def _needed(file: h5py.File, name: str) -> NDArray[Any]:
    dataset = find_dataset(file, name)
    if dataset is None:
        raise FormatError(f"{file.filename} has no {name}; line integrals need readings and flats")
    return read_array(dataset)


def _average(frames: NDArray[Any], shape: tuple[int, ...], what: str) -> NDArray[np.float64]:
    """Mean of the frames, ``(row, column)``."""
    if frames.shape[-2:] != shape[1:] or frames.ndim not in (2, 3) or not len(frames) or frames.dtype.kind not in "iuf":
        raise ShapeError(f"{what} should be frames of {shape[1:]} like the readings, but is {frames.shape}")
    mean: NDArray[np.float64] = frames.reshape(-1, *shape[1:]).mean(axis=0, dtype=np.float64)
    return mean


def _angles(theta: NDArray[Any] | None, n_views: int, path: Path) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Angles in radians, and what was assumed about them."""
    if theta is None:
        return angles_over(n_views), (f"There are no angles: {n_views} views evenly over half a turn were assumed.",)
    if theta.shape != (n_views,) or theta.dtype.kind not in "iuf":
        raise ShapeError(f"{path}: there are {n_views} views, but {_THETA} has {theta.shape} {theta.dtype}")
    angles = theta.astype(np.float64)
    if not np.isfinite(angles).all():
        raise GeometryError(f"{path}: {_THETA} has angles that are NaN or infinite")
    if n_views >= 10 and np.ptp(angles) <= 2 * math.pi:
        return tuple(angles.tolist()), ("The angles are so close to each other that they were taken as radians.",)
    return tuple(np.radians(angles).tolist()), ()
