"""Sorting of single Cartesian readouts into k-space arrays, shared by the formats that store them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dipmed.io.limits import array_bytes, check_expansion
from dipmed.scan import Complex64, FormatError

FRAME_COUNTERS = ("contrast", "phase", "repetition", "set")
COUNTERS = ("line", "partition", "slice", "average", *FRAME_COUNTERS)

READOUT = np.dtype(
    [(name, np.int64) for name in COUNTERS]
    + [(name, np.int64) for name in ("samples", "coils", "centre", "drop_first", "drop_last", "source")]
    + [("reversed", np.bool_)]
)
"""One readout: its counters; how many samples and coils; which sample is the centre of k-space; how many samples at
either end are to be dropped; which number it has in the file; and whether it runs towards negative k."""

Readouts = NDArray[np.void]
Fetch = Callable[[NDArray[np.int64]], Iterator[Complex64]]
"""Gives the samples, ``(coil, sample)``, of the readouts with these numbers (rising), one after the other."""


@dataclass(frozen=True)
class PhaseAxis:
    """How counters of a phase-encoding axis become indices: ``index = counter + shift``."""

    size: int
    shift: int = 0


@dataclass(frozen=True)
class Grid:
    """The matrix that readouts are put into; `partitions` is None for a 2-D encoding."""

    n_samples: int
    lines: PhaseAxis
    partitions: PhaseAxis | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """``(x, y[, z])``."""
        phases = (self.lines,) if self.partitions is None else (self.lines, self.partitions)
        return (self.n_samples, *(axis.size for axis in phases))

    def holds(self, readouts: Readouts) -> NDArray[np.bool_]:
        """For each readout whether it fits into the matrix."""
        inside: NDArray[np.bool_] = readouts["samples"] <= self.n_samples
        for name, axis in (("line", self.lines), ("partition", self.partitions)):
            if axis is not None:
                index = readouts[name] + axis.shift
                inside = inside & (index >= 0) & (index < axis.size)
        return inside


@dataclass(frozen=True)
class Places:
    """For each readout the index of its frame and of its slice, and how many there are of either."""

    frame: NDArray[np.int64]
    slice: NDArray[np.int64]
    n_frames: int
    n_slices: int


@dataclass(frozen=True)
class Sorted:
    """Readouts in place.

    Parameters
    ----------
    kspace
        ``(frame, slice, coil, x, y[, z])``, the mean over averages.
    count
        How many averages each location has, ``(frame, slice, x, y[, z])``; 0 where nothing was measured.
    """

    kspace: Complex64
    count: NDArray[np.uint16]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Which locations were sampled."""
        return self.count > 0

    @property
    def noise_factor(self) -> float:
        """How much smaller averaging made the noise variance, as a mean over the sampled locations."""
        return float(np.mean(1.0 / self.count[self.count > 0]))


def plan_lines(
    counters: NDArray[np.int64], size: int | None, centre: int | None, name: str
) -> tuple[PhaseAxis, tuple[str, ...]]:
    """Decide where the counters of a phase-encoding axis go, so that the centre of k-space is at ``size // 2``.

    What the header says is taken only if the data do not contradict it.

    Parameters
    ----------
    counters
        Counter of each readout.
    size
        Number of lines of the full matrix by the header.
    centre
        Counter of the central line by the header.
    name
        ``"line"`` or ``"partition"``.

    Returns
    -------
    The axis, and a sentence for each assumption.
    """
    low, high = int(counters.min()), int(counters.max())
    assumed = []
    if size is None or high - low + 1 > size:
        said = "says nothing of the number" if size is None else f"speaks of {size} {name}s"
        size = high + 1
        assumed.append(f"The header {said} but {name}s up to {high} were measured; {size} {name}s were assumed.")
    if centre is not None:
        shift = size // 2 - centre
        if low + shift >= 0 and high + shift < size:
            return PhaseAxis(size, shift), tuple(assumed)
        why = f"puts the centre of k-space at {name} {centre}, which leaves measured {name}s outside of the matrix"
    else:
        why = f"does not say which {name} is the centre of k-space"
    shift = 0 if high < size else -low
    assumed.append(f"The header {why}; {name} {size // 2 - shift} was assumed.")
    return PhaseAxis(size, shift), tuple(assumed)


def plan_samples(readouts: Readouts, size: int | None) -> tuple[int, tuple[str, ...]]:
    """Decide how long a full readout is, from the longest measured one and the header's ``size``."""
    longest = int(readouts["samples"].max())
    if size is None:
        return longest, (f"The header does not say how long a full readout is; {longest} samples were assumed.",)
    if longest > size:
        return longest, (
            f"The header speaks of {size} samples in a readout but {longest} were measured; {longest} were assumed.",
        )
    return size, ()


def frames_of(readouts: Readouts) -> tuple[NDArray[np.int64], tuple[dict[str, int], ...]]:
    """Return for each readout the index of its frame, and for each frame what distinguishes it.

    Every combination of contrast, cardiac phase, repetition and set that was measured is a frame.
    """
    keys = np.stack([readouts[name] for name in FRAME_COUNTERS], axis=1)
    frames, index = np.unique(keys, axis=0, return_inverse=True)
    varying = [i for i in range(len(FRAME_COUNTERS)) if len(np.unique(frames[:, i])) > 1]
    labels = tuple({FRAME_COUNTERS[i]: int(frame[i]) for i in varying} for frame in frames)
    return index.reshape(-1), labels


def sort_readouts(readouts: Readouts, fetch: Fetch, grid: Grid, places: Places, stored_bytes: int) -> Sorted:
    """Put readouts into their places, averaging those that differ in the average counter alone.

    Parameters
    ----------
    readouts
        A row of `READOUT` each.
    fetch
        Gives their samples.
    grid
        The matrix to fill, large enough for all of them.
    places
        The frame and slice of each.
    stored_bytes
        Size of the file, which bounds the memory that the matrix may take.

    Raises
    ------
    FormatError
        When two readouts have the same place and no label tells them apart, or when the matrix is too large for
        the file.
    """
    _refuse_collisions(readouts, places)
    frame, slices = places.frame, places.slice
    shape = (places.n_frames, places.n_slices, int(readouts["coils"][0]), *grid.shape)
    check_expansion(array_bytes(shape, 8), stored_bytes, "the k-space matrix")
    lines = readouts["line"] + grid.lines.shift
    partitions = readouts["partition"] + grid.partitions.shift if grid.partitions else np.zeros_like(lines)
    kspace = np.zeros(shape, np.complex64)
    count = np.zeros(shape[:2] + shape[3:], np.uint16)
    order = np.argsort(readouts["source"])
    with np.errstate(all="ignore"):  # samples that are not finite are found in the end
        for i, samples in zip(order, fetch(readouts["source"][order]), strict=True):
            column = (lines[i],) if grid.partitions is None else (lines[i], partitions[i])
            place, kept = _along_readout(readouts[i], samples, grid.n_samples)
            kspace[(frame[i], slices[i], slice(None), place, *column)] += kept
            count[(frame[i], slices[i], place, *column)] += 1
        if count.max(initial=0) > 1:
            kspace /= np.maximum(count, 1)[:, :, None]
    return Sorted(kspace, count)


def clipped_samples(readouts: Readouts, n_samples: int) -> int:
    """Return how far the worst readout lies from where its centre belongs, because it would stick out otherwise."""
    reversed_ = readouts["reversed"]
    centre = np.where(reversed_, readouts["samples"] - readouts["centre"], readouts["centre"])
    wanted = n_samples // 2 - centre
    return int(np.abs(wanted - np.clip(wanted, 0, n_samples - readouts["samples"])).max())


def noise_covariance(readouts: Iterator[Complex64]) -> NDArray[np.complex128]:
    """Return ``E[n nᴴ]`` over all samples of noise readouts, ``(coil, sample)`` each.

    Raises
    ------
    FormatError
        When there are no samples, or values that are not finite.
    """
    total: NDArray[np.complex128] | None = None
    n_samples = 0
    with np.errstate(all="ignore"):  # what is not finite is found below
        for samples in readouts:
            noise = samples.astype(np.complex128)
            n_samples += noise.shape[1]
            outer = noise @ noise.conj().T
            total = outer if total is None else total + outer
    if total is None or n_samples == 0 or not np.isfinite(total).all():
        raise FormatError("the noise measurement holds no finite samples")
    return total / n_samples


def _along_readout(readout: np.void, samples: Complex64, n_samples: int) -> tuple[slice, Complex64]:
    """Return where along x the samples belong, and those that are kept, in the order of rising k."""
    n, centre = int(readout["samples"]), int(readout["centre"])
    first, last = int(readout["drop_first"]), int(readout["drop_last"])
    if readout["reversed"]:
        # the middle of a symmetric readout, n // 2, stays what it is
        samples, centre, first, last = samples[:, ::-1], n - centre, last, first
    # a readout that would stick out is moved inside: a small shift of k-space is only a phase of the image
    start = min(max(n_samples // 2 - centre, 0), n_samples - n)
    return slice(start + first, start + n - last), samples[:, first : n - last]


def _refuse_collisions(readouts: Readouts, places: Places) -> None:
    """Averaging echoes or repetitions that nothing tells apart would give a wrong image without a word."""
    keys = [places.frame, places.slice, *(readouts[name] for name in ("line", "partition", "average"))]
    unique, first, count = np.unique(np.stack(keys, axis=1), axis=0, return_index=True, return_counts=True)
    if len(unique) == len(readouts):
        return
    example = readouts[first[np.argmax(count > 1)]]
    where = ", ".join(f"{name} {example[name]}" for name in COUNTERS)
    raise FormatError(
        f"{len(readouts) - len(unique)} readouts have the same place as another one, for example {where}; they may be "
        "echoes or repetitions without a label, so they are not mixed; export the scan again with a contrast, "
        "repetition, set or average counter"
    )
