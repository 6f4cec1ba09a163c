"""Slice by slice, in slabs, or by one network in three dimensions: as a user chose, or as data and memory allow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from dipmed.calib.neighbours import slice_change
from dipmed.calib.projections import keep_slices, keep_views
from dipmed.dip import n_fits
from dipmed.dip.precision import uses_bfloat16
from dipmed.memory import available_memory, check_memory, holds, kspace_memory, projection_memory
from dipmed.methods import find_method
from dipmed.prepare import prepare_kspace
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan, Scan
from dipmed.settings import ReconSettings, has_many_views, with_preset
from dipmed.slabs import SMALLEST, slab_ranges

MODES = ("auto", "slice", "slab", "3d")

ALIKE = {"mri": 0.15, "ct": 0.25}
"""Largest change from slice to slice, see `slice_change`, up to which one network for all was as good as one for each
(`scripts/benchmark_volume.py`)."""

_CPU = torch.device("cpu")

_WORKER = 550 * 2**20
"""Bytes that a worker takes beside its slice (`scripts/benchmark_memory.py --cases workers`)."""


@dataclass(frozen=True)
class Choice:
    """How a scan is reconstructed, and why.

    ``settings`` have the mode ``"slice"``, ``"slab"`` or ``"3d"``, and all that follows from it; ``reason`` is one
    sentence.
    """

    settings: ReconSettings
    reason: str


def choose_mode(scan: Scan, settings: ReconSettings, device: torch.device = _CPU) -> Choice:
    """Say how a scan is reconstructed; ``"auto"`` takes a volume or a stack of alike slices as one, if memory holds it.

    Raises
    ------
    DipmedError
        When the mode is unknown or not for this scan, or memory does not hold it; the message says what to change.
    """
    _check(settings)
    choice = _choose(scan, settings, device)
    return replace(choice, settings=with_preset(scan, choice.settings))


def _choose(scan: Scan, settings: ReconSettings, device: torch.device) -> Choice:
    if settings.mode == "auto":
        return _by_data(scan, settings, device)
    if settings.mode == "3d" and _is_volume(scan, settings):
        reason = f"3d: as chosen; one network fits {_sizes(scan, settings)} voxels"
        return _whole_or_refuse(scan, settings, device, reason)
    settings = settings if settings.mode == "3d" else _apart(scan, settings)
    n_slices = _n_slices(scan, settings)
    if settings.mode == "slice":
        check_fits(scan, settings, device)
        return Choice(settings, f"slice: as chosen; {_one_by_one(n_slices)}")
    if n_slices < 2:
        raise DipmedError(f"--mode {settings.mode} is for several slices, and there is one here; leave --mode out")
    if settings.mode == "3d":
        reason = f"3d: as chosen; one network fits the stack of {n_slices} slices"
        return _whole_or_refuse(scan, settings, device, reason)
    found = _largest_slab(scan, settings, device)
    if found is None:
        check_fits(scan, replace(_saving(settings), slab=min(SMALLEST, n_slices)), device)
    return Choice(found or settings, f"slab: as chosen; {_in_slabs(n_slices, found or settings)}")


def _check(settings: ReconSettings) -> None:
    """Refuse modes that are none, or that the method has not."""
    if settings.mode not in MODES:
        raise DipmedError(f"unknown mode {settings.mode!r}; choose one of {', '.join(MODES)}")
    if settings.slab is not None and (settings.mode != "slab" or settings.slab < 2):
        raise DipmedError("--slab N is for --mode slab, with two slices or more")
    if settings.mode in ("slab", "3d") and find_method(settings.method).takes_series:
        raise DipmedError(
            f"{settings.method} fits the frames of each image, and has no --mode {settings.mode}; leave it out"
        )


def _by_data(scan: Scan, settings: ReconSettings, device: torch.device) -> Choice:
    """Take a volume as one, and slices that are alike; what memory does not hold is taken apart, where it can be."""
    if not _is_volume(scan, settings):
        return _slices_by_data(scan, settings, device)
    settings = replace(settings, mode="3d")
    is_fit = find_method(settings.method).is_fit
    whole = _whole(scan, settings, device)
    sizes = _sizes(scan, settings)
    if whole is not None or not is_fit or not _can_split(scan):
        return _whole_or_refuse(
            scan, settings, device, f"3d: the scan is one volume, and one network fits {sizes} voxels"
        )
    why = f"a network for all {sizes} voxels needs more memory than there is"
    apart = replace(settings, split_readout=True)
    slabs = _largest_slab(scan, replace(apart, mode="slab"), device)
    if slabs is not None:
        return Choice(slabs, f"slab: {why}; {_in_slabs(_n_slices(scan, slabs), slabs)}")
    slices = replace(apart, mode="slice")
    if not _fits(scan, slices, device):
        check_fits(scan, settings, device)
    return Choice(
        slices, f"slice: {why}, and so does one for {SMALLEST} slices; {_one_by_one(_n_slices(scan, slices))}"
    )


def with_mode(scan: Scan, settings: ReconSettings) -> ReconSettings:
    """Name the mode of slices that ``"auto"`` joins, where memory is no matter; all else stays."""
    joins = settings.mode == "auto" and not _is_volume(scan, settings) and _is_alike(scan, settings)[0]
    return replace(settings, mode="3d") if joins else settings


def _slices_by_data(scan: Scan, settings: ReconSettings, device: torch.device) -> Choice:
    """Take slices that are alike as one volume, or in slabs, and others one by one."""
    n_slices = _n_slices(scan, settings)
    is_alike, why = _is_alike(scan, settings)
    if is_alike:
        found = _largest_slab(scan, replace(settings, mode="slab"), device)
        if found is not None and found.slab == n_slices:
            return Choice(replace(found, mode="3d", slab=None), f"3d: {why}; {_in_slabs(n_slices, found)}")
        if found is not None:
            return Choice(found, f"slab: {why}; {_in_slabs(n_slices, found)}")
        why += f", but memory does not hold {SMALLEST} at a time"
    settings = replace(settings, mode="slice")
    check_fits(scan, settings, device)
    return Choice(settings, f"slice: {why}; {_one_by_one(n_slices)}")


def _is_alike(scan: Scan, settings: ReconSettings) -> tuple[bool, str]:
    """Whether slices are fitted as a volume, and what speaks for or against it."""
    could_be = scan.ndim == 2 and settings.method == "dip" and _n_slices(scan, settings) >= SMALLEST
    # where many views leave little to a prior, and along a trajectory, one network for all was no better or is unknown
    is_known = not has_many_views(scan, settings) if isinstance(scan, ProjectionScan) else scan.is_cartesian
    if not could_be or not is_known or _is_for_slices(settings):
        return False, "the scan was taken slice by slice"
    change = slice_change(_as_fitted(scan, settings))
    if np.isinf(change):
        return False, "the scan was taken slice by slice, and one is empty or has no sample of its neighbour's"
    return change <= ALIKE[scan.modality], f"from one slice to the next {change:.0%} of the image changes"


def _is_for_slices(settings: ReconSettings) -> bool:
    """Whether something was chosen that counts by slices, or is not known of stacks: a second set of maps."""
    is_timed = settings.chosen_changes().get("time_limit") is not None
    named = (settings.preset, settings.weights, settings.in_flight)
    return is_timed or settings.warm_start or settings.map_sets > 1 or any(one is not None for one in named)


def _as_fitted(scan: Scan, settings: ReconSettings) -> Scan:
    """The slices and the data that the fit will see: what is left out in retrospect must not choose for it."""
    if isinstance(scan, KSpaceScan):
        return prepare_kspace(scan, replace(settings, n_coils=None))
    scan = scan if settings.slices is None else keep_slices(scan, settings.slices)
    return scan if settings.views is None else keep_views(scan, settings.views)


def check_fits(scan: Scan, settings: ReconSettings, device: torch.device = _CPU) -> None:
    """Refuse a reconstruction that memory will not hold, before it starts.

    Raises
    ------
    DipmedError
        With the estimate, and what to change.
    """
    coils = f"{scan.n_coils} coils of " if isinstance(scan, KSpaceScan) else ""
    sizes = " x ".join(map(str, scan.matrix_shape)) if isinstance(scan, KSpaceScan) else _sizes(scan, settings)
    what = f"{settings.method} of {coils}{sizes}"
    check_memory(memory_needed(scan, settings, device), what, _advice(scan, settings), memory_limit(settings, device))


def _whole_or_refuse(scan: Scan, settings: ReconSettings, device: torch.device, reason: str) -> Choice:
    found = _whole(scan, settings, device)
    if found is None:
        check_fits(scan, _saving(settings), device)
    elif found is not settings:
        reason += ", computing features again to save memory"
    return Choice(found or settings, reason)


def _whole(scan: Scan, settings: ReconSettings, device: torch.device) -> ReconSettings | None:
    """The settings, with checkpointing if memory holds it so alone; None if it does not hold it."""
    return next((one for one in (settings, _saving(settings)) if _fits(scan, one, device)), None)


def _largest_slab(scan: Scan, settings: ReconSettings, device: torch.device) -> ReconSettings | None:
    """The largest slabs that memory holds, without checkpointing if it can be; None if it holds none."""
    n_slices = _n_slices(scan, settings)
    if settings.slab is not None:
        return _whole(scan, settings, device)
    for size in range(n_slices, min(SMALLEST, n_slices) - 1, -1):
        found = _whole(scan, replace(settings, slab=size), device)
        if found is not None:
            return found
    return None


def _saving(settings: ReconSettings) -> ReconSettings:
    """The settings that take the least memory for the same image."""
    if not find_method(settings.method).is_fit:
        return settings
    return replace(settings, changes={**settings.changes, "checkpointing": True})


def _fits(scan: Scan, settings: ReconSettings, device: torch.device) -> bool:
    return holds(memory_needed(scan, settings, device), memory_limit(settings, device))


def memory_limit(settings: ReconSettings, device: torch.device) -> float | None:
    """Bytes that were allowed, or are free on the device; None for what the machine has."""
    if settings.memory_gib is not None:
        return settings.memory_gib * 2**30
    return available_memory(device) if device.type == "cuda" else None


def memory_needed(scan: Scan, settings: ReconSettings, device: torch.device = _CPU, in_flight: int = 1) -> float:
    """Bytes of the largest image, and of as many at a time; nothing is known of the classical methods of CT."""
    method = find_method(settings.method)
    named = with_preset(scan, settings)
    config = named.fit_config(scan.modality, settings.ndim_for(scan)) if method.is_fit else None
    n_beside = 1 if config is None else in_flight * n_fits(config)
    shape = _shape(scan, settings)
    in_half = config is not None and uses_bfloat16(config, device)
    if isinstance(scan, KSpaceScan):
        return kspace_memory(
            scan,
            method.name,
            config,
            shape=shape,
            n_coils=settings.n_coils,
            n_sets=settings.map_sets,
            n_fits=n_beside,
            in_half=in_half,
        )
    if config is None:
        return 0.0
    return projection_memory(scan, config, shape=shape, n_views=settings.views, n_fits=n_beside, in_half=in_half)


def workers_worth(scan: Scan, settings: ReconSettings) -> int:
    """How many workers would fit slices of a scan side by side, one on each core, as far as memory goes; 1 for none.

    Of a fit with two threads both wait for each other at every layer: slices in processes of their own take less time.
    """
    if settings.mode != "slice" or settings.warm_start or not find_method(settings.method).is_fit:
        return 1
    # a worker takes seconds to start, which the second slice of each pays back
    many = min(torch.get_num_threads(), _n_slices(scan, settings) // 2)
    held = memory_needed(scan, settings) + _WORKER
    return next((n for n in range(many, 1, -1) if holds(n * held, memory_limit(settings, _CPU))), 1)


def _shape(scan: Scan, settings: ReconSettings) -> tuple[int, ...]:
    """Sizes of the image that one network fits, ``(x, y[, z])``."""
    matrix = scan.matrix_shape if isinstance(scan, KSpaceScan) else scan.grid.shape
    if settings.matrix is not None:
        n = settings.matrix
        matrix = (n, n, *(max(1, round(size * n / matrix[0])) for size in matrix[2:]))
    if _is_volume(scan, settings):
        return matrix
    in_plane = matrix[1:] if settings.split_readout else matrix[:2]
    if settings.mode == "slice":
        return in_plane
    n_slices = _n_slices(scan, settings)
    first, end = slab_ranges(n_slices, n_slices if settings.slab is None else settings.slab)[0]
    return (*in_plane, end - first)


def _is_volume(scan: Scan, settings: ReconSettings) -> bool:
    """Whether the scan is taken as the volume that it was encoded as."""
    return scan.ndim == 3 and not settings.split_readout and not settings.rebin


def _n_slices(scan: Scan, settings: ReconSettings) -> int:
    """Slices of a scan that is taken slice by slice; of one that is rebinned, about."""
    if settings.slices is not None:
        return settings.slices[1] - settings.slices[0]
    if scan.ndim == 2:
        return scan.n_slices
    if isinstance(scan, KSpaceScan):
        return min(scan.image_shape[0], scan.matrix_shape[0])
    return scan.grid.shape[2]


def _apart(scan: Scan, settings: ReconSettings) -> ReconSettings:
    """Settings that take the scan slice by slice, which a volume can be whose readout is fully sampled."""
    if not _is_volume(scan, settings):
        return settings
    if not isinstance(scan, KSpaceScan):
        raise DipmedError(
            f"--mode {settings.mode} takes slices apart, but the rays of a cone cross many: use --mode 3d, or --rebin "
            "for a helix"
        )
    if not _can_split(scan):
        raise DipmedError(
            f"--mode {settings.mode} takes slices apart, but the readout of this volume is not Cartesian and fully "
            "sampled, so that its slices cannot be told apart before the reconstruction: use --mode 3d"
        )
    return replace(settings, split_readout=True)


def _can_split(scan: Scan) -> bool:
    """Whether an inverse transform along the readout makes slices of a volume."""
    if not isinstance(scan, KSpaceScan) or scan.mask is None or scan.ndim == 2:
        return False
    return bool(np.array_equal(scan.mask.any(axis=2), scan.mask.all(axis=2)))


def _advice(scan: Scan, settings: ReconSettings) -> str:
    ways = []
    if isinstance(scan, KSpaceScan):
        ways.append("compress to fewer coils with --coils N")
        if scan.ndim == 3 and scan.is_cartesian and not settings.split_readout:
            ways.append("go slice by slice with --split-readout")
    else:
        ways.append("take larger voxels with --matrix N")
    if not _is_volume(scan, settings):
        if settings.mode in ("slab", "3d"):
            ways.append("choose --mode slice" if settings.mode == "slab" else "choose --mode slab or slice")
        if _n_slices(scan, settings) > 1:
            ways.append("take fewer --slices")
    return ", or ".join(ways)


def _sizes(scan: Scan, settings: ReconSettings) -> str:
    return " x ".join(map(str, _shape(scan, settings)))


def _one_by_one(n_slices: int) -> str:
    return "it is one" if n_slices == 1 else f"each of {n_slices} is fitted by itself"


def _in_slabs(n_slices: int, settings: ReconSettings) -> str:
    """Say how many slabs there are of how many slices, and whether memory was saved."""
    ranges = slab_ranges(n_slices, n_slices if settings.slab is None else settings.slab)
    size = ranges[0][1] - ranges[0][0]
    saving = ", computing features again to save memory" if settings.changes.get("checkpointing") else ""
    if len(ranges) == 1:
        return f"one network fits all {n_slices} slices{saving}"
    return f"{len(ranges)} overlapping slabs of {size} of the {n_slices} slices are fitted{saving}"
