"""Where to compute."""

from __future__ import annotations

import torch

from dipmed.scan import DipmedError


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device that is there.

    Raises
    ------
    DipmedError
        When CUDA is asked for and absent.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise DipmedError(f"unknown device {name!r}; choose auto, cpu or cuda")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise DipmedError("no CUDA device was found; use --device cpu, or run `dipmed doctor` to see what is there")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")
