"""How much memory a reconstruction takes and how much there is: what will not fit is refused before it starts."""

from __future__ import annotations

import math
from pathlib import Path

from dipmed.config import FitConfig
from dipmed.scan import DipmedError, KSpaceScan

_COPIES = 2.5
"""Of the k-space of a whole scan, which whitening, cropping and undersampling hold at a time."""

_PER_IMAGE = {"zero-filled": (1.5, 130), "cg-sense": (3.5, 240), "l1-wavelet": (6.0, 420), "tv": (10.5, 510)}
"""Of the baselines: k-spaces of an image that are held in addition, and bytes a voxel; measured on volumes."""

_FIT_KSPACES = 8.0
_FIT_BYTES = 90
"""The same of a fit; the bytes a voxel are for each feature of the finest scale of its network."""


def available_memory() -> int | None:
    """Bytes that a process can take without swapping, within the limit of its container; None where nobody says."""
    meminfo = _fields(Path("/proc/meminfo"))
    if "MemAvailable:" not in meminfo:
        return None
    available = meminfo["MemAvailable:"] * 2**10
    group = Path("/sys/fs/cgroup")
    limit, used = _number(group / "memory.max"), _number(group / "memory.current")
    if limit is not None and used is not None:
        # pages of files that were read are given back when they are needed
        available = min(available, limit - used + _fields(group / "memory.stat").get("inactive_file", 0))
    return max(0, available)


def check_memory(n_bytes: float, what: str, advice: str) -> None:
    """Raise `DipmedError` when ``what`` needs more memory than there is, with the estimate and what to change."""
    available = available_memory()
    if available is not None and n_bytes > available:
        raise DipmedError(
            f"{what} needs about {n_bytes / 2**30:.2g} GiB of memory, and {available / 2**30:.2g} GiB are free; "
            f"{advice}"
        )


def kspace_memory(
    scan: KSpaceScan,
    method: str,
    config: FitConfig | None,
    *,
    ndim: int,
    n_coils: int | None,
    n_sets: int,
    n_fits: int = 1,
) -> float:
    """Estimate the bytes that the reconstruction of a scan takes beside the scan itself.

    Parameters
    ----------
    method
        Name of the method.
    config
        Of a fit; None for a baseline.
    ndim
        Dimensions of one image: 2 where a 3-D scan is reconstructed slice by slice.
    n_coils
        Virtual coils; None for all.
    n_sets
        Sets of sensitivity maps.
    n_fits
        Fits that run beside each other.
    """
    n_voxels = 1
    for n in scan.matrix_shape[-ndim:]:
        n_voxels *= n
    if config is None:
        kspaces, per_voxel = _PER_IMAGE[method]
    else:
        kspaces, per_voxel = _FIT_KSPACES, _FIT_BYTES * config.network.channels[0]
    coils = scan.n_coils if n_coils is None else n_coils
    per_image = n_fits * n_voxels * (8 * coils * (kspaces + n_sets - 1) + n_sets * per_voxel)
    return _COPIES * scan.kspace.nbytes + per_image


def image_memory(shape: tuple[int, ...], config: FitConfig, n_fits: int) -> float:
    """Estimate the bytes that a fit to an image ``(x, y[, z])`` takes, with ``n_fits`` beside each other."""
    return n_fits * float(math.prod(shape)) * _FIT_BYTES * config.network.channels[0]


def _fields(path: Path) -> dict[str, int]:
    """Read lines of a name and a number; none where there is no such file."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) > 1 and line[1].isdecimal()}


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
