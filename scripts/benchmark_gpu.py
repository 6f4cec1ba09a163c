"""What a GPU makes of fits: seconds a slice, one by one, in batches, compiled, and beside what convolutions alone take.

Run as ``python scripts/benchmark_gpu.py [--cases mri,ct,volume] [--slices 32] [--in-flight 16] [--json FILE]`` on a
machine with CUDA; torch, numpy and scipy are all it needs, and it simulates its data. ``--device cpu --tiny`` goes
through all of it in small, to see that it runs; its figures mean nothing.

The rows of a case: the default preset one slice after the other, in batches, in compiled batches; the published decoder
of 256 features in 2500 steps of Adam, of which the first are timed; and the convolutions of the preset's network alone,
forward and backward in bfloat16: with weights that all slices share, which no fit of several networks reaches, and in
groups, as a batch runs them. Shares are of the faster one of these two.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dipmed.config import FitConfig, NetworkConfig, find_preset
from dipmed.dip import DeepImagePrior
from dipmed.dip.batch import Batch
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.precision import uses_bfloat16
from dipmed.nets import UNet, last_format
from dipmed.scan import Reconstruction
from operators import CartesianMRI, Grid, LinearOperator, ParallelBeam, SliceProjector, angles_over, make_mask

VANILLA_STEPS = 2500
TIMED_STEPS = 200
N_VIEWS = 60
SIZES = {"mri": (320, 320), "ct": (512, 512), "volume": (256, 256, 256)}
TINY_SIZES = {"mri": (32, 32), "ct": (32, 32), "volume": (16, 16, 16)}
N_COILS = {"mri": 16, "volume": 8}
"""Coils."""


@dataclass(frozen=True)
class Case:
    """Slices of one size, all with one operator, and the preset for them."""

    name: str
    config: FitConfig
    A: LinearOperator
    truths: list[Tensor]
    data: list[Tensor]

    def orders(self) -> Iterator[tuple[int, DeepImagePrior, Tensor, LinearOperator]]:
        """The fits of all slices, each with a seed of its own."""
        for number, y in enumerate(self.data):
            yield number, DeepImagePrior(self.config.replace(seed=number)), y, self.A


def main() -> None:
    """Measure, print the rows, and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cases", default=",".join(SIZES))
    parser.add_argument("--slices", type=int, default=32, help="of a batch run; three of them are also run one by one")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--tiny", action="store_true", help="small images and networks, and a few iterations")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled rows")
    parser.add_argument("--profile", type=Path, help="write the time of each kernel of some batched steps there")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    settings = parser.parse_args()
    if settings.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device was found; this script measures GPUs (--device cpu --tiny only shows that it runs)")
    device = torch.device(settings.device)
    print(
        torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU: figures mean nothing", torch.__version__
    )
    print("| case | way | s a slice | ms an iteration | PSNR, dB | GFLOP/s | share of the convolutions |")
    print("|---|---|---|---|---|---|---|")
    rows: list[dict[str, Any]] = []
    for name in settings.cases.split(","):
        n_slices = 1 if name == "volume" else settings.slices
        case = make_case(name, n_slices, device, tiny=settings.tiny)
        for row in measure(case, min(settings.in_flight, n_slices), compiles=not settings.no_compile):
            rows.append({"case": name, **row})
            print(line(rows[-1]), flush=True)
        if settings.profile and name != "volume":
            profile(case, settings.in_flight, settings.profile.with_stem(f"{settings.profile.stem}_{name}"))
    if settings.json:
        settings.json.write_text(json.dumps(rows, indent=2) + "\n")


def make_case(name: str, n_slices: int, device: torch.device, *, tiny: bool) -> Case:
    """Simulate ellipses that differ from slice to slice, measured with a little noise."""
    shape = (TINY_SIZES if tiny else SIZES)[name]
    generator = torch.Generator().manual_seed(0)
    truths = [ellipses(shape, generator) for _ in range(n_slices)]
    A: LinearOperator
    if name == "ct":
        grid = Grid(shape, (1.0, 1.0))
        A = SliceProjector(grid, ParallelBeam(angles_over(N_VIEWS, math.pi), math.ceil(1.5 * shape[0]), 1.0))
        truths = [0.02 * truth for truth in truths]
    else:
        maps = coil_maps(shape, 3 if tiny else N_COILS[name])
        pattern = "random" if len(shape) == 2 else "poisson"
        A = CartesianMRI(maps, make_mask(f"{pattern}:R=4,acs={max(4, shape[-1] // 20)},seed=0", shape))
        truths = [truth.to(torch.complex64) for truth in truths]
    A = A.to(device)
    data = []
    for truth in truths:
        y = A(truth.to(device))
        noise = A.range.randn(generator=generator, device=device)
        y = y + 0.01 * y.abs().square().mean().sqrt() * noise
        data.append(y * A.mask if isinstance(A, CartesianMRI) else y)
    config = find_preset({"mri": "mri-2d", "ct": "ct-2d", "volume": "mri-3d"}[name])
    if tiny:
        config = config.replace(network=NetworkConfig((8, 8), 4, 4), iterations=10)
    return Case(name, config, A, truths, data)


def ellipses(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A bright body with a dozen ellipses in it, ``(1, x, y[, z])``."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = (sum(axis.square() for axis in axes) < 0.7).float()  # type: ignore[union-attr]
    inside = image.clone()
    for _ in range(12):
        centre, radius = torch.rand((2, len(shape)), generator=generator)
        level = torch.rand((), generator=generator) - 0.5
        distance = sum(
            ((axis - (c - 0.5)) / (0.05 + 0.3 * r)).square() for axis, c, r in zip(axes, centre, radius, strict=True)
        )
        image = image + level * (distance < 1)  # type: ignore[operator]
    return (image * inside).clamp(min=0)[None]


def coil_maps(shape: tuple[int, ...], n_coils: int) -> Tensor:
    """Smooth sensitivities of coils on a ring, whose squares add up to one, ``(coil, x, y[, z])``."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in shape), indexing="ij")
    maps = []
    for angle in np.linspace(0, 2 * np.pi, n_coils, endpoint=False):
        distance = (axes[0] - 1.2 * math.cos(angle)).square() + (axes[1] - 1.2 * math.sin(angle)).square()
        maps.append(torch.polar(torch.exp(-distance / 2), axes[0] * math.cos(angle)))
    stacked = torch.stack(maps)
    return stacked / stacked.abs().square().sum(0).sqrt()


def measure(case: Case, in_flight: int, *, compiles: bool) -> Iterator[dict[str, Any]]:
    """Yield the rows of one case."""
    layers = layers_of(case)
    flops = sum(layer.flops for layer in layers)
    ceilings = [time_layers(case, layers, in_flight, grouped=grouped) for grouped in (False, True)]
    yield from ceilings
    best = max(row["gflops"] for row in ceilings)
    few = Case(case.name, case.config, case.A, case.truths[:3], case.data[:3])
    ways: dict[str, Callable[[], dict[int, Reconstruction]]] = {
        "one by one": lambda: {number: prior(y, A) for number, prior, y, A in few.orders()},
    }
    if in_flight > 1:
        ways[f"{in_flight} at a time"] = lambda: by_batch(case, in_flight, compiles=False)
    if compiles:
        ways[f"{in_flight} at a time, compiled"] = lambda: by_batch(case, in_flight, compiles=True)
    for way, run in ways.items():
        start = time.perf_counter()
        found = run()
        synchronise(case)
        seconds = (time.perf_counter() - start) / len(found)
        iterations = sum(result.iterations for result in found.values()) / len(found)
        gflops = flops * iterations / seconds / 1e9
        yield {
            "way": way,
            "seconds": seconds,
            "milliseconds": 1e3 * seconds / iterations,
            "psnr": float(np.mean([psnr(result.image, case.truths[number]) for number, result in found.items()])),
            "gflops": gflops,
            "share": gflops / best,
        }
    if case.name == "mri":
        yield published_decoder(case)


def by_batch(case: Case, in_flight: int, *, compiles: bool) -> dict[int, Reconstruction]:
    """Fit all slices of a case; what the batch has to say goes to the error stream."""
    batch: Batch[int] = Batch(in_flight, compiles=compiles)
    found = {}
    for number, result in batch.run(case.orders()):
        if not isinstance(result, Reconstruction):
            raise SystemExit(f"slice {number} has no image: {result}")
        found[number] = result
    for message in batch.messages:
        print(message, file=sys.stderr)
    return found


def published_decoder(case: Case) -> dict[str, Any]:
    """Time the first steps of a ConvDecoder of 256 features (arXiv:2007.02471), and count on to all of them."""
    steps = min(TIMED_STEPS, case.config.iterations)
    kind = FIT_METHODS["conv-decoder"]
    method = kind(channels=256)  # type: ignore[call-arg]  # its own option
    config = kind.configure(case.config, "mri").replace(iterations=steps)
    synchronise(case)
    start = time.perf_counter()
    DeepImagePrior(config, method=method)(case.data[0], case.A)
    synchronise(case)
    an_iteration = (time.perf_counter() - start) / steps
    return {
        "way": f"decoder of 256 features, {VANILLA_STEPS} steps by {steps}",
        "seconds": VANILLA_STEPS * an_iteration,
        "milliseconds": 1e3 * an_iteration,
    }


@dataclass(frozen=True)
class Layer:
    """A convolution of the network: its input ``(channel, x, y[, z])``, its kernel, its steps, what it takes."""

    input: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    flops: float


def layers_of(case: Case) -> list[Layer]:
    """The convolutions of the preset's network, with the operations of forward pass and both gradients."""
    shape = case.A.domain.shape[1:]
    n_channels = 2 if case.data[0].is_complex() else 1
    n_in = n_channels * len(case.config.inputs)
    found: list[Layer] = []

    def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kernel = tuple(module.weight.shape)
        flops = 3 * 2 * output[0].numel() * math.prod(kernel[1:])
        found.append(Layer(tuple(inputs[0].shape[1:]), kernel, module.stride[0], flops))

    with torch.device("meta"):
        network = UNet(case.config.network, n_in, n_channels, len(shape))
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                module.register_forward_hook(note)
        network(torch.empty(1, n_in, *shape))
    return found


def time_layers(case: Case, layers: list[Layer], copies: int, *, grouped: bool, repeats: int = 10) -> dict[str, Any]:
    """Run each convolution by itself, forward and backward, for so many slices."""
    device = case.data[0].device
    half = torch.bfloat16 if uses_bfloat16(case.config, device) else torch.float32
    seconds = 0.0
    for layer in layers:
        n_in, *sizes = layer.input
        n_out = layer.kernel[0]
        last = last_format(len(sizes))
        convolve = functional.conv2d if len(sizes) == 2 else functional.conv3d
        groups, batch = (copies, 1) if grouped else (1, copies)
        x = torch.randn(batch, groups * n_in, *sizes, device=device, dtype=half).contiguous(memory_format=last)
        weight = torch.randn(groups * n_out, *layer.kernel[1:], device=device, dtype=half)
        weight = weight.contiguous(memory_format=last).requires_grad_()
        x.requires_grad_()
        for number in range(repeats + 3):
            if number == 3:
                synchronise(case)
                start = time.perf_counter()
            y = convolve(x, weight, stride=layer.stride, padding=layer.kernel[-1] // 2, groups=groups)
            torch.autograd.grad(y, (x, weight), torch.ones_like(y))
        synchronise(case)
        seconds += (time.perf_counter() - start) / repeats
    gflops = copies * sum(layer.flops for layer in layers) / seconds / 1e9
    kind = "in groups" if grouped else "with shared weights"
    return {
        "way": f"convolutions alone, {copies} slices {kind}",
        "milliseconds": 1e3 * seconds / copies,
        "gflops": gflops,
    }


def profile(case: Case, in_flight: int, file: Path) -> None:
    """Write which kernels some steps of a batch spend their time in."""
    short = Case(case.name, case.config.replace(iterations=20), case.A, case.truths, case.data[:in_flight])
    by_batch(short, in_flight, compiles=False)
    with torch.profiler.profile() as profiler:
        by_batch(short, in_flight, compiles=False)
    key = "device_time_total" if case.data[0].is_cuda else "cpu_time_total"
    file.write_text(profiler.key_averages().table(sort_by=key, row_limit=40) + "\n")


def synchronise(case: Case) -> None:
    """Wait for the device."""
    if case.data[0].is_cuda:
        torch.cuda.synchronize()


def psnr(image: Tensor, truth: Tensor) -> float:
    """Of magnitudes, in dB, relative to the truth's peak."""
    error = (image.cpu().abs() - truth.abs()).square().mean()
    return float(10 * torch.log10(truth.abs().max() ** 2 / error))


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    forms = {"seconds": ".3g", "milliseconds": ".3g", "psnr": ".2f", "gflops": ".0f", "share": ".0%"}
    cells = [format(row[name], form) if name in row else "" for name, form in forms.items()]
    return f"| {row['case']} | {row['way']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
