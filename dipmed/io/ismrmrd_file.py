"""K-space in the ISMRMRD (MRD) format: readouts one by one in an HDF5 file, with an XML header."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.acquisitions import FRAME_COUNTERS, READOUT, Readouts, noise_covariance
from dipmed.io.cartesian_readouts import Protocol, RawScan, build_cartesian_scan, usual_coils
from dipmed.io.hdf5 import find_dataset, open_hdf5, read_text
from dipmed.io.heap import Heap, read_references
from dipmed.io.mrd_header import SIMULATING_VENDOR, MrdHeader, parse_mrd_header
from dipmed.io.trajectory_readouts import Spokes, build_noncartesian_scan
from dipmed.scan import SIMULATED, SIMULATED_NOTE, Complex64, FormatError, KSpaceScan

if TYPE_CHECKING:
    import h5py

_SKIPPED = {
    "ACQ_IS_NAVIGATION_DATA": "navigator",
    "ACQ_IS_PHASECORR_DATA": "phase correction",
    "ACQ_IS_HPFEEDBACK_DATA": "feedback",
    "ACQ_IS_DUMMYSCAN_DATA": "dummy",
    "ACQ_IS_RTFEEDBACK_DATA": "feedback",
    "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA": "surface coil correction",
    "ACQ_IS_PHASE_STABILIZATION_REFERENCE": "phase stabilization",
    "ACQ_IS_PHASE_STABILIZATION": "phase stabilization",
}
_COUNTERS = {"line": "kspace_encode_step_1", "partition": "kspace_encode_step_2"}
_COUNTERS |= {name: name for name in ("slice", "average", *FRAME_COUNTERS)}
_CARTESIAN = ("cartesian", "epi")


def mrd_groups(file: h5py.File) -> list[str]:
    """Return the names of the groups that hold an ISMRMRD measurement, whatever they are called."""
    import h5py

    names = [""]
    names += [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
    groups = [(name, file[name] if name else file) for name in names]
    return [
        name or "/"
        for name, group in groups
        if isinstance(group, h5py.Group) and find_dataset(group, "xml") and find_dataset(group, "data")
    ]


def read(path: Path, measurement: int | None = None) -> KSpaceScan:
    """Read a measurement from an ISMRMRD file.

    Readouts are put where their counters and the header's centre say; readout oversampling stays. Averages are
    averaged; each combination of contrast, phase, repetition and set becomes a frame; segments are merged.
    Trajectories that come with the readouts make a non-Cartesian scan.

    Parameters
    ----------
    path
        The file.
    measurement
        Which one of several in a file, counted from 0; the last when None.

    Raises
    ------
    FormatError
        When the file is damaged, contradicts itself, or has no image data.
    GeometryError
        When positions or directions are impossible.
    """
    with open_hdf5(path) as file:
        group, notes = _choose(file, measurement, path)
        xml, data = find_dataset(file[group], "xml"), find_dataset(file[group], "data")
        if xml is None or data is None:
            raise FormatError(f"{path}: the group {group} should hold the data sets 'xml' and 'data'")
        header = parse_mrd_header(read_text(xml))
        table = _read_table(data, path)
        if header.trajectory in _CARTESIAN or not _has_trajectory(table, header, path):
            return build_cartesian_scan(_raw_scan(table, header, notes, path))
        spokes = Spokes(table.trajectories, header.encoded, header.recon)
        return build_noncartesian_scan(_raw_scan(table, header, notes, path), spokes)


@dataclass(frozen=True)
class _Table:
    """The headers of all readouts of a file, and access to what they measured."""

    records: NDArray[Any]
    heap: Heap
    path: Path

    @property
    def heads(self) -> NDArray[Any]:
        return self.records["head"]

    def flagged(self, *names: str) -> NDArray[np.bool_]:
        import ismrmrd

        bits = sum(1 << (getattr(ismrmrd, name) - 1) for name in names)
        return (self.heads["flags"] & np.uint64(bits)) != 0

    def samples(self, numbers: NDArray[np.int64]) -> Iterator[Complex64]:
        """Yield ``(coil, sample)`` of the readouts with these numbers."""
        for number in numbers.tolist():
            head = self.heads[number]
            shape = (int(head["active_channels"]), int(head["number_of_samples"]))
            values = self._values("data", number, 2 * shape[0] * shape[1])
            yield values.view(np.complex64).reshape(shape)

    def trajectories(self, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Yield ``(sample, dimension)`` of the readouts with these numbers."""
        for number in numbers.tolist():
            head = self.heads[number]
            shape = (int(head["number_of_samples"]), int(head["trajectory_dimensions"]))
            yield self._values("traj", number, shape[0] * shape[1]).reshape(shape)

    def _values(self, name: str, number: int, expected: int) -> NDArray[np.float32]:
        reference = self.records[name][number]
        if reference["length"] != expected:
            raise FormatError(
                f"{self.path}: readout {number} should hold {expected} numbers in {name!r}, but holds "
                f"{reference['length']}; the file is damaged"
            )
        return np.frombuffer(self.heap.bytes_of(reference, 4), np.float32)


def _choose(file: h5py.File, measurement: int | None, path: Path) -> tuple[str, tuple[str, ...]]:
    groups = mrd_groups(file)
    if not groups:
        raise FormatError(f"{path} holds no ISMRMRD measurement, that is a group with 'xml' and 'data'")
    index = len(groups) - 1 if measurement is None else measurement
    if not 0 <= index < len(groups):
        raise FormatError(f"{path} has the measurements 0 to {len(groups) - 1}, there is no {measurement}")
    others = [f"{i} ({name})" for i, name in enumerate(groups) if i != index]
    if not others:
        return groups[index], ()
    return groups[index], (f"Measurement {index} of {len(groups)} was read; the others are {', '.join(others)}.",)


def _read_table(data: h5py.Dataset, path: Path) -> _Table:
    import h5py
    from ismrmrd.hdf5 import acquisition_header_dtype

    dtype = data.dtype
    if data.ndim != 1 or dtype.names is None or not {"head", "traj", "data"} <= set(dtype.names):
        raise FormatError(f"{path}: {data.name} should be a list of readouts with head, traj and data")
    head = dtype["head"]
    for name in acquisition_header_dtype.names:
        if head.names is None or name not in head.names or not _same_layout(head[name], acquisition_header_dtype[name]):
            raise FormatError(f"{path}: the readouts' {name!r} is missing or not as ISMRMRD defines it")
    if any(h5py.check_vlen_dtype(dtype[name]) != np.float32 for name in ("traj", "data")):
        raise FormatError(f"{path}: the readouts should hold lists of single precision numbers")
    table = _Table(read_references(data), Heap(data.file), path)
    heads, stored = table.heads, path.stat().st_size
    claimed = int((heads["active_channels"].astype(np.int64) * heads["number_of_samples"]).sum()) * 8
    if claimed > stored:
        raise FormatError(
            f"{path}: the readouts claim {claimed} bytes of samples but the file has {stored}; "
            "it is truncated or damaged, copy it again"
        )
    return table


def _same_layout(came: np.dtype[Any], expected: np.dtype[Any]) -> bool:
    """Whether two data types hold the same numbers under the same names, wherever in memory."""
    if expected.names is None:
        return came == expected
    return came.names is not None and all(
        name in came.names and _same_layout(came[name], expected[name]) for name in expected.names
    )


def _raw_scan(table: _Table, header: MrdHeader, notes: tuple[str, ...], path: Path) -> RawScan:
    heads = table.heads
    noise, skipped = table.flagged("ACQ_IS_NOISE_MEASUREMENT"), table.flagged(*_SKIPPED)
    also_image = table.flagged("ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING")
    calibration = table.flagged("ACQ_IS_PARALLEL_CALIBRATION") & ~also_image & ~noise & ~skipped
    elsewhere = _in_other_space(heads, header)
    imaging = ~noise & ~skipped & ~calibration & ~elsewhere & (heads["number_of_samples"] > 0)
    if not imaging.any():
        raise FormatError(f"{path}: none of the {len(heads)} readouts belongs to an image")
    readouts = _readouts(heads)
    is_simulated = header.vendor == SIMULATING_VENDOR
    covariance, assumed = _noise(table, readouts, noise, imaging, header)
    return RawScan(
        path=str(path),
        source=SIMULATED if is_simulated else "ismrmrd",
        stored_bytes=path.stat().st_size,
        imaging=readouts[imaging],
        calibration=readouts[calibration & ~elsewhere],
        positions=heads["position"].astype(np.float64),
        directions=np.stack([heads[name] for name in ("read_dir", "phase_dir", "slice_dir")], axis=1).astype(
            np.float64
        ),
        fetch=table.samples,
        noise_covariance=covariance,
        protocol=_protocol(header),
        assumptions=(*_trajectory_assumptions(header), *assumed),
        notes=(
            *((SIMULATED_NOTE,) if is_simulated else ()),
            *notes,
            *_left_out(table, skipped, elsewhere & ~noise & ~skipped),
        ),
    )


def _readouts(heads: NDArray[Any]) -> Readouts:
    readouts = np.zeros(len(heads), READOUT)
    for name, theirs in _COUNTERS.items():
        readouts[name] = heads["idx"][theirs]
    readouts["samples"] = heads["number_of_samples"]
    readouts["coils"] = heads["active_channels"]
    readouts["centre"] = heads["center_sample"]
    # more than everything cannot be dropped
    readouts["drop_first"] = np.minimum(heads["discard_pre"], heads["number_of_samples"])
    readouts["drop_last"] = np.minimum(heads["discard_post"], readouts["samples"] - readouts["drop_first"])
    readouts["reversed"] = (heads["flags"] & np.uint64(1 << 21)) != 0  # ACQ_IS_REVERSE
    readouts["source"] = np.arange(len(heads))
    return readouts


def _in_other_space(heads: NDArray[Any], header: MrdHeader) -> NDArray[np.bool_]:
    """Whether a readout belongs to an encoding whose grid is not that of the first one."""
    reference = heads["encoding_space_ref"]
    same = [i for i, space in enumerate(header.spaces) if space.fov_mm == header.encoded.fov_mm]
    return ~np.isin(reference, [0, *same])


def _protocol(header: MrdHeader) -> Protocol:
    encoded, recon = header.encoded, header.recon
    matrix: tuple[int | None, ...] = encoded.matrix or (None, None, None)
    columns = None
    if encoded.matrix and encoded.fov_mm and recon.fov_mm:
        columns = max(1, round(encoded.matrix[0] * recon.fov_mm[0] / encoded.fov_mm[0]))
    mode = header.calibration_mode
    return Protocol(
        n_samples=matrix[0],
        n_lines=matrix[1],
        n_partitions=matrix[2],
        centre_line=header.centre_line,
        centre_partition=header.centre_partition,
        n_columns=columns,
        fov_mm=encoded.fov_mm,
        calibration_mode="separate" if mode == "external" else mode,
        siemens="siemens" in header.vendor.lower(),
        sequence=header.sequence,
    )


def _noise(
    table: _Table, readouts: Readouts, noise: NDArray[np.bool_], imaging: NDArray[np.bool_], header: MrdHeader
) -> tuple[NDArray[np.complex128] | None, tuple[str, ...]]:
    """Return the noise covariance of imaging samples.

    Noise power grows with the bandwidth of a sample, that is with one over its dwell time; the receiver filters
    the edges of the band of the noise measurement (doi:10.1002/mrm.20713).
    """
    usable = noise & (readouts["coils"] == usual_coils(readouts[imaging]))
    if not (readouts["samples"][usable] > 0).any():
        return None, ()
    covariance = noise_covariance(table.samples(readouts["source"][usable]))
    times = table.heads["sample_time_us"].astype(np.float64)
    noise_dwell, dwell = float(np.median(times[usable])), float(np.median(times[imaging]))
    if not (0 < noise_dwell < np.inf and 0 < dwell < np.inf):
        return covariance, ("The dwell time of the noise measurement is missing; that of the image was assumed.",)
    return covariance * (noise_dwell / dwell / header.noise_bandwidth), ()


def _trajectory_assumptions(header: MrdHeader) -> tuple[str, ...]:
    if header.trajectory != "epi":
        return ()
    return ("An EPI scan was taken as plain Cartesian: samples on gradient ramps and echo shifts are not corrected.",)


def _left_out(table: _Table, skipped: NDArray[np.bool_], elsewhere: NDArray[np.bool_]) -> tuple[str, ...]:
    notes = []
    if skipped.any():
        kinds = sorted({word for name, word in _SKIPPED.items() if table.flagged(name).any()})
        notes.append(f"{int(skipped.sum())} readouts that are no image data were left out ({', '.join(kinds)}).")
    if elsewhere.any():
        notes.append(f"{int(elsewhere.sum())} readouts of another encoding than the first were left out.")
    return tuple(notes)


def _has_trajectory(table: _Table, header: MrdHeader, path: Path) -> bool:
    if (table.heads["trajectory_dimensions"] > 0).any():
        return True
    raise FormatError(
        f"{path}: the header says the trajectory is {header.trajectory}, but the readouts come without one; "
        "write the trajectory into the file"
    )
