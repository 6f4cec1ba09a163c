"""How the rays of a CT scan ran, as JSON: in our own projection files, and beside arrays that cannot say it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.patient import default_affine
from dipmed.scan import DipmedError, FormatError, GeometryError
from operators.ct_cone import ConeBeam, PosedBeam, VolumeBeam, volume_grid
from operators.ct_geometry import Beam, FanBeam, Grid, ParallelBeam, slice_grid

BEAMS: dict[str, type[Beam | VolumeBeam]] = {
    "parallel": ParallelBeam,
    "fan": FanBeam,
    "cone": ConeBeam,
    "posed": PosedBeam,
}
AXES = ("slice", "view", "row", "column")
VALUES = ("line-integrals", "counts")

_MOST_BYTES = 2**24
_MOST_VOXELS = 2**16 - 1  # along an axis


@dataclass(frozen=True)
class Description:
    """What the JSON object says about projections; its keys are the names of these fields.

    Parameters
    ----------
    beam
        An object: ``kind`` (one of `BEAMS`), ``angles_deg`` or ``angles_rad`` where it has angles, and the other
        fields of that class of `dipmed.operators`, in mm, rows and columns.
    image
        Pixels or voxels to reconstruct, an object with the fields of `dipmed.operators.Grid`; by default those of
        `dipmed.operators.slice_grid` or `volume_grid`.
    affine
        4x4, index of a voxel (x, y, slice or z) to RAS in mm.
    slice_mm
        Distance between slices, where there is no affine.
    axes
        Names of the array's axes as it is stored, out of `AXES`.
    values
        ``"line-integrals"``, the default, or ``"counts"``.
    flat, dark
        Counts without an object and without radiation, when the values are counts.
    water_per_mm
        Attenuation of water, for Hounsfield units.
    centre_known
        Whether the offsets of the detector are measured ones; if not, the rotation axis is looked for in the data.
    """

    beam: Beam | VolumeBeam
    image: Grid | None = None
    affine: NDArray[np.float64] | None = None
    slice_mm: float | None = None
    axes: tuple[str, ...] | None = None
    values: str = "line-integrals"
    flat: float | None = None
    dark: float = 0.0
    water_per_mm: float | None = None
    centre_known: bool = True

    @property
    def grid(self) -> Grid:
        """The pixels or voxels that it says, or those that fill the field of view."""
        if self.image is not None:
            return self.image
        try:
            found = slice_grid(self.beam) if isinstance(self.beam, Beam) else volume_grid(self.beam)
        except (ArithmeticError, ValueError) as error:
            raise GeometryError(f"what the rays see has no size that numbers can hold: {error}") from error
        if max(found.shape) > _MOST_VOXELS:
            raise GeometryError(f"the image would have {found.shape} voxels; check distances, heights and sizes")
        return found

    def affine_for(self, n_slices: int) -> NDArray[np.float64]:
        """The affine that it says, or one of an unknown place: the rotation axis at the origin, along the body."""
        if self.affine is not None:
            return self.affine
        grid = self.grid
        voxel = (*grid.spacing_mm, self.slice_mm or 1.0)[:3]
        affine = default_affine(voxel, (*grid.shape, n_slices)[:3])
        for axis in range(len(grid.shape)):
            affine[axis, 3] = grid.coordinates(axis)[0]
        return affine


def to_json(description: Description) -> str:
    """Return the text that `parse` reads."""
    beam: dict[str, Any] = {"kind": next(kind for kind, made in BEAMS.items() if type(description.beam) is made)}
    for entry in fields(description.beam):
        beam["angles_rad" if entry.name == "angles" else entry.name] = getattr(description.beam, entry.name)
    content: dict[str, Any] = {"beam": beam}
    for entry in fields(Description)[1:]:
        value = getattr(description, entry.name)
        if isinstance(value, Grid):
            value = {part.name: getattr(value, part.name) for part in fields(Grid)}
        elif isinstance(value, np.ndarray):
            value = value.tolist()
        if value is not None:
            content[entry.name] = value
    return json.dumps(content, allow_nan=False)


def read_description(path: Path) -> Description:
    """Read a JSON file.

    Raises
    ------
    FormatError
        When it is missing, too long, no JSON, or says something impossible.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise FormatError(f"{path} is larger than 16 MiB; expected the geometry of a scan in JSON")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} cannot be read: {error}") from error
    return parse(text, str(path))


def parse(text: str, what: str) -> Description:
    """Turn JSON into a description, every value checked.

    Raises
    ------
    FormatError
        When it is no JSON, a key is missing or unknown, or a value is impossible.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is no JSON: {error}") from error
    if not isinstance(content, dict) or "beam" not in content:
        raise FormatError(f'{what} should be a JSON object with a "beam"')
    unknown = sorted(set(content) - set(_READERS))
    if unknown:
        raise FormatError(f"{what} has {', '.join(map(repr, unknown))}; allowed are {', '.join(_READERS)}")
    found: dict[str, Any] = {}
    for name, value in content.items():
        try:
            found[name] = _READERS[name](value)
        except (DipmedError, ValueError, TypeError, OverflowError) as error:
            raise FormatError(f"{what}: {name!r} is not valid: {error}") from None
    return Description(**found)


def _beam(value: Any) -> Beam | VolumeBeam:
    if not isinstance(value, dict) or value.get("kind") not in BEAMS:
        raise ValueError(f"expected an object whose kind is one of {', '.join(BEAMS)}")
    made = BEAMS[value["kind"]]
    given = {name: entry for name, entry in value.items() if name != "kind"}
    if made is PosedBeam:
        return PosedBeam(**_fields(PosedBeam, given))
    if ("angles_deg" in given) == ("angles_rad" in given):
        raise ValueError("give angles_deg or angles_rad, one of them")
    if "angles_deg" in given:
        given["angles"] = [math.radians(angle) for angle in _numbers(given.pop("angles_deg"))]
    else:
        given["angles"] = given.pop("angles_rad")
    return made(**_fields(made, given))


def _fields(made: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Check the values of a frozen class by the types that its fields are annotated with."""
    known = {entry.name: entry for entry in fields(made)}
    unknown = sorted(set(given) - set(known))
    missing = [name for name, entry in known.items() if entry.default is MISSING and name not in given]
    if unknown or missing:
        said = f"unknown: {', '.join(unknown)}" if unknown else f"missing: {', '.join(missing)}"
        raise ValueError(f"{said}; a {made.__name__} has {', '.join(known)}")
    return {name: _CONVERTERS[str(known[name].type)](value) for name, value in given.items()}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value!r}")
    return float(value)


def _positive(value: Any) -> float:
    if _number(value) <= 0:
        raise ValueError(f"expected a positive number, got {value!r}")
    return float(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _MOST_VOXELS:
        raise ValueError(f"expected a whole number from 1 to 65535, got {value!r}")
    return value


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {value!r}")
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of numbers, got {value!r}")
    return tuple(map(_number, value))


def _vectors(value: Any) -> tuple[tuple[float, ...], ...]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of lists of three numbers, got {value!r}")
    return tuple(map(_numbers, value))


def _wholes(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise ValueError(f"expected a list of whole numbers, got {value!r}")
    return tuple(map(_whole, value))


def _grid(value: Any) -> Grid:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, got {value!r}")
    return Grid(**_fields(Grid, value))


def _affine(value: Any) -> NDArray[np.float64]:
    rows = [_numbers(row) for row in value] if isinstance(value, list) else []
    affine = np.array(rows) if len(rows) == 4 and {len(row) for row in rows} == {4} else np.zeros((4, 4))
    if tuple(affine[3]) != (0, 0, 0, 1) or not abs(np.linalg.det(affine[:3, :3])) > 1e-9:
        raise ValueError("expected four rows of four numbers, the last one 0, 0, 0, 1, that put voxels apart")
    return affine


def _axes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or len(set(map(str, value))) != len(value) or not set(value) <= set(AXES):
        raise ValueError(f"expected different names out of {', '.join(AXES)}, got {value!r}")
    if not {"view", "column"} <= set(value):
        raise ValueError(f"view and column are needed, got {value!r}")
    return tuple(value)


def _values(value: Any) -> str:
    if value not in VALUES:
        raise ValueError(f"expected one of {', '.join(VALUES)}, got {value!r}")
    return str(value)


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "int": _whole,
    "float": _number,
    "bool": _yes_or_no,
    "tuple[float, ...]": _numbers,
    "tuple[int, ...]": _wholes,
    "tuple[Vector, ...]": _vectors,
}

_READERS: dict[str, Callable[[Any], Any]] = {
    "beam": _beam,
    "image": _grid,
    "affine": _affine,
    "slice_mm": _positive,
    "axes": _axes,
    "values": _values,
    "flat": _positive,
    "dark": _number,
    "water_per_mm": _positive,
    "centre_known": _yes_or_no,
}
