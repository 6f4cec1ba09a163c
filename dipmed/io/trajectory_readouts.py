"""From readouts along a trajectory to a non-Cartesian `KSpaceScan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipmed.io.acquisitions import Readouts, frames_of
from dipmed.io.cartesian_readouts import RawScan, keep_usual_coils
from dipmed.io.limits import array_bytes, check_expansion
from dipmed.io.mrd_header import EncodedSpace
from dipmed.io.placement import place_slices
from dipmed.io.samples import check_samples
from dipmed.scan import Complex64, FormatError, KSpaceScan

_SAME = 1e-4  # largest difference between the trajectories of two slices, relative to their reach
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Spokes:
    """How readouts run through k-space.

    Parameters
    ----------
    fetch
        Gives the trajectory, ``(sample, dimension)``, of the readouts with these (rising) numbers.
    encoded, recon
        Matrix and field of view that the trajectory refers to, and those of the image.
    """

    fetch: Callable[[NDArray[np.int64]], Iterator[NDArray[np.float32]]]
    encoded: EncodedSpace
    recon: EncodedSpace


def build_noncartesian_scan(raw: RawScan, spokes: Spokes) -> KSpaceScan:
    """String the readouts of each frame and slice together, in the order of the file.

    Raises
    ------
    FormatError
        When frames or slices have different numbers of samples, slices different trajectories, or the header does
        not say how large the image is.
    GeometryError
        When slices are not parallel or positions are impossible.
    """
    raw = keep_usual_coils(raw)
    readouts = np.sort(raw.imaging, order="source")
    frame, labels = frames_of(readouts)
    along, values, notes = _trajectory(raw, readouts, spokes)
    size, voxel, assumptions = _image(spokes, values.shape[1], raw.path)
    placement = place_slices(
        readouts["slice"],
        raw.positions[readouts["source"]],
        raw.directions[readouts["source"]],
        voxel,
        size,
        siemens=raw.protocol.siemens,
    )
    if len(size) == 3 and len(np.unique(readouts["slice"])) > 1:
        raise FormatError(f"{raw.path} holds several slabs with a 3-D trajectory; export each as a scan of its own")
    values, unit = _in_cycles_per_fov(values, spokes, size, raw.path)
    group = frame * placement.n_slices + placement.slice_index
    kspace, trajectory = _string_together(raw, readouts, group, along, values, (len(labels), placement.n_slices))
    left_out = (f"{len(raw.calibration)} calibration readouts were left out.",) if len(raw.calibration) else ()
    return KSpaceScan(
        kspace=check_samples(kspace, f"{raw.path}: the k-space"),
        mask=None,
        affine=placement.affine,
        image_shape=size,
        source=raw.source,
        frame_labels=labels,
        trajectory=trajectory,
        n_readouts=_count_readouts(along, kspace.shape),
        noise_covariance=raw.noise_covariance,
        sequence=raw.protocol.sequence,
        assumptions=(*raw.assumptions, *assumptions, unit, *placement.assumptions),
        notes=(*raw.notes, *notes, *left_out),
    )


def _count_readouts(along: NDArray[np.int64], shape: tuple[int, ...]) -> int | None:
    """Number of readouts of one frame and slice, None where they are not of equal length."""
    lengths = np.unique(np.bincount(along))
    return None if len(lengths) != 1 else shape[-1] // int(lengths[0])


def _kept(readout: np.void) -> slice:
    return slice(int(readout["drop_first"]), int(readout["samples"] - readout["drop_last"]))


def _trajectory(
    raw: RawScan, readouts: Readouts, spokes: Spokes
) -> tuple[NDArray[np.int64], NDArray[np.float32], tuple[str, ...]]:
    """Return for each kept sample the row of its readout, and its position, ``(sample, dimension)``."""
    parts = [
        positions[_kept(readout)] for readout, positions in zip(readouts, spokes.fetch(readouts["source"]), strict=True)
    ]
    dimensions = {part.shape[1] for part in parts}
    if len(dimensions) != 1 or not dimensions <= {2, 3, 4}:
        raise FormatError(f"{raw.path}: trajectories should have 2 or 3 dimensions, got {sorted(dimensions)}")
    along = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    values = np.concatenate(parts)
    if not len(values) or not np.isfinite(values).all():
        raise FormatError(f"{raw.path}: the trajectory is empty or not finite")
    flat = spokes.encoded.matrix is None or spokes.encoded.matrix[2] == 1
    n_axes = 2 if flat else min(values.shape[1], 3)
    dropped = values[:, n_axes:]
    notes = () if not dropped.any() else ("Density weights in the trajectory were left out.",)
    if n_axes == 2 and not flat:
        raise FormatError(f"{raw.path}: stacks of 2-D trajectories are not supported; write 3-D trajectories")
    return along, values[:, :n_axes], notes


def _image(
    spokes: Spokes, n_axes: int, path: str
) -> tuple[tuple[int, ...], tuple[float, float, float], tuple[str, ...]]:
    """Return the size of the image, its voxel size in mm, and what was assumed for that."""
    matrix = spokes.recon.matrix or spokes.encoded.matrix
    fov = spokes.recon.fov_mm or spokes.encoded.fov_mm
    if matrix is None:
        raise FormatError(f"{path}: the header does not say how large the image of this non-Cartesian scan is")
    if fov is None:
        unknown = "The file does not say the field of view; voxels of 1 mm were assumed."
        return matrix[:n_axes], (1.0, 1.0, 1.0), (unknown,)
    return matrix[:n_axes], (fov[0] / matrix[0], fov[1] / matrix[1], fov[2] / matrix[2]), ()


def _in_cycles_per_fov(
    values: NDArray[np.float32], spokes: Spokes, size: tuple[int, ...], path: str
) -> tuple[NDArray[np.float32], str]:
    """Return the trajectory in cycles per field of view of the image, and how its unit was found.

    ISMRMRD leaves the unit open; cycles per pixel, radians per pixel and cycles per field of view are all in use,
    and differ so much in size that the largest value tells them apart.
    """
    n_axes = len(size)
    matrix = np.array((spokes.encoded.matrix or size)[:n_axes], dtype=np.float64)
    widening = np.ones(n_axes)
    if spokes.encoded.fov_mm and spokes.recon.fov_mm:
        widening = np.array(spokes.recon.fov_mm[:n_axes]) / np.array(spokes.encoded.fov_mm[:n_axes])
    reach = float(np.abs(values).max())
    if reach <= 0.5 * (1 + _ROUNDING):
        unit, factor = "cycles per pixel", matrix
    elif reach <= np.pi * (1 + _ROUNDING):
        unit, factor = "radians per pixel", matrix / (2 * np.pi)
    elif reach <= matrix.max():
        unit, factor = "cycles per field of view", np.ones(n_axes)
    else:
        raise FormatError(f"{path}: the trajectory reaches {reach:.4g}, far outside of the matrix {size}")
    sentence = f"The file does not say the unit of its trajectory; it reaches {reach:.4g}, so {unit} were assumed."
    return (values * (factor * widening)).astype(np.float32), sentence


def _string_together(
    raw: RawScan,
    readouts: Readouts,
    group: NDArray[np.int64],
    along: NDArray[np.int64],
    values: NDArray[np.float32],
    leading: tuple[int, int],
) -> tuple[Complex64, NDArray[np.float32]]:
    """Return k-space ``(frame, slice, coil, sample)`` and trajectory ``(frame, sample, dimension)``."""
    n_groups = leading[0] * leading[1]
    counts = np.bincount(group[along], minlength=n_groups)
    n_samples = int(counts[0])
    if (counts != n_samples).any():
        raise FormatError(
            f"{raw.path}: all frames and slices should have the same number of samples along their trajectories, "
            f"got {counts.min()} to {counts.max()}"
        )
    order = np.argsort(group[along], kind="stable")
    trajectory = values[order].reshape(*leading, n_samples, -1)
    if np.abs(trajectory - trajectory[:, :1]).max() > _SAME * np.abs(trajectory).max():
        raise FormatError(f"{raw.path}: the slices have different trajectories; export each slice as a scan of its own")
    n_coils = int(readouts["coils"][0])
    check_expansion(array_bytes((n_groups, n_coils, n_samples), 8), raw.stored_bytes, "the k-space")
    kspace = np.zeros((n_groups, n_coils, n_samples), np.complex64)
    filled = np.zeros(n_groups, np.int64)
    for index, readout, samples in zip(group, readouts, raw.fetch(readouts["source"]), strict=True):
        kept = samples[:, _kept(readout)]
        kspace[index, :, filled[index] : filled[index] + kept.shape[1]] = kept
        filled[index] += kept.shape[1]
    return kspace.reshape(*leading, n_coils, n_samples), trajectory[:, 0]
