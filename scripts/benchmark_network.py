"""Time of the networks of the presets, forward and backward, with passes compiled by numba and with torch's own.

Run as ``python scripts/benchmark_network.py [--repeats N]``. One thread; both ways alternate, so that what else the
machine does meets both. Prints a Markdown table of the shortest and the median time of each, and their ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import nn

from dipmed.allocation import keep_freed_memory
from dipmed.config import find_preset
from dipmed.nets import channels_last, last_format, make_network, normalise


@dataclass(frozen=True)
class Case:
    """A preset's network, for images of a shape with so many real channels in and out."""

    preset: str
    shape: tuple[int, ...]
    n_in: int
    n_out: int


CASES = (
    Case("mri-2d", (90, 108), 4, 2),
    Case("mri-2d", (320, 320), 4, 2),
    Case("ct-2d", (128, 128), 1, 1),
    Case("ct-2d", (256, 256), 1, 1),
    Case("ct-3d", (104, 104, 8), 1, 1),
)


def main() -> None:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40, help="of each way")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    keep_freed_memory()
    print(
        "| network | image | compiled: least, median ms | torch's own | ratio: least, median |\n|---|---|---|---|---|"
    )
    for case in CASES:
        ours, theirs = measure(make_step(case), repeats)
        (least, median), (their_least, their_median) = ((min(t), statistics.median(t)) for t in (ours, theirs))
        print(
            f"| {case.preset} | {' x '.join(map(str, case.shape))} | {1e3 * least:.1f}, {1e3 * median:.1f} "
            f"| {1e3 * their_least:.1f}, {1e3 * their_median:.1f} "
            f"| {their_least / least:.2f}, {their_median / median:.2f} |",
            flush=True,
        )


def make_step(case: Case) -> Callable[[], None]:
    """One forward and backward pass in bfloat16."""
    generator, ndim = torch.Generator().manual_seed(0), len(case.shape)
    fresh = make_network(find_preset(case.preset).network, case.n_in, case.n_out, ndim, generator)
    network: nn.Module = fresh.to(memory_format=last_format(ndim))  # type: ignore[call-overload]
    x = channels_last(torch.randn(1, case.n_in, *case.shape, generator=generator))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            y = network(x)
        y.float().square().sum().backward()

    return step


def measure(step: Callable[[], None], repeats: int) -> tuple[list[float], list[float]]:
    """Seconds of each pass, compiled and not."""
    seconds: tuple[list[float], list[float]] = ([], [])
    is_there = normalise._has_numba
    for _ in range(repeats + 2):
        for found, answer in zip(seconds, (is_there, lambda: False), strict=True):
            with patch.object(normalise, "_has_numba", answer):
                start = time.perf_counter()
                step()
                found.append(time.perf_counter() - start)
    return seconds[0][2:], seconds[1][2:]


if __name__ == "__main__":
    main()
