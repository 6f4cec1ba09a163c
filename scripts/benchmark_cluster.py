"""Slices on no, one and two local workers, and on two of which one is killed: same images, and the seconds.

Run as ``python scripts/benchmark_cluster.py [--slices 8] [--size 64] [--iterations 60]`` on a machine that has nothing
else to do; the table says how far that was so. The scan is the phantom with eight coils, each slice with noise of its
own, at R=4. Each process has one thread. Starting the workers is not counted. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch

from dipmed.cluster import Cluster, local_cluster
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.scan import KSpaceScan
from dipmed.settings import ReconSettings


@dataclass(frozen=True)
class Run:
    """What one run took: seconds by the clock, and of the processor in our processes and in those of others."""

    image: np.ndarray[Any, Any]
    seconds: float
    ours: float
    others: float


def make_scan(n_slices: int, size: int) -> KSpaceScan:
    """Slices of one head, each with noise of its own and twice as bright as the one before."""
    parts = [brain_phantom_scan((size, size), noise=0.01, seed=seed)[0] for seed in range(n_slices)]
    kspace = np.concatenate([part.kspace * 2**number for number, part in enumerate(parts)], axis=1)
    return parts[0].replace(kspace=kspace, mask=np.repeat(parts[0].mask, n_slices, axis=1))


def run(scan: KSpaceScan, settings: ReconSettings, cluster: Cluster | None, *, kill: bool) -> Run:
    """Reconstruct once; with ``kill``, end a worker when the first fit tells of its progress."""
    victims = [min(cluster.processes())] if kill and cluster is not None else []

    def on_progress(*_: Any) -> None:
        if victims:
            os.kill(victims.pop(), signal.SIGKILL)

    ours, busy, start = seconds_of_ours(), busy_seconds(), time.perf_counter()
    image = reconstruct(scan, settings, cluster=cluster, progress=on_progress).volume.data
    seconds, ours, busy = time.perf_counter() - start, seconds_of_ours() - ours, busy_seconds() - busy
    return Run(image, seconds, ours, busy - ours)


def seconds_of_ours() -> float:
    """Seconds of the processor in this process and in its children, the ended ones included."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(time.user + time.system + time.children_user + time.children_system for time in times)


def busy_seconds() -> float:
    """Seconds of the processor in all that this machine does."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def main() -> None:
    """Parse the options, run, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slices", type=int, default=8)
    parser.add_argument("--size", type=int, default=64, help="samples along x and y")
    parser.add_argument("--iterations", type=int, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    scan = make_scan(chosen.slices, chosen.size)
    settings = ReconSettings(
        mode="slice", undersample="random:R=4,acs=16,seed=0", changes={"iterations": chosen.iterations}, device="cpu"
    )
    print("| workers | seconds | ratio | of the processor: ours | others | same image |")
    print("|---|---|---|---|---|---|")
    first = one = None
    for words, n_workers, kill in (("none", 0, False), ("1", 1, False), ("2", 2, False), ("2, one killed", 2, True)):
        torch.set_num_threads(max(1, n_workers))  # which a local cluster shares among its workers
        with local_cluster(n_workers) if n_workers else nullcontext() as cluster:
            torch.set_num_threads(1)
            done = run(scan, settings, cluster, kill=kill)
        first = done if first is None else first
        one = done if n_workers == 1 else one
        ratio = "" if one is None else f"{one.seconds / done.seconds:.2f}"
        same = "yes" if np.array_equal(done.image, first.image) else "NO"
        print(
            f"| {words} | {done.seconds:.1f} | {ratio} | {done.ours:.0f} s | {done.others:.0f} s | {same} |", flush=True
        )


if __name__ == "__main__":
    main()
