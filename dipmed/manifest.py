"""What decides the images of a run, so that a later one can tell whether it would make the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import dipmed
from dipmed.calib.coils import MAP_METHODS, CoilMaps
from dipmed.config import FitConfig
from dipmed.scan import ImageVolume, Scan
from dipmed.settings import ReconSettings

_APART = ("changes", "sets", "preset", "weights", "mask", "maps", "reference_image", "device", "memory_gib")
"""Settings that are told of by what they come to: the settings of the fit, and the contents of files."""

_IN_LAST_BITS = ("in_flight", "compile")
"""Settings that change images by rounding alone."""


def make_manifest(
    scan: Scan, settings: ReconSettings, device: torch.device, maps: Sequence[Sequence[CoilMaps]] | None = None
) -> dict[str, dict[str, Any]]:
    """Describe all that decides the images, without a name or a path.

    The number of threads is left out, and that of slices in flight: they may change with the machine, and the images
    with them in their last bits.

    Parameters
    ----------
    scan
        As it came from its file; samples and geometry enter as one checksum.
    maps
        Sensitivity maps of k-space, where some are given and no file is named.
    """
    left_out = (*_APART, *_IN_LAST_BITS)
    chosen = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name not in left_out}
    chosen["uncertainty"] = None if settings.uncertainty is None else asdict(settings.uncertainty)
    files = {"the mask": settings.mask, "the reference image": settings.reference_image}
    if settings.maps not in MAP_METHODS:
        files["the maps"] = Path(settings.maps)
    return {
        "settings": {
            **chosen,
            "maps": settings.maps if settings.maps in MAP_METHODS else "file",
            "device": device.type,
        },
        "fit": _flat(asdict(settings.fit_config(scan.modality, settings.ndim_for(scan)))),
        "options": settings.method_options(),
        "input": {
            "the scan": checksum(scan),
            "the given maps": None if maps is None else checksum(maps),
            "the weights": None if settings.weights is None else checksum(settings.weights),
            **{name: None if path is None else _of_file(path) for name, path in files.items()},
        },
        "versions": _versions(),
    }


def image_manifest(
    volume: ImageVolume,
    holes: NDArray[np.bool_] | None,
    settings: Mapping[str, Any],
    config: FitConfig,
    device: torch.device,
) -> dict[str, dict[str, Any]]:
    """Describe all that decides a restored volume, as `make_manifest` does of a reconstructed one.

    Parameters
    ----------
    volume, holes
        As they came from their files; they enter as checksums.
    settings
        What was chosen beside those of the fit, by name.
    config
        Of the fits.
    """
    return {
        "settings": {**settings, "device": device.type},
        "fit": _flat(asdict(config)),
        "input": {"the volume": checksum(volume), "the mask": None if holes is None else checksum(holes)},
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {"dipmed": dipmed.__version__, "torch": torch.__version__}


def checksum(value: Any) -> str:
    """SHA-256 of arrays, numbers, texts, and containers of them, dataclasses included."""
    hasher = sha256()
    for part in _parts(value):
        hasher.update(part)
    return hasher.hexdigest()


def _parts(value: Any) -> Any:
    """Yield what is hashed, each with its kind and size, so that no two values look alike."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        yield f"array {value.dtype} {value.shape};".encode()
        yield _bytes_of(value)
    elif is_dataclass(value):
        yield from _parts({field.name: getattr(value, field.name) for field in fields(value)})
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for key in value:
            yield from _parts(key)
            yield from _parts(value[key])
    elif isinstance(value, tuple | list):
        yield f"list {len(value)};".encode()
        for entry in value:
            yield from _parts(entry)
    else:
        text = repr(value)
        yield f"{type(value).__name__} {len(text)} {text};".encode()


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _of_file(path: Path) -> str:
    """Checksum of a file, of both files of a BART array."""
    hasher = sha256()
    beside = [path.with_suffix(ending) for ending in (".hdr", ".cfl")]
    for one in (path, *(other for other in beside if other != path)):
        if one.is_file():
            hasher.update(one.read_bytes())
    return hasher.hexdigest()


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the network beside the others."""
    network = {f"network.{name}": value for name, value in config["network"].items()}
    return {**{name: value for name, value in config.items() if name != "network"}, **network}
