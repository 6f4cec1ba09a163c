"""Files of pre-trained weights: safetensors, which hold numbers and a header and nothing that could run."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dipmed.config import NetworkConfig
from dipmed.io.files import atomic_write, check_source
from dipmed.io.limits import PARSER_ERRORS, size_in_words
from dipmed.scan import DipmedError, FormatError
from dipmed.weights import PretrainedWeights

_KEY = "dipmed"
"""Of the header's entry that says what the weights are of."""

_FORMAT = 1
_WEIGHTS, _DIRECTIONS = "weights.", "directions."
_MOST_HEADER = 2**20
_MOST_TENSORS = 4096
_MOST_SCALES, _MOST_CHANNELS = 12, 4096
_KINDS = ("F32", "F16")


def save_weights(pretrained: PretrainedWeights, path: str | Path, *, force: bool = False) -> None:
    """Write weights as ``.safetensors``, the directions in half precision; what they are of stands in the header.

    Raises
    ------
    OutputError
        When the file exists and ``force`` is not set, or cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {_WEIGHTS + name: value.detach().contiguous() for name, value in pretrained.weights.items()}
    for name, share in pretrained.directions.items():
        tensors[_DIRECTIONS + name] = share.detach().half().contiguous()
    header = {
        "format": _FORMAT,
        "version": pretrained.version,
        "modality": pretrained.modality,
        "ndim": pretrained.ndim,
        "network": asdict(pretrained.network),
        "steps": pretrained.steps,
        "seed": pretrained.seed,
    }
    with atomic_write(path, force=force) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})


def load_weights(path: str | Path) -> PretrainedWeights:
    """Read a file that `save_weights` has written.

    Raises
    ------
    FormatError
        When it is damaged, of another kind, or holds other things than finite weights of a network and directions that
        fit them.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    check_source(path)
    _check_header_size(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = _read_header(file.metadata() or {}, path)
            _check_tensors(file, path)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dictionary
    except DipmedError:
        raise
    except (SafetensorError, *PARSER_ERRORS) as error:
        reason = str(error).partition("\n")[0][:200]
        raise FormatError(f"{path} cannot be read as weights; it is truncated or damaged ({reason})") from error
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise FormatError(f"{path}: {name} holds values that are not finite")
    weights, directions = _part(tensors, _WEIGHTS), _part(tensors, _DIRECTIONS)
    return PretrainedWeights(weights=weights, directions=directions, **header)


def _check_header_size(path: Path) -> None:
    """Refuse what is no safetensors file before its reader takes memory for what it claims to hold."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
    claimed = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else size
    if start[8:] != b"{" or claimed > size - 8:
        raise FormatError(f"{path} is no file of weights, or a truncated one; scripts/pretrain.py makes them")
    if claimed > _MOST_HEADER:
        raise FormatError(f"{path} has a header of {size_in_words(claimed)}, which no file of weights needs")


def _read_header(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """Read what the weights are of, as fields of `PretrainedWeights`."""
    if _KEY not in metadata:
        raise FormatError(f"{path} holds weights of something else; scripts/pretrain.py makes those for dipmed")
    header = json.loads(metadata[_KEY])
    if header["format"] != _FORMAT:
        raise FormatError(f"{path} is of format {header['format']!r}, and this version reads {_FORMAT}; make it anew")
    sizes = header["network"]
    channels = tuple(int(n) for n in sizes["channels"])
    network = NetworkConfig(channels, int(sizes["skip_channels"]), int(sizes["up_channels"]))
    if len(channels) > _MOST_SCALES or max(*channels, network.skip_channels, network.up_channels) > _MOST_CHANNELS:
        raise FormatError(f"{path} is of a network that is too large: {network}")
    modality, ndim = header["modality"], header["ndim"]
    if modality not in ("mri", "ct") or ndim not in (2, 3):
        raise FormatError(f"{path} is for {modality!r} in {ndim!r} dimensions; expected mri or ct in 2 or 3")
    return {
        "network": network,
        "modality": modality,
        "ndim": ndim,
        "steps": int(header["steps"]),
        "seed": int(header["seed"]),
        "version": str(header["version"]),
    }


def _check_tensors(file: Any, path: Path) -> None:
    """Check names, kinds and shapes, of which the header tells, before any value is read."""
    slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # no dictionary
    if len(slices) > _MOST_TENSORS:
        raise FormatError(f"{path} holds {len(slices)} tensors, which no network of ours has")
    weights = {name: value.get_shape() for name, value in _part(slices, _WEIGHTS).items()}
    directions = {name: value.get_shape() for name, value in _part(slices, _DIRECTIONS).items()}
    if not weights or len(weights) + len(directions) != len(slices):
        raise FormatError(f"{path} should hold weights and, maybe, directions, but has {', '.join(list(slices)[:10])}")
    for name, value in slices.items():
        if value.get_dtype() not in _KINDS:
            raise FormatError(f"{path}: {name} is of type {value.get_dtype()}; expected one of {', '.join(_KINDS)}")
    if directions:
        counts = {shape[0] if shape else 0 for shape in directions.values()}
        fits = directions.keys() == weights.keys() and len(counts) == 1 and min(counts) > 0
        if not fits or any(directions[name][1:] != shape for name, shape in weights.items()):
            raise FormatError(f"{path} holds directions that do not fit its weights; make it anew")


def _part(named: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


__all__ = ["load_weights", "save_weights"]
