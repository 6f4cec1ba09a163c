"""Seconds and errors of the projector and of the non-uniform transforms, against the libraries that people use today.

Run as ``python scripts/benchmark_physics.py [--only PART] [--json FILE]``. ASTRA (extra ``astra``), finufft (extra
``nufft``) and a GPU are measured when they are there. Medians of repeated calls, turn by turn so that all see the same
load of the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators import (
    ConeBeam,
    FanBeam,
    Grid,
    NonCartesianMRI,
    NonUniformFourier,
    SliceProjector,
    VolumeProjector,
    angles_over,
    density_compensation,
    feldkamp,
    radial,
)

N_PIXELS = 512


def main() -> None:
    """Print the tables and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--only", choices=("projector", "cone", "nufft"), help="one part")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    chosen = parser.parse_args()
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        # the cone first: its memory is told by how far the process has grown
        "cone": lambda: [measure_cone(device) for device in ("cpu", "cuda") if device == "cpu" or has_gpu()],
        "projector": lambda: [measure_projector(n_views, chosen.repeats) for n_views in (60, 180)],
        "nufft": lambda: [measure_nufft((256, 256), 12, chosen.repeats), measure_nufft((64, 64, 64), 6, 3)],
    }
    report = {name: measure() for name, measure in parts.items() if chosen.only in (None, name)}
    show(report)
    if chosen.json:
        chosen.json.write_text(json.dumps(report, indent=1) + "\n")


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each call, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(-1, repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def measure_projector(n_views: int, repeats: int) -> dict[str, Any]:
    """Time a fan beam through 512 x 512 pixels, one slice and sixteen."""
    grid = Grid((N_PIXELS, N_PIXELS), (1.0, 1.0))
    beam = FanBeam(angles_over(n_views, 2 * math.pi), 736, 2.1, 1000.0, 2000.0)
    start = time.perf_counter()
    A = SliceProjector(grid, beam)
    build = time.perf_counter() - start
    generator = torch.Generator().manual_seed(0)
    calls: dict[str, Callable[[], object]] = {}
    for n_slices in (1, 16):
        x = A.domain.randn((n_slices,), generator=generator, dtype=torch.float32)
        y = A.range.randn((n_slices,), generator=generator, dtype=torch.float32)
        calls[f"forward {n_slices}"] = partial(A, x)
        calls[f"adjoint {n_slices}"] = partial(A.adjoint, y)
    if importlib.util.find_spec("astra") is not None:
        calls |= astra_calls(beam)
    held = sum(buffer.numel() * buffer.element_size() for buffer in A.buffers())
    return {"views": n_views, "build_s": build, "held_mib": held / 2**20, "seconds": medians(calls, repeats)}


def has_gpu() -> bool:
    """Whether there is one."""
    return torch.cuda.is_available()


def measure_cone(device: str, n: int = 256, n_views: int = 60, repeats: int = 3) -> dict[str, Any]:
    """Time a cone beam through ``n`` cubed voxels, and count what it cannot do without."""
    grid = Grid((n,) * 3, (1.0, 1.0, 1.0))
    beam = ConeBeam(angles_over(n_views, 2 * math.pi), n * 3 // 2, n * 3 // 2, 2.0, 2.0, 4.0 * n, 8.0 * n)
    A = VolumeProjector(grid, beam).to(device)
    x = torch.rand(A.domain.shape, generator=torch.Generator().manual_seed(0)).to(device)
    y = A(x)
    before = peak_bytes(device)

    def waited(call: Callable[[], object]) -> Callable[[], object]:
        return lambda: (call(), torch.cuda.synchronize() if device == "cuda" else None)

    calls = {
        "forward": waited(partial(A, x)),
        "adjoint": waited(partial(A.adjoint, y)),
        "feldkamp": waited(partial(feldkamp, y, beam, grid)),
        "copy": waited(partial(torch.clone, torch.cat([x.flatten(), y.flatten()]))),
    }
    seconds = medians({name: calls[name] for name in ("forward", "adjoint", "copy")}, repeats)
    grown = peak_bytes(device) - before
    cores = {name: core_seconds(calls[name]) for name in ("forward", "adjoint")}
    seconds |= medians({"feldkamp": calls["feldkamp"]}, 1)
    return {
        "device": device,
        "shape": (n, n_views, *beam.shape[1:]),
        "seconds": seconds,
        "core_seconds": cores,
        "grown_mib": grown / 2**20,
        "rays": y.numel(),
        "steps": count_steps(A),
        "moved_mib": 4 * (x.numel() + y.numel()) / 2**20,
    }


def core_seconds(call: Callable[[], object]) -> float:
    """Time of all cores together, which other work on the machine hardly changes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def peak_bytes(device: str) -> int:
    """Most memory that the process, or its tensors on the GPU, have taken so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def count_steps(A: VolumeProjector) -> float:
    """How many planes all rays cross inside the volume: their length in it over that of one step."""
    within = A(torch.ones(A.domain.shape, device=A.device))[0].cpu()
    total = 0.0
    for view in range(A.beam.shape[0]):
        _, directions = A.beam.rays(view, *(np.arange(float(n)) for n in A.beam.shape[1:]))
        per_mm = (np.abs(directions) / np.array(A.grid.spacing_mm)).max(axis=-1)
        total += float((within[view].numpy() * per_mm).sum())
    return total


def astra_calls(beam: FanBeam) -> dict[str, Callable[[], object]]:
    """Forward and adjoint of one slice by ASTRA on the CPU, along lines."""
    import astra

    far = beam.source_to_detector_mm - beam.source_to_axis_mm
    volume = astra.create_vol_geom(N_PIXELS, N_PIXELS)
    projection = astra.create_proj_geom(
        "fanflat", beam.column_mm, beam.n_columns, np.array(beam.angles), beam.source_to_axis_mm, far
    )
    projector = astra.create_projector("line_fanflat", projection, volume)
    image = astra.data2d.create("-vol", volume, np.random.default_rng(0).random((N_PIXELS, N_PIXELS), np.float32))
    sinogram = astra.data2d.create("-sino", projection, 0.0)
    calls: dict[str, Callable[[], object]] = {}
    for name, kind, source, target in (
        ("astra forward", "FP", {"VolumeDataId": image}, {"ProjectionDataId": sinogram}),
        ("astra adjoint", "BP", {"ProjectionDataId": sinogram}, {"ReconstructionDataId": image}),
    ):
        algorithm = astra.algorithm.create({"type": kind, "ProjectorId": projector, **source, **target})
        calls[name] = partial(astra.algorithm.run, algorithm)
    return calls


def measure_nufft(matrix: tuple[int, ...], n_coils: int, repeats: int) -> dict[str, Any]:
    """Time transforms and normal operators along spokes, and their errors against finer transforms."""
    generator = torch.Generator().manual_seed(0)
    if len(matrix) == 2:
        trajectory = radial((matrix[0], matrix[1]), 64, golden=True).reshape(-1, 2)
        weights = density_compensation(trajectory, matrix)
    else:
        trajectory = (torch.rand((40000, 3), generator=generator) - 0.5) * torch.tensor(matrix)
        weights = torch.ones(len(trajectory))
    maps = torch.randn((n_coils, *matrix), dtype=torch.complex64, generator=generator)
    calls: dict[str, Callable[[], object]] = {}
    errors: dict[str, float] = {}
    x = torch.randn((1, *matrix), dtype=torch.complex64, generator=generator)
    for backend in ("sigpy", "finufft"):
        if importlib.util.find_spec(backend) is None:
            continue
        A = NonCartesianMRI(maps, trajectory, weights, backend)
        y = A(x)
        calls |= {f"{backend} forward": partial(A, x), f"{backend} adjoint": partial(A.adjoint, y)}
        calls["toeplitz normal"] = partial(A.N, x)
        exact = fourier_sum(x, trajectory[:500])
        found = NonUniformFourier((1, *matrix), trajectory[:500], backend)(x)
        errors[f"{backend} forward, against the Fourier sum"] = relative(found, exact)
        errors[f"toeplitz against {backend}"] = relative(A.N(x), A.adjoint(y))
    return {
        "matrix": matrix,
        "coils": n_coils,
        "samples": len(trajectory),
        "seconds": medians(calls, repeats),
        "errors": errors,
    }


def fourier_sum(image: torch.Tensor, trajectory: torch.Tensor) -> torch.Tensor:
    """The definition, in double precision."""
    matrix = image.shape[1:]
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in matrix]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(matrix))
    parts = [
        image.reshape(1, -1).to(torch.complex128) @ torch.exp(-2j * math.pi * (some.double() @ places.T)).T
        for some in trajectory.split(50)
    ]
    return torch.cat(parts, -1) / math.sqrt(math.prod(matrix))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative error."""
    return float((found - expected).norm() / expected.norm())


def show(report: dict[str, Any]) -> None:
    """Print Markdown tables."""
    show_cones(report.get("cone", []))
    show_slices(report.get("projector", []))
    show_transforms(report.get("nufft", []))


def show_cones(cases: list[dict[str, Any]]) -> None:
    """One row for each device; the floors are what memory alone would take."""
    if not cases:
        return
    print("| device | call | s | core s | rays/s | core ns a step | taps GiB/s | each array once, s | grown by MiB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        for call in ("forward", "adjoint"):
            seconds = case["seconds"][call]
            cores = case["core_seconds"][call]
            taps = 4 * 4 * case["steps"] / 2**30  # four voxels of four bytes
            print(
                f"| {case['device']} | {call} | {seconds:.2f} | {cores:.2f} | {case['rays'] / seconds:.1e} | "
                f"{1e9 * cores / case['steps']:.2f} | {taps / seconds:.1f} | "
                f"{case['seconds']['copy'] / 2:.3f} | {case['grown_mib']:.0f} |"
            )
        print(f"\n{case['device']}: {case['steps'] / 1e9:.2f}e9 steps; Feldkamp {case['seconds']['feldkamp']:.1f} s\n")


def show_slices(cases: list[dict[str, Any]]) -> None:
    """One row for each number of views."""
    if not cases:
        return
    print(
        "| views | build s | matrices MiB | forward ms | adjoint ms | per slice of 16: forward, adjoint ms | ASTRA ms |"
    )
    print("|---|---|---|---|---|---|---|")
    for case in cases:
        ms = {name: 1e3 * seconds for name, seconds in case["seconds"].items()}
        astra = f"{ms['astra forward']:.0f}, {ms['astra adjoint']:.0f}" if "astra forward" in ms else "not installed"
        print(
            f"| {case['views']} | {case['build_s']:.1f} | {case['held_mib']:.0f} | {ms['forward 1']:.0f} | "
            f"{ms['adjoint 1']:.0f} | {ms['forward 16'] / 16:.1f}, {ms['adjoint 16'] / 16:.1f} | {astra} |"
        )


def show_transforms(cases: list[dict[str, Any]]) -> None:
    """Seconds and errors of each case."""
    for case in cases:
        print(f"\n{'x'.join(map(str, case['matrix']))}, {case['coils']} coils, {case['samples']} samples\n")
        print("| call | ms |\n|---|---|")
        for name, seconds in case["seconds"].items():
            print(f"| {name} | {1e3 * seconds:.1f} |")
        print("\n| error | relative |\n|---|---|")
        for name, error in case["errors"].items():
            print(f"| {name} | {error:.1e} |")


if __name__ == "__main__":
    main()
