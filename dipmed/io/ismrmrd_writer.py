"""Writing of Cartesian scans as ISMRMRD files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.acquisitions import FRAME_COUNTERS
from dipmed.io.files import atomic_write
from dipmed.io.mrd_header import SIMULATING_VENDOR
from dipmed.patient import lps_to_ras, mrd_from_affine, plane_affine
from dipmed.scan import SIMULATED, Complex64, KSpaceScan, OutputError

_GROUP = "dataset"
_PROTON_HZ_PER_T = 42.577478518e6  # gyromagnetic ratio of the proton over 2 pi (CODATA 2018)
_MOST = 2**16 - 1  # counters and lengths have 16 bits


def save_ismrmrd(scan: KSpaceScan, path: str | Path, *, force: bool = False) -> None:
    """Write a Cartesian scan as an ISMRMRD file that this and other programs read.

    Only sampled readouts are written, with their counters, the place of their slice and the flags that ISMRMRD
    has for them; a separate calibration scan is written as such. Frames keep their labels when these are contrast,
    phase, repetition and set, and are numbered as repetitions otherwise. ISMRMRD has no place for a noise
    covariance (it holds noise samples), for assumptions and for notes, so these are not written.

    Parameters
    ----------
    scan
        What to write.
    path
        Where to.
    force
        Whether a file that exists is replaced.

    Raises
    ------
    OutputError
        When the scan is not Cartesian, was sampled in pieces of readouts, or the file cannot be written.
    GeometryError
        When the affine is sheared.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from dipmed.io import load, save_ismrmrd
    >>> from dipmed.patient import default_affine
    >>> from dipmed.scan import KSpaceScan
    >>> kspace = np.ones((1, 1, 2, 8, 6), np.complex64)
    >>> scan = KSpaceScan(kspace, np.ones((1, 1, 8, 6), bool), default_affine((1, 1, 3), (8, 6, 1)), (8, 6), "numpy")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_ismrmrd(scan, f"{folder}/scan.h5")
    ...     print(load(f"{folder}/scan.h5").kspace.shape)
    (1, 1, 2, 8, 6)
    """
    import h5py
    import ismrmrd

    mask = _check(scan)
    records = _records(scan, scan.kspace, mask, _frame_counters(scan))
    if scan.calibration is not None:
        reference = _records(
            scan, scan.calibration, (scan.calibration != 0).any(axis=2), [dict.fromkeys(FRAME_COUNTERS, 0)]
        )
        _flag(reference["head"], ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
        records = np.concatenate([reference, records])
    records["head"]["scan_counter"] = np.arange(len(records))
    _flag(records["head"][-1:], ismrmrd.ACQ_LAST_IN_MEASUREMENT)
    with atomic_write(path, force=force) as temporary, h5py.File(temporary, "w") as file:
        group = file.create_group(_GROUP)
        group.create_dataset("xml", data=[_header(scan)], dtype=h5py.special_dtype(vlen=bytes))
        group.create_dataset("data", data=records, maxshape=(None,), chunks=(min(len(records), 64),))


def _check(scan: KSpaceScan) -> NDArray[np.bool_]:
    """Return the mask of a scan that ISMRMRD can hold, and refuse others."""
    if scan.mask is None:
        raise OutputError("only Cartesian scans can be written as ISMRMRD, this one has a trajectory")
    if scan.image_shape[1:] != scan.matrix_shape[1:] or scan.image_shape[0] > scan.matrix_shape[0]:
        raise OutputError(
            f"the image {scan.image_shape} may differ from the encoded matrix {scan.matrix_shape} along the readout "
            "alone, by oversampling"
        )
    if max(scan.kspace.shape) > _MOST:
        raise OutputError(f"ISMRMRD counts up to {_MOST}, the scan has the shape {scan.kspace.shape}")
    empty = np.argwhere(~scan.mask.reshape(*scan.mask.shape[:2], -1).any(axis=2))
    if len(empty):
        frame, number = empty[0]
        raise OutputError(f"slice {number} of frame {frame} has no sample, which ISMRMRD cannot express")
    return scan.mask


def _frame_counters(scan: KSpaceScan) -> list[dict[str, int]]:
    """Return contrast, phase, repetition and set of each frame."""
    counters = [dict.fromkeys(FRAME_COUNTERS, 0) | label for label in scan.frame_labels]
    known = all(set(label) <= set(FRAME_COUNTERS) for label in scan.frame_labels)
    distinct = len({tuple(sorted(frame.items())) for frame in counters}) == len(counters)
    if known and distinct and all(0 <= number <= _MOST for frame in counters for number in frame.values()):
        return counters
    return [dict.fromkeys(FRAME_COUNTERS, 0) | {"repetition": i} for i in range(scan.n_frames)]


def _records(
    scan: KSpaceScan, kspace: Complex64, mask: NDArray[np.bool_], frames: list[dict[str, int]]
) -> NDArray[Any]:
    """Return the readouts of ``(frame, slice, coil, x, y[, z])`` that the mask has, with their headers."""
    from ismrmrd.hdf5 import acquisition_dtype

    first, length = _extent(mask)
    columns = np.argwhere(length > 0)  # (frame, slice, y[, z])
    records = np.zeros(len(columns), acquisition_dtype)
    heads = records["head"]
    for record, column in zip(records, columns, strict=True):
        frame, slice_, *phases = (int(i) for i in column)
        start, n_samples = int(first[tuple(column)]), int(length[tuple(column)])
        place: tuple[Any, ...] = (frame, slice_, slice(None), slice(start, start + n_samples), *phases)
        record["data"] = np.ascontiguousarray(kspace[place], np.complex64).view(np.float32).reshape(-1)
        record["traj"] = np.zeros(0, np.float32)
    index = tuple(columns.T)
    heads["version"] = 1
    heads["number_of_samples"] = length[index]
    heads["active_channels"] = heads["available_channels"] = scan.n_coils
    heads["center_sample"] = kspace.shape[3] // 2 - first[index]
    heads["idx"]["slice"] = columns[:, 1]
    heads["idx"]["kspace_encode_step_1"] = columns[:, 2]
    if columns.shape[1] == 4:
        heads["idx"]["kspace_encode_step_2"] = columns[:, 3]
    for name in FRAME_COUNTERS:
        heads["idx"][name] = np.array([frame[name] for frame in frames])[columns[:, 0]]
    _place(scan, heads)
    return records


def _extent(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first sample and the number of samples of each readout, ``(frame, slice, y[, z])``."""
    n_samples = mask.shape[2]
    first, length = mask.argmax(axis=2), mask.sum(axis=2)
    last = n_samples - 1 - mask[:, :, ::-1].argmax(axis=2)
    gaps = (length > 0) & (last - first + 1 != length)
    off_centre = (length > 0) & ((first > n_samples // 2) | (last < n_samples // 2))
    if gaps.any() or off_centre.any():
        raise OutputError(
            "ISMRMRD stores whole readouts, or ones that are cut at their ends; this mask has gaps along the readout "
            f"in {int(gaps.sum())} of them, and misses the centre in {int(off_centre.sum())}"
        )
    return first, length


def _place(scan: KSpaceScan, heads: NDArray[Any]) -> None:
    is_3d = scan.ndim == 3
    volume = scan.image_shape if is_3d else (*scan.image_shape, 1)
    geometry = mrd_from_affine(scan.affine if is_3d else plane_affine(scan.affine), volume)
    for name in ("read_dir", "phase_dir", "slice_dir"):
        heads[name] = getattr(geometry, name)
    step = np.zeros(3) if is_3d else lps_to_ras(scan.affine[:3, 2])  # from one slice to the next
    heads["position"] = geometry.position + heads["idx"]["slice"][:, None] * step


def _flag(heads: NDArray[Any], number: int) -> None:
    heads["flags"] |= np.uint64(1 << (number - 1))


def _header(scan: KSpaceScan) -> bytes:
    """Return the XML header."""
    from ismrmrd import xsd

    matrix = (*scan.matrix_shape, 1)[:3]
    shown = (*scan.image_shape, 1)[:3]
    voxel = np.linalg.norm(scan.affine[:3, :3], axis=0).tolist()
    parallel = None
    if scan.calibration is not None:
        parallel = xsd.parallelImagingType(
            accelerationFactor=xsd.accelerationFactorType(kspace_encoding_step_1=1, kspace_encoding_step_2=1),
            calibrationMode=xsd.calibrationModeType.SEPARATE,
        )
    encoding = xsd.encodingType(
        encodedSpace=_space(matrix, voxel),
        reconSpace=_space(shown, voxel),
        encodingLimits=_limits(scan, matrix),
        trajectory=xsd.trajectoryType.CARTESIAN,
        parallelImaging=parallel,
    )
    field = scan.sequence.field_strength_t
    header = xsd.ismrmrdHeader(
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemVendor=SIMULATING_VENDOR if scan.source == SIMULATED else None,
            systemFieldStrength_T=field,
            receiverChannels=scan.n_coils,
        ),
        # the schema demands a frequency; 0 stands for unknown
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round((field or 0.0) * _PROTON_HZ_PER_T)
        ),
        encoding=[encoding],
        sequenceParameters=xsd.sequenceParametersType(
            TR=[1e3 * seconds for seconds in scan.sequence.repetition_times_s],
            TE=[1e3 * seconds for seconds in scan.sequence.echo_times_s],
            TI=[1e3 * seconds for seconds in scan.sequence.inversion_times_s],
            flipAngle_deg=[math.degrees(angle) for angle in scan.sequence.flip_angles_rad],
            echo_spacing=[1e3 * seconds for seconds in scan.sequence.echo_spacings_s],
        ),
    )
    text: str = xsd.ToXML(header, encoding="utf-8")
    return text.encode()


def _space(matrix: tuple[int, ...], voxel: list[float]) -> Any:
    from ismrmrd import xsd

    x, y, z = (size * n for size, n in zip(voxel, matrix, strict=True))
    return xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=matrix[0], y=matrix[1], z=matrix[2]),
        fieldOfView_mm=xsd.fieldOfViewMm(x=x, y=y, z=z),
    )


def _limits(scan: KSpaceScan, matrix: tuple[int, ...]) -> Any:
    from ismrmrd import xsd

    def whole(size: int) -> Any:
        return xsd.limitType(minimum=0, maximum=size - 1, center=size // 2)

    def counted(size: int) -> Any:
        return xsd.limitType(minimum=0, maximum=size - 1, center=0)

    frames = _frame_counters(scan)
    return xsd.encodingLimitsType(
        kspace_encoding_step_0=whole(matrix[0]),
        kspace_encoding_step_1=whole(matrix[1]),
        kspace_encoding_step_2=whole(matrix[2]),
        slice=counted(scan.n_slices),
        **{name: counted(1 + max(frame[name] for frame in frames)) for name in FRAME_COUNTERS},
    )
