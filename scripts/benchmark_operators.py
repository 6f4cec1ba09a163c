"""What an application of `CartesianMRI` costs, in units of the bare Fourier transforms that it needs.

Run as ``python scripts/benchmark_operators.py [--device cuda] [--json FILE]``. For each size it times, turn by turn so
that all see the same load of the machine, the batched ``torch.fft.fftn`` and ``ifftn`` of all coils without shifts,
the operator, and the same operator put together from its parts. Ratios are of medians. The normal operator and forward
with backward are measured against one ``fftn`` and one ``ifftn``. Then memory is watched over 200 iterations, and (on
Linux) while ESPIRiT maps of a volume are found, in units of its k-space.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from operators import (
    CartesianMRI,
    CartesianSampling,
    FourierTransform,
    LinearOperator,
    Sensitivity,
    centred_fft,
    make_mask,
)

CASES = [
    ((8, 230, 180), "random:R=4,acs=16"),
    ((13, 224, 224), "random:R=4,acs=16"),
    ((13, 224, 224), "poisson:R=4,acs=16"),
    ((8, 231, 181), "random:R=4,acs=16"),
    ((6, 52, 64, 48), "poisson:R=4,acs=12"),
]
MEMORY_ITERATIONS = 200
VOLUME = (8, 48, 192, 128)
"""Virtual coils, readout and phase encodes: about a minute on two cores. The readout is short: time grows with it, and
what is held beside the maps does not."""


def main() -> None:
    """Print the table and write it where ``--json`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--threads", type=int, help="threads of torch; one gives steadier figures on a busy machine")
    settings = parser.parse_args()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = torch.device(settings.device)
    settle_allocator()
    cases = []
    print(f"{'coil, matrix':>18} {'mask':>20} {'fft ms':>8} {'forward':>8} {'adjoint':>8} {'normal':>8} {'fwd+bwd':>8}")
    for shape, spec in CASES:
        case = measure(shape, spec, device, settings.repeats)
        cases.append(case)
        for kind in ("fused", "parts"):
            figures = " ".join(f"{case[kind][what]:8.2f}" for what in ("forward", "adjoint", "normal", "both"))
            label = f"{'x'.join(map(str, shape)):>18} {spec:>20} {case['fft_ms']:8.2f}"
            print(f"{label if kind == 'fused' else 'the same from its parts':>{len(label)}} {figures}")
    memory = memory_growth(device)
    print(f"memory grows by {memory / 2**20:.2f} MiB over {MEMORY_ITERATIONS} iterations of forward and backward")
    maps = memory_of_maps(VOLUME) if Path("/proc/self/clear_refs").exists() else None
    if maps is not None:
        print(
            f"ESPIRiT maps of {'x'.join(map(str, VOLUME))}: {maps['seconds']:.0f} s, {maps['mib']:.0f} MiB beside the "
            f"k-space of {maps['kspace_mib']:.0f} MiB, {maps['mib'] / maps['kspace_mib']:.1f} times as much"
        )
    if settings.json:
        report = {"machine": machine(device), "cases": cases, "memory_growth_bytes": memory, "maps": maps}
        settings.json.write_text(json.dumps(report, indent=2) + "\n")


def settle_allocator() -> None:
    """Free one large block, as any network does: until then glibc gives pages back on each call and fetches them anew.

    Without it an operator takes up to twice as long as it does in a fit, and the bare transforms do not.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def measure(shape: tuple[int, ...], spec: str, device: torch.device, repeats: int) -> dict[str, Any]:
    """Time one size; ratios to the bare transforms."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, dtype=torch.complex64, generator=generator).to(device)
    mask = make_mask(spec, shape[1:]).to(device)
    fused = CartesianMRI(maps, mask)
    parts = CartesianSampling(mask, shape[0]) @ FourierTransform(shape, fused.ndim) @ Sensitivity(maps)
    x = fused.domain.randn(generator=generator, device=device)
    y = fused.range.randn(generator=generator, device=device)
    dim = tuple(range(-fused.ndim, 0))
    calls = {
        "fft": lambda: torch.fft.fftn(y, dim=dim, norm="ortho"),
        "ifft": lambda: torch.fft.ifftn(y, dim=dim, norm="ortho"),
        **{f"fused {what}": call for what, call in applications(fused, x, y).items()},
        **{f"parts {what}": call for what, call in applications(parts, x, y).items()},
    }
    seconds = {name: statistics.median(times) for name, times in time_in_turns(calls, device, repeats).items()}
    needed = {
        "forward": seconds["fft"],
        "adjoint": seconds["ifft"],
        "normal": seconds["fft"] + seconds["ifft"],
        "both": seconds["fft"] + seconds["ifft"],
    }
    return {
        "shape": shape,
        "mask": spec,
        "fft_ms": 1e3 * seconds["fft"],
        "ifft_ms": 1e3 * seconds["ifft"],
        "fused": {what: seconds[f"fused {what}"] / bare for what, bare in needed.items()},
        "parts": {what: seconds[f"parts {what}"] / bare for what, bare in needed.items()},
    }


def applications(op: LinearOperator, x: Tensor, y: Tensor) -> dict[str, Callable[[], object]]:
    """Return what is timed of an operator."""
    leaf = x.clone().requires_grad_()
    normal = op.N
    return {
        "forward": lambda: op(x),
        "adjoint": lambda: op.adjoint(y),
        "normal": lambda: normal(x),
        "both": lambda: torch.autograd.grad(op(leaf), leaf, y),
    }


def time_in_turns(calls: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Call each in turn, ``repeats`` times, after a few rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-5, repeats):
        for name, call in calls.items():
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def memory_growth(device: torch.device) -> int:
    """Bytes that the process (or the device) holds more after the iterations than before."""
    shape = (8, 128, 128)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(shape, dtype=torch.complex64, generator=generator).to(device)
    op = CartesianMRI(maps, make_mask("random:R=4,acs=16", shape[1:]).to(device))
    x = op.domain.randn(device=device).requires_grad_()
    y = op.range.randn(device=device)

    def iterate(n: int) -> int:
        for _ in range(n):
            (gradient,) = torch.autograd.grad((op(x) - y).abs().square().sum(), x)
            x.data.sub_(gradient, alpha=1e-3)
        gc.collect()
        synchronise(device)
        return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss

    before = iterate(50)
    return iterate(MEMORY_ITERATIONS) - before


def memory_of_maps(shape: tuple[int, ...]) -> dict[str, float]:
    """Most memory that ESPIRiT takes for a volume ``(coil, x, y, z)``, its maps among it."""
    import sigpy.mri.app  # noqa: F401  # loaded before, so as not to be counted

    from dipmed.calib.coils import estimate_maps

    places = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape[1:]), indexing="ij", sparse=True)
    ball = sum(np.square(place) for place in places) < 0.6
    kspace = np.empty(shape, dtype=np.complex64)
    for coil in range(shape[0]):
        angle = 2 * np.pi * coil / shape[0]
        distance = (places[0] - np.cos(angle)) ** 2 + (places[1] - np.sin(angle)) ** 2 + places[2] ** 2 / 3
        image = torch.from_numpy((ball * np.exp(1j * angle - distance)).astype(np.complex64))
        kspace[coil] = centred_fft(image, 3).numpy()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    estimate_maps(kspace, np.broadcast_to(True, shape[1:]))
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 2**10 for line in status if line.startswith("VmHWM"))
    return {"seconds": seconds, "mib": (peak - before) / 2**20, "kspace_mib": kspace.nbytes / 2**20}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def machine(device: torch.device) -> dict[str, Any]:
    """Say what the figures were measured on, and how busy it was."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": psutil.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
