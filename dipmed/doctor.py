"""What is installed here, and whether the physics works on it."""

from __future__ import annotations

import importlib.util
import shutil

import torch
from rich.console import Console
from rich.table import Table

from dipmed.dip.precision import fast_cpu_instructions
from dipmed.record import versions
from operators import CartesianMRI
from operators.checks import dot_test

_TOLERANCE = 1e-5


def run_checks(console: Console) -> bool:
    """Show versions, devices and optional parts, and test the adjoint on each device; True when all is well."""
    table = Table("part", "found", show_lines=False)
    for name, found in versions().items():
        table.add_row(name, found or "missing")
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append("cuda")
        table.add_row("GPU", torch.cuda.get_device_name())
    else:
        table.add_row("GPU", "none: fits run on the CPU")
    table.add_row("threads", str(torch.get_num_threads()))
    table.add_row("bfloat16 on the CPU", ", ".join(fast_cpu_instructions()) or "no: fits use float32")
    table.add_row("BART (for benchmarks)", shutil.which("bart") or "not installed")
    table.add_row("skimage (for tests)", "yes" if importlib.util.find_spec("skimage") else "not installed")
    healthy = True
    for device in devices:
        error = _adjoint_error(device)
        healthy = healthy and error < _TOLERANCE
        table.add_row(f"adjoint on {device}", f"relative error {error:.1e} ({'ok' if error < _TOLERANCE else 'WRONG'})")
    console.print(table)
    return healthy


def _adjoint_error(device: str) -> float:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn((4, 33, 24), dtype=torch.complex64, generator=generator)
    mask = torch.rand((33, 24), generator=generator) < 0.5
    return dot_test(CartesianMRI(maps, mask).to(device), generator=generator)
