"""From samples and their k-space positions to a non-Cartesian scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.assemble import UNKNOWN_VOXEL, frame_labels, unknown_place
from dipmed.io.samples import check_samples
from dipmed.io.sidecar import Sidecar
from dipmed.scan import FormatError, KSpaceScan, ShapeError

_EDGE = 0.5
_TOLERANCE = 0.01
_SMALLEST, _LARGEST = 16, 1024


def trajectory_scan(
    kspace: NDArray[Any],
    trajectory: NDArray[Any],
    sidecar: Sidecar,
    *,
    source: str,
    what: str,
    notes: tuple[str, ...] = (),
) -> KSpaceScan:
    """Build a scan from samples and their positions.

    Parameters
    ----------
    kspace
        ``(frame, coil, readout..., sample)``, complex.
    trajectory
        ``(frame, readout..., sample, dimension)`` or, of two dimensions as one complex number,
        ``(frame, readout..., sample)``; in cycles per pixel, so from -0.5 to 0.5.
    sidecar
        What the user says: `matrix`, `voxel_mm`, `affine`, `sequence`.
    source, what
        Names of the format and of the array.
    notes
        What the reader has to say so far.

    Raises
    ------
    FormatError, ShapeError
        When the samples are no k-space, the shapes do not fit, or the positions are in another unit.
    """
    samples = check_samples(kspace, what)
    positions = _positions(trajectory, samples.shape[:1] + samples.shape[2:])
    assumptions: tuple[str, ...] = ("The trajectory was taken to be in cycles per pixel, as its range says.",)
    matrix = sidecar.matrix
    if matrix is None:
        matrix = (_field_of_view(positions),) * positions.shape[-1]
        assumptions += (
            f"The image size is unknown: {matrix[0]} pixels in each direction, all that the sample spacing resolves.",
        )
    if len(matrix) != positions.shape[-1]:
        raise ShapeError(f"the trajectory has {positions.shape[-1]} dimensions, but the matrix is {matrix}")
    affine = sidecar.affine
    if affine is None:
        affine, unknown = unknown_place(sidecar.voxel_mm or (1.0, 1.0, 1.0), matrix, 1)
        assumptions += (*(() if sidecar.voxel_mm else (UNKNOWN_VOXEL,)), unknown)
    n_frames, n_coils = samples.shape[:2]
    return KSpaceScan(
        kspace=samples.reshape(n_frames, 1, n_coils, -1),
        mask=None,
        affine=affine,
        image_shape=matrix,
        source=source,
        frame_labels=frame_labels(n_frames),
        n_readouts=int(np.prod(samples.shape[2:-1])),
        trajectory=(positions.reshape(n_frames, -1, len(matrix)) * np.array(matrix)).astype(np.float32),
        sequence=sidecar.sequence,
        assumptions=assumptions,
        notes=notes,
    )


def _positions(trajectory: NDArray[Any], readouts: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the positions, ``(frame, readout..., sample, dimension)``, checked."""
    if trajectory.dtype.kind == "c":
        trajectory = np.stack([trajectory.real, trajectory.imag], axis=-1)
    if trajectory.shape[:-1] != readouts or trajectory.shape[-1] not in (2, 3):
        raise ShapeError(
            f"the trajectory has the shape {trajectory.shape}; expected {(*readouts, 2)} or {(*readouts, 3)}, "
            "a position for each sample"
        )
    positions: NDArray[np.float64] = trajectory.astype(np.float64)
    reach = np.abs(positions).max()
    if not reach <= _EDGE + _TOLERANCE:  # also when it is not a number
        raise FormatError(f"the trajectory should be in cycles per pixel, -0.5 to 0.5, but reaches {reach:.4g}")
    return positions


def _field_of_view(positions: NDArray[np.float64]) -> int:
    """Return how many pixels neighbouring samples resolve: one over their distance, rounded up to an even number."""
    steps = np.linalg.norm(np.diff(positions, axis=-2), axis=-1)
    size = 2 * round(0.5 / max(float(np.median(steps)), 1e-9) + 0.2)  # 255 for 256 samples with both ends
    if not _SMALLEST <= size <= _LARGEST:
        raise FormatError(f'the image size cannot be told from the trajectory ({size}); give "matrix" in a JSON file')
    return size
