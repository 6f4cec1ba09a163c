"""Seconds and errors of the projector and of the non-uniform transforms, against the libraries that people use today.

Run as ``python scripts/benchmark_physics.py [--json FILE]``. ASTRA (extra ``astra``) and finufft (extra ``nufft``) are
measured when they are installed. Medians of repeated calls, turn by turn so that all see the same load of the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from operators import (
    FanBeam,
    Grid,
    NonCartesianMRI,
    NonUniformFourier,
    SliceProjector,
    angles_over,
    density_compensation,
    radial,
)

N_PIXELS = 512


def main() -> None:
    """Print the tables and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    chosen = parser.parse_args()
    report = {
        "projector": [measure_projector(n_views, chosen.repeats) for n_views in (60, 180)],
        "nufft": [measure_nufft((256, 256), 12, chosen.repeats), measure_nufft((64, 64, 64), 6, 3)],
    }
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
    print(
        "| views | build s | matrices MiB | forward ms | adjoint ms | per slice of 16: forward, adjoint ms | ASTRA ms |"
    )
    print("|---|---|---|---|---|---|---|")
    for case in report["projector"]:
        ms = {name: 1e3 * seconds for name, seconds in case["seconds"].items()}
        astra = f"{ms['astra forward']:.0f}, {ms['astra adjoint']:.0f}" if "astra forward" in ms else "not installed"
        print(
            f"| {case['views']} | {case['build_s']:.1f} | {case['held_mib']:.0f} | {ms['forward 1']:.0f} | "
            f"{ms['adjoint 1']:.0f} | {ms['forward 16'] / 16:.1f}, {ms['adjoint 16'] / 16:.1f} | {astra} |"
        )
    for case in report["nufft"]:
        print(f"\n{'x'.join(map(str, case['matrix']))}, {case['coils']} coils, {case['samples']} samples\n")
        print("| call | ms |\n|---|---|")
        for name, seconds in case["seconds"].items():
            print(f"| {name} | {1e3 * seconds:.1f} |")
        print("\n| error | relative |\n|---|---|")
        for name, error in case["errors"].items():
            print(f"| {name} | {error:.1e} |")


if __name__ == "__main__":
    main()
