"""Projections in NumPy and TIFF files, whose geometry a JSON file beside them says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.counts import integrals_from_counts
from dipmed.io.geometry import Description, read_description
from dipmed.io.npy import read_npy
from dipmed.io.projection_scan import projection_scan
from dipmed.io.sidecar import sidecar_path
from dipmed.io.tiff import read_tiff
from dipmed.scan import FormatError, ProjectionScan, ShapeError
from operators.ct_geometry import ParallelBeam

_MOST_BYTES = 2**24


def has_beam(path: Path) -> bool:
    """Say whether the JSON file beside an array describes a beam: then the array is projections and not k-space."""
    beside = sidecar_path(path)
    try:
        if not beside.is_file() or beside.stat().st_size > _MOST_BYTES:
            return False
        content = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads the file as a sidecar says what is wrong with it
    return isinstance(content, dict) and "beam" in content


def read_numpy(path: Path) -> ProjectionScan:
    """Read an ``.npy`` file.

    Raises
    ------
    FormatError, ShapeError, GeometryError
        When a file is damaged, or the array does not fit what the JSON file says.
    """
    description = read_description(sidecar_path(path))
    return _scan(read_npy(path), description, "numpy-projections", str(path))


def read_pictures(path: Path) -> ProjectionScan:
    """Read a TIFF file of one or more pages, or a folder of them.

    Raises
    ------
    FormatError, ShapeError, GeometryError
        When a file is missing or damaged, or the pages do not fit what the JSON file says.
    """
    beside = sidecar_path(path)
    if not beside.is_file():
        raise FormatError(
            f"{path} holds pictures; for projections {beside.name} beside it has to say how their rays ran"
        )
    description = read_description(beside)
    pages = read_tiff(path)
    return _scan(pages[0] if len(pages) == 1 else pages, description, "tiff-projections", str(path))


def _scan(array: NDArray[Any], description: Description, source: str, what: str) -> ProjectionScan:
    axes, assumptions = _axes(array.shape, description, what)
    integrals = _in_order(array, axes, description, what)
    if description.values == "line-integrals":
        if description.flat is not None:
            raise FormatError(f'{what}: "flat" is for "values": "counts", but these are line integrals')
        return projection_scan(integrals, description, source=source, what=what, assumptions=assumptions)
    if description.flat is None:
        raise FormatError(f'{what}: counts need a "flat", the counts without an object')
    found = integrals_from_counts(integrals, np.array([description.flat]), np.array([description.dark]), what)
    return projection_scan(
        found.values,
        description,
        source=source,
        what=what,
        counts=found.weights,
        assumptions=assumptions,
        notes=found.notes,
    )


def _axes(shape: tuple[int, ...], description: Description, what: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the axes, and what was assumed about them."""
    if description.axes is not None:
        if len(description.axes) != len(shape):
            raise ShapeError(f"{what} has the axes {shape}, but the JSON file names {', '.join(description.axes)}")
        return description.axes, ()
    usual = {2: ("view", "column"), 3: ("view", "row", "column")}
    if len(shape) not in usual:
        raise ShapeError(f'{what} has the axes {shape}; say what they are: "axes": ["view", "row", "column"]')
    axes = usual[len(shape)]
    return axes, (f'The axes {shape} were taken as ({", ".join(axes)}); "axes" in the JSON file can say otherwise.',)


def _in_order(array: NDArray[Any], axes: tuple[str, ...], description: Description, what: str) -> NDArray[Any]:
    """Turn into (slice, view, column), or (1, view, row, column) of a volume; rows of parallel rays are slices."""
    if len(description.beam.shape) == 3:
        order: tuple[str, ...] = ("view", "row", "column")
    elif "slice" in axes or "row" not in axes:
        order = ("slice", "view", "column")
    else:
        order = ("row", "view", "column")
        if not isinstance(description.beam, ParallelBeam) and array.shape[axes.index("row")] > 1:
            raise ShapeError(
                f'{what} has rows of a fan: name that axis "slice" if each is a fan of its own, or say "cone"'
            )
    missing = [axis for axis in axes if axis not in order]
    if missing:
        raise ShapeError(f"{what} should have the axes {', '.join(order)}, but also has {', '.join(missing)}")
    turned = array.transpose([axes.index(axis) for axis in order if axis in axes])
    return turned if turned.ndim == len(description.beam.shape) + 1 else turned[None]
