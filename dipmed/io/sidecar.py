"""The JSON file beside an array file that says what the array cannot: its axes, its voxel size, its place."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.scan import FormatError, SequenceFigures

AXES = ("frame", "slice", "coil", "x", "y", "z")
_MOST_BYTES = 2**20


@dataclass(frozen=True)
class Sidecar:
    """What the JSON file says; None where it says nothing. Its keys are the names of these fields.

    Parameters
    ----------
    variable
        Name of the k-space array in a file of several.
    axes
        Name of each axis of that array as it is stored, out of `AXES`, each at most once.
    centre, image_centre
        Where the Fourier transform has its origin in k-space (in the image): ``"centre"`` is index ``n // 2`` of
        each axis, ``"corner"`` is index 0. A plain ``fft2`` of an image has both in the corner.
    voxel_mm
        Voxel size along x, y and z (or slice), in mm.
    affine
        4x4, voxel index of the image (x, y, z or slice) to RAS in mm; goes before `voxel_mm`.
    mask
        Name of the array that says which samples were measured.
    trajectory
        Name of the array with the k-space positions of non-Cartesian samples, in cycles per pixel.
    matrix
        Image size ``(x, y[, z])`` of a non-Cartesian scan.
    sequence
        Figures of the pulse sequence, under the names and in the units of `dipmed.scan.SequenceFigures`.
    """

    variable: str | None = None
    axes: tuple[str, ...] | None = None
    centre: str | None = None
    image_centre: str | None = None
    voxel_mm: tuple[float, ...] | None = None
    affine: NDArray[np.float64] | None = None
    mask: str | None = None
    trajectory: str | None = None
    matrix: tuple[int, ...] | None = None
    sequence: SequenceFigures = field(default_factory=SequenceFigures)


def sidecar_path(path: Path) -> Path:
    """Return where the JSON file of an array file would be: the same name with the ending ``.json``."""
    return path.with_suffix(".json")


def read_sidecar(path: Path, allowed: Collection[str] | None = None) -> Sidecar:
    """Read the JSON file beside an array file; without one everything is unsaid.

    Parameters
    ----------
    path
        The array file.
    allowed
        The keys that make sense for its format, all when None.

    Raises
    ------
    FormatError
        When it is not JSON, has a key that is not known, or a value of the wrong kind.
    """
    beside = sidecar_path(path)
    if not beside.is_file():
        return Sidecar()
    content = _parse(beside)
    known = [name for name in _CHECKS if allowed is None or name in allowed]
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise FormatError(
            f"{beside} is read as the description of {path.name}, but has {', '.join(map(repr, unknown))}; "
            f"allowed are {', '.join(known)}; rename the file if it is about something else"
        )
    values: dict[str, Any] = {}
    for name, value in content.items():
        try:
            values[name] = _CHECKS[name](value)
        except (ValueError, TypeError, OverflowError) as error:
            raise FormatError(f"{beside}: {name!r} is not valid: {error}") from None
    return Sidecar(**values)


def _parse(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise FormatError(f"{path} is larger than 1 MiB; expected a short description in JSON")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise FormatError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f'{path} should hold a JSON object, like {{"voxel_mm": [1, 1, 3]}}')
    return content


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a name, got {value!r}")
    return value


def _axes(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or any(axis not in AXES for axis in value):
        raise ValueError(f"expected a list of names out of {', '.join(AXES)}, got {value!r}")
    if len(set(value)) != len(value) or not {"x", "y"} <= set(value):
        raise ValueError(f"x and y are needed and no axis may come twice, got {value!r}")
    return tuple(value)


def _centre(value: Any) -> str:
    if value not in ("centre", "corner"):
        raise ValueError(f"expected 'centre' or 'corner', got {value!r}")
    return str(value)


def _numbers(value: Any) -> tuple[float, ...]:
    """Finite numbers, one or a list of them; true and false are none."""
    listed = value if isinstance(value, list) else [value]
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in listed):
        raise ValueError(f"expected numbers, got {value!r}")
    numbers = tuple(float(x) for x in listed)
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"expected finite numbers, got {value!r}")
    return numbers


def _voxel(value: Any) -> tuple[float, ...]:
    sizes = _numbers(value)
    if len(sizes) != 3 or min(sizes) <= 0:
        raise ValueError(f"expected three positive sizes in mm, got {value!r}")
    return sizes


def _affine(value: Any) -> NDArray[np.float64]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("expected four rows of four numbers")
    rows = [_numbers(row) for row in value]
    if any(len(row) != 4 for row in rows) or rows[3] != (0, 0, 0, 1):
        raise ValueError("expected four rows of four numbers, the last one 0, 0, 0, 1")
    affine = np.array(rows)
    if not abs(np.linalg.det(affine[:3, :3])) > 1e-9:
        raise ValueError("its three directions lie in one plane")
    return affine


def _matrix(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) not in (2, 3):
        raise ValueError(f"expected two or three whole numbers, got {value!r}")
    if any(isinstance(n, bool) or not isinstance(n, int) or not 1 < n < 2**16 for n in value):
        raise ValueError(f"expected whole numbers from 2 to 65535, got {value!r}")
    return tuple(value)


def _sequence(value: Any) -> SequenceFigures:
    names = [entry.name for entry in fields(SequenceFigures)]
    if not isinstance(value, dict) or set(value) - set(names):
        raise ValueError(f"expected an object with keys out of {', '.join(names)}")
    figures: dict[str, Any] = {name: _numbers(entry) for name, entry in value.items()}
    field_strength = figures.pop("field_strength_t", None)
    if field_strength is not None and len(field_strength) != 1:
        raise ValueError("field_strength_t is one number")
    return SequenceFigures(field_strength_t=field_strength[0] if field_strength else None, **figures)


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "variable": _text,
    "axes": _axes,
    "centre": _centre,
    "image_centre": _centre,
    "voxel_mm": _voxel,
    "affine": _affine,
    "mask": _text,
    "trajectory": _text,
    "matrix": _matrix,
    "sequence": _sequence,
}
