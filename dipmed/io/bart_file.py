"""K-space in BART's ``.cfl``/``.hdr`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dipmed.io.assemble import MASK_FROM_ZEROS, NamedArray, place, standard_axes
from dipmed.io.cfl import cfl_paths, read_cfl
from dipmed.io.samples import sampled_locations
from dipmed.io.sidecar import read_sidecar
from dipmed.scan import Complex64, FormatError, KSpaceScan

_SPATIAL = 3
_COIL = 3
_SLICE = 13
_FRAMES = {5: "contrast", 10: "time", 11: "time2", 14: "average"}
_MUST_BE_ONE = {4: "maps", 6: "coefficient", 7: "coefficient2", 8: "iteration", 9: "shift", 12: "level", 15: "batch"}
_N_AXES = 16
_FLAT = 0.1  # quietest against loudest readout; Cartesian lines differ by more than a thousand
_FEWEST_SPOKES = 8


def read(path: Path) -> KSpaceScan:
    """Read Cartesian k-space from a pair of BART files.

    Of BART's axes 0, 1 and 2 (readout, first and second phase encode) those with more than one sample become x, y
    and z in this order. Axis 3 is the coil, 13 the slice; contrast (5), time (10, 11) and average (14) become
    frames. A JSON file of the same name may give ``voxel_mm``, ``affine`` and ``sequence``.

    Raises
    ------
    FormatError
        When the files are damaged or disagree, or hold something other than Cartesian k-space.
    """
    data_path = cfl_paths(path)[0]
    array = read_cfl(path)
    sidecar = read_sidecar(data_path, allowed=("voxel_mm", "affine", "sequence"))
    array = array.reshape([*array.shape, *[1] * (_N_AXES - array.ndim)])
    spatial = spatial_axes(array, data_path)
    frames = [axis for axis in _FRAMES if array.shape[axis] > 1]
    order = [*frames, _SLICE, _COIL, *spatial]
    order += [axis for axis in range(_N_AXES) if axis not in order]
    sizes = [array.shape[axis] for axis in (_SLICE, _COIL, *spatial)]
    axes = ("frame", "slice", "coil", "x", "y", "z")[: 1 + len(sizes)]
    kspace, damaged = standard_axes(NamedArray(array.transpose(order).reshape([-1, *sizes]), axes, str(data_path)))
    if array.shape[0] == 1:
        _refuse_radial(kspace, data_path)
    affine, unknown = place(sidecar, kspace)
    return KSpaceScan(
        kspace=kspace,
        mask=sampled_locations(kspace),
        affine=affine,
        image_shape=kspace.shape[3:],
        source="bart",
        frame_labels=tuple(
            {_FRAMES[axis]: int(i) for axis, i in zip(frames, index, strict=True)}
            for index in np.ndindex(tuple(array.shape[axis] for axis in frames))
        ),
        sequence=sidecar.sequence,
        assumptions=(_axes_sentence(spatial), MASK_FROM_ZEROS, *damaged, *unknown),
    )


def spatial_axes(array: Complex64, path: Path) -> list[int]:
    """Return the encoded axes, after making sure that no other axis holds anything unknown."""
    wrong = [
        f"{name} (axis {axis}): {array.shape[axis]}" for axis, name in _MUST_BE_ONE.items() if array.shape[axis] > 1
    ]
    if wrong:
        raise FormatError(f"{path} is no plain k-space, it has {', '.join(wrong)}; these axes must be 1")
    spatial = [axis for axis in range(_SPATIAL) if array.shape[axis] > 1]
    if len(spatial) < 2:
        raise FormatError(f"{path} is {array.shape[:_SPATIAL]} in space; at least two of these must be more than 1")
    return spatial


def _refuse_radial(kspace: Complex64, path: Path) -> None:
    """Tell radial k-space, ``1 x sample x spoke``, from a plane of phase encodes by its lines, all equally strong."""
    energy = np.square(np.abs(kspace[0, 0])).sum(axis=(0, 1), dtype=np.float64)
    measured = energy[energy > 0]
    if measured.size >= _FEWEST_SPOKES and measured.min() > _FLAT * measured.max():
        raise FormatError(
            f"{path} looks radial: all its lines are equally strong. BART keeps the trajectory in another file; "
            "only Cartesian k-space can be read from .cfl"
        )


def _axes_sentence(spatial: list[int]) -> str:
    taken = ", ".join(f"{name} is BART's axis {axis}" for name, axis in zip("xyz", spatial, strict=False))
    if 0 not in spatial:
        return f"The file has no readout axis, it was transformed already: {taken}, both are phase encodes."
    return f"{taken}; axis 0 is the readout, as is BART's custom."
