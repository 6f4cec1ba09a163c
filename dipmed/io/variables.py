"""Which of several arrays in a file is the k-space, and which the mask or the trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dipmed.io.sidecar import Sidecar, sidecar_path
from dipmed.scan import FormatError

_KSPACE = ("kspace", "k_space", "ksp", "kdata", "rawdata", "raw_data", "raw", "data", "y")
_MASK = ("mask", "sampling_mask", "samp")
_TRAJECTORY = ("traj", "trajectory", "ktraj", "k")


@dataclass(frozen=True)
class Variable:
    """What is known about an array before it is read."""

    shape: tuple[int, ...]
    is_complex: bool


def choose_kspace(variables: Mapping[str, Variable], sidecar: Sidecar, path: Path) -> str:
    """Return the name of the k-space: the sidecar's, a usual name, or the only complex array of three axes or more.

    Raises
    ------
    FormatError
        When none or several would do; the message lists what there is.
    """
    if sidecar.variable is not None:
        return _must_exist(sidecar.variable, variables, path)
    candidates = {name: v for name, v in variables.items() if v.is_complex and len(v.shape) >= 2}
    usual = _first(candidates, _KSPACE)
    if usual is not None:
        return usual
    large = [name for name, variable in candidates.items() if len(variable.shape) >= 3]
    if len(large) == 1:
        return large[0]
    hint = f'name it in {sidecar_path(path).name}: {{"variable": "..."}}'
    if large:
        raise FormatError(f"{path} has several arrays that could be the k-space: {', '.join(large)}; {hint}")
    raise FormatError(f"{path} has no complex array that could be the k-space; it has {describe(variables)}")


def choose_mask(variables: Mapping[str, Variable], sidecar: Sidecar, path: Path) -> str | None:
    """Return the name of the sampling mask, None when there is none.

    Raises
    ------
    FormatError
        When the sidecar names one that is not there.
    """
    if sidecar.mask is not None:
        return _must_exist(sidecar.mask, variables, path)
    return _first(variables, _MASK)


def choose_trajectory(
    variables: Mapping[str, Variable], kspace: str, readouts: tuple[int, ...], sidecar: Sidecar, path: Path
) -> str | None:
    """Return the name of an array with one position for each of the ``readouts``, None when there is none.

    A position is one complex number, or a last axis of two or three real ones.

    Raises
    ------
    FormatError
        When the sidecar names one that is not there.
    """
    if sidecar.trajectory is not None:
        return _must_exist(sidecar.trajectory, variables, path)
    fitting = {name: v for name, v in variables.items() if name != kspace and _has_positions(v, readouts)}
    return _first(fitting, _TRAJECTORY)


def axes_or_usual(
    shape: tuple[int, ...], sidecar: Sidecar, usual: Mapping[int, tuple[str, ...]], what: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the axes, and the assumption when the sidecar does not give them.

    Raises
    ------
    FormatError
        When there are more axes than a usual order is known for.
    """
    if sidecar.axes is not None:
        return sidecar.axes, ()
    if len(shape) not in usual:
        raise FormatError(
            f"{what} has {len(shape)} axes {shape}; say what they are in a JSON file of the same name: "
            '{"axes": ["slice", "coil", "x", "y"]}, in this order as stored'
        )
    axes = usual[len(shape)]
    taken = f"The axes {shape} of the k-space were taken as ({', '.join(axes)}), x being the readout"
    return axes, (f"{taken}; a JSON file of the same name can say otherwise.",)


def describe(variables: Mapping[str, Variable]) -> str:
    """List arrays for a message: ``"a: (3, 4) real"``."""
    kinds = {True: "complex", False: "real"}
    listed = [f"{name}: {v.shape} {kinds[v.is_complex]}" for name, v in list(variables.items())[:20]]
    return ", ".join(listed) or "no plain array of numbers at all"


def _first(variables: Mapping[str, Variable], names: tuple[str, ...]) -> str | None:
    lowered = {name.lower(): name for name in variables}
    return next((lowered[name] for name in names if name in lowered), None)


def _has_positions(variable: Variable, readouts: tuple[int, ...]) -> bool:
    if variable.is_complex:
        return variable.shape == readouts
    return variable.shape[:-1] == readouts and variable.shape[-1] in (2, 3)


def _must_exist(name: str, variables: Mapping[str, Variable], path: Path) -> str:
    if name not in variables:
        raise FormatError(
            f"{path} has no array {name!r} as {sidecar_path(path).name} says; it has {describe(variables)}"
        )
    return name
