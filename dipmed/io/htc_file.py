"""MATLAB structures of fan-beam scans as the Helsinki Tomography Challenge 2022 published them.

A. Meaney, F. Silva de Moura, S. Siltanen, doi:10.5281/zenodo.6984868.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dipmed.io import mat5
from dipmed.io.geometry import Description
from dipmed.io.hdf5 import find_dataset, find_group, open_hdf5, read_array
from dipmed.io.projection_scan import projection_scan
from dipmed.scan import DipmedError, FormatError, GeometryError, ProjectionScan, ShapeError
from operators.ct_geometry import FanBeam

if TYPE_CHECKING:
    import h5py

_FIELDS = {"sinogram", "parameters"}
_MOST_VARIABLES = 1000
_NUMBERS = ("distanceSourceOrigin", "distanceSourceDetector", "pixelSizePost", "numDetectorsPost", "angles")


def find_structures(path: Path) -> list[str]:
    """Return the names of the structures in a MATLAB file that hold a sinogram and its parameters.

    Raises
    ------
    FormatError
        When the file is damaged.
    """
    import h5py

    if not h5py.is_hdf5(path):
        return [name for name, entry in mat5.list_structures(path).items() if set(entry.fields) >= _FIELDS]
    with open_hdf5(path) as file:
        names = list(file) if len(file) <= _MOST_VARIABLES else []
        return [name for name in names if _is_scan(find_group(file, name))]


def read(path: Path) -> ProjectionScan:
    """Read the sinogram (view, column), line integrals of a fan and a flat detector, with angles in degrees.

    The direction of rotation and of the columns is that of `dipmed.operators.FanBeam`.

    Raises
    ------
    FormatError, ShapeError, GeometryError
        When something is missing or damaged, or does not fit.
    """
    import h5py

    names = find_structures(path)
    if len(names) != 1:
        raise FormatError(f"{path} should hold one structure with 'sinogram' and 'parameters', but has {names}")
    name = names[0]
    content = (
        _from_hdf5(path, name) if h5py.is_hdf5(path) else mat5.read_structure(path, mat5.list_structures(path)[name])
    )
    what = f"{path}: {name}"
    sinogram, parameters = content["sinogram"], content["parameters"]
    if not isinstance(sinogram, np.ndarray) or not isinstance(parameters, dict):
        raise FormatError(f"{what} should hold an array 'sinogram' and a structure 'parameters'")
    if sinogram.ndim != 2:
        raise ShapeError(
            f"{what}.sinogram should be (view, column), but is {sinogram.shape}; take one row of the detector"
        )
    unit = parameters.get("distanceUnit") or "mm"
    if unit != "mm":
        raise GeometryError(f"{what}: distances should be in mm, but are in {unit!r}")
    columns = int(_number(parameters, "numDetectorsPost", what))
    if columns != sinogram.shape[1]:
        raise ShapeError(f"{what}.sinogram has {sinogram.shape[1]} columns, but numDetectorsPost is {columns}")
    beam = _beam(parameters, columns, what)
    return projection_scan(
        sinogram[None],
        # the middle row of a cone, whose elements are square
        Description(beam, slice_mm=beam.column_mm * beam.source_to_axis_mm / beam.source_to_detector_mm),
        source="htc",
        what=f"{what}.sinogram",
    )


def _beam(parameters: dict[str, Any], columns: int, what: str) -> FanBeam:
    angles = _numbers(parameters, "angles", what)
    source_to_axis, source_to_detector, column = (_number(parameters, name, what) for name in _NUMBERS[:3])
    try:
        return FanBeam(tuple(np.radians(angles).tolist()), columns, column, source_to_axis, source_to_detector)
    except DipmedError as error:
        raise GeometryError(f"{what}: {error}") from error


def _numbers(parameters: dict[str, Any], name: str, what: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = parameters.get(name)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
        raise FormatError(f"{what}.parameters should have the number or numbers {name!r}")
    return values.reshape(-1).astype(np.float64)


def _number(parameters: dict[str, Any], name: str, what: str) -> float:
    values = _numbers(parameters, name, what)
    if values.size != 1 or not math.isfinite(values[0]):
        raise FormatError(f"{what}.parameters.{name} should be one finite number")
    return float(values[0])


def _is_scan(group: h5py.Group | None) -> bool:
    return group is not None and set(group) >= _FIELDS


def _from_hdf5(path: Path, name: str) -> dict[str, Any]:
    """Read what is needed of a structure in MATLAB's 7.3 files, whose axes HDF5 holds reversed."""
    with open_hdf5(path) as file:
        structure = find_group(file, name)
        parameters = None if structure is None else find_group(structure, "parameters")
        sinogram = None if structure is None else find_dataset(structure, "sinogram")
        if parameters is None or sinogram is None:
            return {"sinogram": None, "parameters": None}
        found: dict[str, Any] = {}
        for entry in _NUMBERS:
            dataset = find_dataset(parameters, entry)
            if dataset is not None:
                found[entry] = np.transpose(read_array(dataset))
        unit = find_dataset(parameters, "distanceUnit")
        if unit is not None:
            codes = read_array(unit).reshape(-1)[:16]
            found["distanceUnit"] = "".join(map(chr, codes)) if codes.dtype.kind == "u" else None
        return {"sinogram": np.transpose(read_array(sinogram)), "parameters": found}
