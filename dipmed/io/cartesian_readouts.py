"""From the readouts of a Cartesian measurement and the figures of its protocol to a `KSpaceScan`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from dipmed.io.acquisitions import (
    FRAME_COUNTERS,
    Fetch,
    Grid,
    PhaseAxis,
    Places,
    Readouts,
    clipped_samples,
    frames_of,
    plan_lines,
    plan_samples,
    sort_readouts,
)
from dipmed.io.placement import place_slices
from dipmed.io.samples import check_images, check_samples
from dipmed.scan import Complex64, FormatError, KSpaceScan, SequenceFigures

_NOTABLE_CLIP = 16  # a readout moved by more than this part of its length is worth a word


@dataclass(frozen=True)
class Protocol:
    """What the header of a raw data file says, None where it says nothing.

    Parameters
    ----------
    n_samples, n_lines, n_partitions
        Size of the full encoded matrix.
    centre_line, centre_partition
        Counters of the centre of k-space.
    n_columns
        Voxels along x after the removal of readout oversampling.
    fov_mm
        Field of view of the encoded matrix along x, y, z; for a 2-D scan the last is the slice thickness.
    calibration_mode
        ``"embedded"`` when lines for calibration belong to the image as well, ``"separate"`` when they do not.
    siemens
        Whether directions are as Siemens' raw data have them.
    sequence
        Figures of the pulse sequence.
    """

    n_samples: int | None = None
    n_lines: int | None = None
    n_partitions: int | None = None
    centre_line: int | None = None
    centre_partition: int | None = None
    n_columns: int | None = None
    fov_mm: tuple[float, float, float] | None = None
    calibration_mode: str | None = None
    siemens: bool = False
    sequence: SequenceFigures = field(default_factory=SequenceFigures)


@dataclass(frozen=True)
class RawScan:
    """One measurement as it lies in a file.

    Parameters
    ----------
    path
        Name of the file, for messages.
    source
        Name of the format.
    stored_bytes
        Size of the file.
    imaging, calibration
        Readouts of the image, and those for calibration that are not marked as part of it.
    positions, directions
        Of each readout of the file, by its number: ``(readout, 3)`` and ``(readout, 3, 3)``, LPS.
    fetch
        Gives the samples of readouts.
    noise_covariance
        Of one sample of one imaging readout.
    protocol
        What the header says.
    assumptions, notes
        What is known before the readouts are sorted.
    """

    path: str
    source: str
    stored_bytes: int
    imaging: Readouts
    calibration: Readouts
    positions: NDArray[np.float64]
    directions: NDArray[np.float64]
    fetch: Fetch
    noise_covariance: NDArray[np.complex128] | None
    protocol: Protocol
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def build_cartesian_scan(raw: RawScan) -> KSpaceScan:
    """Sort the readouts of a measurement into k-space and find its place.

    Raises
    ------
    FormatError
        When readouts collide, no k-space is left, or the matrix is too large for the file.
    GeometryError
        When slices are not parallel or positions are impossible.
    """
    raw = _merge_calibration(_one_slab(keep_usual_coils(raw)))
    grid, assumptions = _plan_grid(raw)
    columns = min(raw.protocol.n_columns or grid.n_samples, grid.n_samples)
    voxel, unknown_size = _voxel_sizes(raw.protocol, grid)
    image_shape = (columns, *grid.shape[1:])
    sources = raw.imaging["source"]
    placement = place_slices(
        raw.imaging["slice"],
        raw.positions[sources],
        raw.directions[sources],
        voxel,
        image_shape,
        siemens=raw.protocol.siemens,
    )
    frame, labels = frames_of(raw.imaging)
    places = Places(frame, placement.slice_index, len(labels), placement.n_slices)
    data = sort_readouts(raw.imaging, raw.fetch, grid, places, raw.stored_bytes)
    slice_of = dict(zip(raw.imaging["slice"].tolist(), placement.slice_index.tolist(), strict=True))
    calibration, left_out = _sort_calibration(raw, grid, slice_of, placement.n_slices)
    kspace, damaged = check_images(data.kspace, f"{raw.path}: the k-space")
    return KSpaceScan(
        kspace=kspace,
        mask=data.mask,
        affine=placement.affine,
        image_shape=image_shape,
        source=raw.source,
        frame_labels=labels,
        noise_covariance=None if raw.noise_covariance is None else raw.noise_covariance * data.noise_factor,
        calibration=calibration,
        sequence=raw.protocol.sequence,
        assumptions=(*raw.assumptions, *damaged, *assumptions, *unknown_size, *placement.assumptions),
        notes=(*raw.notes, *_averaging_note(data.count), *left_out),
    )


def usual_coils(readouts: Readouts) -> int:
    """Return the number of coils that most readouts have."""
    coils, count = np.unique(readouts["coils"], return_counts=True)
    return int(coils[np.argmax(count)])


def keep_usual_coils(raw: RawScan) -> RawScan:
    """Keep the readouts with the usual number of coils; some prescans use the body coil in between."""
    usual = usual_coils(raw.imaging)
    keep = raw.imaging["coils"] == usual
    usable = (raw.calibration["coils"] == usual) & (raw.calibration["samples"] > 0)
    left = int((~keep).sum()) + int((~usable).sum())
    note = (f"{left} readouts with another number of coils than {usual} were left out.",) if left else ()
    return replace(raw, imaging=raw.imaging[keep], calibration=raw.calibration[usable], notes=(*raw.notes, *note))


def _one_slab(raw: RawScan) -> RawScan:
    """Keep the first slab of a 3-D scan of several."""
    slabs = np.unique(raw.imaging["slice"])
    if not _is_3d(raw.imaging) or len(slabs) == 1:
        return raw
    note = f"The scan has {len(slabs)} slabs, of which the first one was read."
    imaging = raw.imaging[raw.imaging["slice"] == slabs[0]]
    calibration = raw.calibration[raw.calibration["slice"] == slabs[0]]
    return replace(raw, imaging=imaging, calibration=calibration, notes=(*raw.notes, note))


def _merge_calibration(raw: RawScan) -> RawScan:
    """Count calibration lines as part of the image when they are: embedded and not measured there already."""
    if not len(raw.calibration) or raw.protocol.calibration_mode == "separate":
        return raw
    if np.isin(_places(raw.calibration), _places(raw.imaging)).any():
        return raw
    assumed = (
        "The header does not say whether the calibration lines belong to the image; it was assumed that they do, "
        "since nothing else was measured in their places.",
    )
    return replace(
        raw,
        imaging=np.concatenate([raw.imaging, raw.calibration]),
        calibration=raw.calibration[:0],
        assumptions=raw.assumptions + (() if raw.protocol.calibration_mode == "embedded" else assumed),
    )


def _places(readouts: Readouts) -> NDArray[np.void]:
    names = ["line", "partition", "slice", *FRAME_COUNTERS]
    keys = np.ascontiguousarray(np.stack([readouts[name] for name in names], axis=1))
    return keys.view([("", np.int64)] * len(names)).reshape(-1)


def _is_3d(readouts: Readouts) -> bool:
    return int(np.ptp(readouts["partition"])) > 0


def _plan_grid(raw: RawScan) -> tuple[Grid, tuple[str, ...]]:
    protocol, readouts = raw.protocol, raw.imaging
    n_samples, assumed = plan_samples(readouts, protocol.n_samples)
    lines, assumed_lines = plan_lines(readouts["line"], protocol.n_lines, protocol.centre_line, "line")
    partitions: PhaseAxis | None = None
    assumed_partitions: tuple[str, ...] = ()
    if _is_3d(readouts):
        partitions, assumed_partitions = plan_lines(
            readouts["partition"], protocol.n_partitions, protocol.centre_partition, "partition"
        )
    clipped = clipped_samples(readouts, n_samples)
    if clipped * _NOTABLE_CLIP > n_samples:
        assumed = (
            *assumed,
            f"The header puts the centre of k-space {clipped} samples away from where the readouts can be placed; "
            "their position was assumed.",
        )
    return Grid(n_samples, lines, partitions), (*assumed, *assumed_lines, *assumed_partitions)


def _voxel_sizes(protocol: Protocol, grid: Grid) -> tuple[tuple[float, float, float], tuple[str, ...]]:
    if protocol.fov_mm is None:
        return (1.0, 1.0, 1.0), ("The file does not say the field of view; voxels of 1 mm were assumed.",)
    x, y, z = protocol.fov_mm
    n_partitions = grid.partitions.size if grid.partitions else 1
    voxel = (x / grid.n_samples, y / grid.lines.size, z / n_partitions)
    return voxel, ()


def _sort_calibration(
    raw: RawScan, grid: Grid, slice_of: dict[int, int], n_slices: int
) -> tuple[Complex64 | None, tuple[str, ...]]:
    """Sort a separate calibration scan; what is wrong with it is no reason to give up the image."""
    readouts = raw.calibration
    if not len(readouts):
        return None, ()
    slices = np.array([slice_of.get(number, -1) for number in readouts["slice"].tolist()])
    frame, labels = frames_of(readouts)
    keep = grid.holds(readouts) & (slices >= 0) & (frame == 0)
    notes = []
    if len(labels) > 1:
        notes.append(f"The calibration scan has {len(labels)} frames, of which the first one was read.")
    outside = int(((frame == 0) & ~keep).sum())
    if outside:
        notes.append(f"{outside} calibration readouts that do not fit the matrix of the image were left out.")
    if not keep.any():
        return None, tuple(notes)
    places = Places(frame[keep], slices[keep], 1, n_slices)
    try:
        data = sort_readouts(readouts[keep], raw.fetch, grid, places, raw.stored_bytes)
        return check_samples(data.kspace, "the calibration scan"), tuple(notes)
    except FormatError as error:
        return None, (*notes, f"The calibration scan was left out: {error}.")


def _averaging_note(count: NDArray[np.uint16]) -> tuple[str, ...]:
    measured = np.unique(count[count > 0])
    if measured.max(initial=1) == 1:
        return ()
    how_many = f"{measured[0]}" if len(measured) == 1 else f"{measured[0]} to {measured[-1]}"
    return (f"Each k-space location is the mean of {how_many} averages.",)
