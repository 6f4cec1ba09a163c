"""Where bfloat16 convolutions are faster than float32 ones."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from dipmed.config import FitConfig
from dipmed.dip.stopping import find_rule

_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")


def autocast(config: FitConfig, device: torch.device) -> AbstractContextManager[object]:
    """Run convolutions in bfloat16 where the settings and the device ask for it; the physics stays in float32."""
    wanted = uses_bfloat16(config, device)
    return torch.autocast(device.type, dtype=torch.bfloat16) if wanted else nullcontext()


def uses_bfloat16(config: FitConfig, device: torch.device) -> bool:
    """Whether convolutions run in bfloat16, by the settings and the device.

    By itself never where the rule that decides needs a twin: its small distance from the fit would be that of their
    rounding. Rules that watch leave the fit as it is.
    """
    if config.mixed_precision == "auto":
        return not find_rule(config.stop).needs_twin and _is_fast(device)
    return config.mixed_precision == "on"


def fast_cpu_instructions() -> list[str]:
    """The processor's instructions for bfloat16, empty when there are none or torch cannot tell."""
    find: Any = getattr(torch.cpu, "get_capabilities", None)
    capabilities: dict[str, Any] = find() if find is not None else {}
    return [name for name in _INSTRUCTIONS if capabilities.get(name)]


def _is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # by capability and not by a stopwatch, so that the same machine always gives the same image
    return bool(fast_cpu_instructions())
