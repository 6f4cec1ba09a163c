"""How much memory a reconstruction takes and how much there is: what will not fit is refused before it starts."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan
from operators import parts_gib
from operators.ct_geometry import Beam
from operators.ct_sparse import KEPT_GIB, pair_gib

_COPIES = 2.5
"""Of the k-space of a whole scan, which whitening, cropping and undersampling hold at a time."""

_PER_IMAGE = {"zero-filled": (1.5, 130), "cg-sense": (3.5, 240), "l1-wavelet": (6.0, 420), "tv": (10.5, 510)}
"""Of the baselines: k-spaces of an image that are held in addition, and bytes a voxel; measured on volumes."""

_FIT_KSPACES = 5.0
"""The same of a fit."""

_FIT_PROJECTIONS = 12.0
"""Copies of the line integrals of an image: as measured, scaled, weighted, fitted, and what the steps make of them."""

_FIT_IMAGES = 20
"""Images that a fit holds beside its network: inputs, averages, what a recovery needs, the gradient."""

_FEATURE_BYTES = {False: 4.0, True: 3.2}
"""Of a feature in a voxel, and where convolutions are in bfloat16: normalisations are not."""

_KEPT_BLOCKS, _KEPT_SHARE = 2**25, 1.35
"""Freed arrays below this size stay with the process, as glibc has it, and fragments add this factor. Checkpointing
saves nothing then. Measured in float32; in bfloat16 nothing of the kind was seen."""


def available_memory(device: torch.device | None = None) -> int | None:
    """Bytes that a process can take without swapping, within the limit of its container; None where nobody says.

    Of a CUDA device, what is free there.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
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


def holds(n_bytes: float, limit: float | None = None) -> bool:
    """Whether there is so much memory, or ``limit`` allows it; where nobody says, there is."""
    available = available_memory() if limit is None else limit
    return available is None or n_bytes <= available


def check_memory(n_bytes: float, what: str, advice: str, limit: float | None = None) -> None:
    """Raise `DipmedError` when ``what`` needs more memory than there is, with the estimate and what to change.

    Parameters
    ----------
    limit
        Bytes that may be taken; None for what is free.
    """
    available = available_memory() if limit is None else limit
    if available is not None and n_bytes > available:
        free = "are free" if limit is None else "may be taken"
        raise DipmedError(
            f"{what} needs about {n_bytes / 2**30:.2g} GiB of memory, and {available / 2**30:.2g} GiB {free}; {advice}"
        )


def network_memory(
    shape: tuple[int, ...], network: NetworkConfig, n_inputs: int, *, checkpointing: bool, in_half: bool
) -> float:
    """Estimate the bytes of the features of a U-Net, and of their gradients, when those need most.

    Everything that the gradient needs is held until it comes to it: of each block the input, what the convolution and
    the normalisation made of it, and the output. With checkpointing only inputs and outputs of blocks are, and what
    lies within the block that the gradient has come to. The finest scale has nearly all of it.

    Parameters
    ----------
    shape
        Of the image, ``(x, y[, z])``; it is padded to what the strides divide.
    n_inputs
        Channels of the input.
    checkpointing
        See `dipmed.nets.UNet`.
    in_half
        Whether convolutions are in bfloat16.
    """
    multiple = 2 ** len(network.channels)
    n_voxels = math.prod(math.ceil(n / multiple) * multiple for n in shape)
    joined = network.up_channels + network.skip_channels
    in_blocks = not in_half and 4 * network.channels[0] * n_voxels < _KEPT_BLOCKS
    checkpointing = checkpointing and not in_blocks
    features = float(n_inputs)
    for scale, channels in enumerate(network.channels):
        share, below = (1 / 2 ** (len(shape) * depth) for depth in (scale, scale + 1))
        features += (share + below) * 2 * channels + share * network.skip_channels
        if not checkpointing:
            features += (share + below) * 4 * channels + share * (joined + network.skip_channels)
    features += 2 * network.channels[0] + joined
    if checkpointing:
        features += network.channels[0] + joined
    return n_voxels * features * _FEATURE_BYTES[in_half] * (_KEPT_SHARE if in_blocks else 1)


def fit_memory(shape: tuple[int, ...], config: FitConfig, n_channels: int, *, in_half: bool) -> float:
    """Estimate the bytes that a fit takes beside its data.

    Parameters
    ----------
    shape
        Of the image, ``(x, y[, z])``.
    n_channels
        Real channels of the image: 1, or 2 of each complex one.
    in_half
        As for `network_memory`.
    """
    n_parts = config.subpixels**2
    n_inputs = n_parts * sum(32 if name == "noise" else n_channels for name in config.inputs)
    network = network_memory(shape, config.network, n_inputs, checkpointing=config.checkpointing, in_half=in_half)
    return network + 4 * n_channels * n_parts * _FIT_IMAGES * math.prod(shape)


def kspace_memory(
    scan: KSpaceScan,
    method: str,
    config: FitConfig | None,
    *,
    shape: tuple[int, ...],
    n_coils: int | None,
    n_sets: int,
    n_fits: int = 1,
    in_half: bool = False,
) -> float:
    """Estimate the bytes that the reconstruction of a scan takes beside the scan itself.

    Parameters
    ----------
    method
        Name of the method.
    config
        Of a fit; None for a baseline.
    shape
        Of one image, ``(x, y[, z])``: two sizes where a 3-D scan is reconstructed slice by slice.
    n_coils
        Virtual coils; None for all.
    n_sets
        Sets of sensitivity maps.
    n_fits
        Fits that run beside each other.
    in_half
        As for `network_memory`.
    """
    n_voxels = math.prod(shape)
    coils = scan.n_coils if n_coils is None else n_coils
    if config is None:
        kspaces, per_voxel = _PER_IMAGE[method]
        beside = n_sets * per_voxel * float(n_voxels)
    else:
        kspaces, beside = _FIT_KSPACES, fit_memory(shape, config, 2 * n_sets, in_half=in_half)
    return _COPIES * scan.kspace.nbytes + n_fits * (8 * n_voxels * coils * (kspaces + n_sets - 1) + beside)


def projection_memory(
    scan: ProjectionScan,
    config: FitConfig,
    *,
    shape: tuple[int, ...],
    n_views: int | None,
    n_fits: int = 1,
    in_half: bool = False,
) -> float:
    """Estimate the bytes that a fit of projections takes beside the scan itself.

    Parameters
    ----------
    shape
        Of one image, ``(x, y[, z])``; with three sizes where slices are fitted as one volume, too.
    n_views
        How many are kept; None for all.
    config, n_fits, in_half
        As for `kspace_memory`.
    """
    views = scan.n_views if n_views is None else n_views
    rays = views * math.prod(scan.beam.shape[1:])
    matrices = 0.0
    if isinstance(scan.beam, Beam):
        kept = views / scan.n_views
        matrices = pair_gib(scan.grid, scan.beam) * kept
        if config.subpixels > 1:
            through_parts = parts_gib(scan.grid, scan.beam, config.subpixels) * kept
            if through_parts <= KEPT_GIB:
                matrices += through_parts
            else:  # pixels stay whole then
                config = config.replace(subpixels=1)
        rays *= shape[2] if len(shape) == 3 else 1
    return matrices * 2**30 + n_fits * (4 * _FIT_PROJECTIONS * rays + fit_memory(shape, config, 1, in_half=in_half))


def image_memory(shape: tuple[int, ...], config: FitConfig, n_fits: int) -> float:
    """Estimate the bytes that a fit to an image ``(x, y[, z])`` takes, with ``n_fits`` beside each other."""
    return n_fits * fit_memory(shape, config, 1, in_half=False)


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
