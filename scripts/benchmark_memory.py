"""Most memory that fits of volumes take, slices in flight and slices on several workers, predicted and measured.

Run as ``python scripts/benchmark_memory.py [--cases mri,stack,cone,flight,workers] [--json FILE]`` on Linux. Each row
is a process of its own that fits a simulated volume for a few iterations, with and without checkpointing, in float32
and, where the processor has instructions for it, in bfloat16. What is counted is by how much the process grows from
where the scan lies in memory to its peak; maps and the steps of the fit are among it. Of workers it is the growth of
all processes together, pages that they share counted once, from where they lie ready.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dipmed.cluster import local_cluster
from dipmed.dip.precision import fast_cpu_instructions
from dipmed.mode import memory_needed
from dipmed.recon import reconstruct
from dipmed.scan import KSpaceScan, ProjectionScan, Scan
from dipmed.settings import ReconSettings
from operators import ConeBeam, Grid, ParallelBeam, angles_over

ITERATIONS = 2
N_COILS = 6
N_VIEWS = 40

CASES = {
    "mri": [(52, 64, 48), (64, 80, 64), (96, 96, 64), (128, 128, 96)],
    "stack": [(128, 128, 16), (128, 128, 32)],
    "cone": [(64, 64, 64), (96, 96, 64)],
}

N_WORKERS = (1, 2)
N_IN_FLIGHT = (1, 2, 4, 8)
SLICE = (256, 256)
SLICES_EACH = 2
_LOOK_S = 0.05


def main() -> None:
    """Print a row for each case, and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join((*CASES, "flight", "workers")))
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--one", help="measure one case in this process, as JSON")
    settings = parser.parse_args()
    if settings.one:
        case = json.loads(settings.one)
        kinds = {"n_workers": measure_workers, "in_flight": measure_in_flight, "kind": measure}
        print(json.dumps(next(kinds[key] for key in kinds if key in case)(**case)))
        return
    rows = []
    for case in [case for kind in settings.cases.split(",") for case in cases_of(kind)]:
        command = [sys.executable, __file__, "--one", json.dumps(case)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({**case, **json.loads(done.stdout)})
        print(line(rows[-1]), flush=True)
    if settings.json:
        settings.json.write_text(json.dumps(rows, indent=2) + "\n")


def cases_of(kind: str) -> list[dict[str, Any]]:
    """What is measured of one kind, each for a process of its own."""
    if kind == "workers":
        return [{"n_workers": n} for n in N_WORKERS]
    if kind == "flight":
        return [{"in_flight": n} for n in N_IN_FLIGHT]
    precisions = ("off", "on") if fast_cpu_instructions() else ("off",)
    return [
        {"kind": kind, "shape": shape, "precision": precision, "checkpointing": checkpointing}
        for shape in CASES[kind]
        for precision in precisions
        for checkpointing in (False, True)
    ]


def measure_workers(n_workers: int) -> dict[str, Any]:
    """Fit slices on workers, and compare the growth of all processes with the estimate for one slice on each."""
    settings = ReconSettings(changes={"iterations": ITERATIONS, "inputs": ("zero-filled", "zero-filled")}, device="cpu")
    first, scan = (repeated(make_scan("mri", shape), n_workers * SLICES_EACH) for shape in ((32, 32), SLICE))
    with local_cluster(n_workers) as cluster:
        reconstruct(first, settings, cluster=cluster)  # so that all is loaded
        processes = [os.getpid(), *cluster.processes()]
        before, peak = shared_by(processes), [0]
        over = threading.Event()

        def look() -> None:
            while not over.wait(_LOOK_S):
                peak[0] = max(peak[0], shared_by(processes))

        watcher = threading.Thread(target=look)
        watcher.start()
        reconstruct(scan, settings, cluster=cluster)
        over.set()
        watcher.join()
    predicted = n_workers * memory_needed(repeated(scan, 1), replace(settings, mode="slice"))
    return {"predicted": predicted, "measured": peak[0] - before, "at_rest": before}


def measure_in_flight(in_flight: int) -> dict[str, Any]:
    """Fit slices as one program in this process, so many at a time, and compare its growth with the estimate."""
    changes = {"iterations": ITERATIONS, "inputs": ("zero-filled", "zero-filled")}
    settings = ReconSettings(changes=changes, device="cpu", mode="slice", in_flight=in_flight)
    first, scan = (repeated(make_scan("mri", shape), N_IN_FLIGHT[-1]) for shape in ((32, 32), SLICE))
    reconstruct(first, settings)  # so that all is loaded
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = held("VmRSS")
    reconstruct(scan, settings)
    return {"predicted": memory_needed(scan, settings, in_flight=in_flight), "measured": held("VmHWM") - before}


def repeated(scan: KSpaceScan, n_slices: int) -> KSpaceScan:
    """The first slice of a scan, so many times."""
    return scan.replace(
        kspace=np.repeat(scan.kspace[:, :1], n_slices, axis=1), mask=np.repeat(scan.mask[:, :1], n_slices, axis=1)
    )


def shared_by(processes: list[int]) -> int:
    """Bytes that processes hold together; of pages that several hold, each has its share."""
    texts = [Path(f"/proc/{number}/smaps_rollup").read_text() for number in processes]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("Pss:")]
    return sum(int(line.split()[1]) * 2**10 for line in lines)


def measure(kind: str, shape: list[int], precision: str, checkpointing: bool) -> dict[str, Any]:
    """Fit one volume, and compare the growth of this process with the estimate."""
    changes = {"iterations": ITERATIONS, "mixed_precision": precision, "checkpointing": checkpointing}
    # as many channels as by default, without the time that better images take; they need less memory than the network
    changes["inputs"] = ("zero-filled", "zero-filled") if kind == "mri" else ("zero-filled",)
    settings = ReconSettings(
        changes=changes,
        mode="auto" if kind == "cone" else "3d",
        device="cpu",
    )
    # whatever is loaded on first use is there before anything is counted
    reconstruct(make_scan(kind, (16, 16, 16)), settings)
    scan = make_scan(kind, tuple(shape))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = held("VmRSS")
    reconstruct(scan, settings)
    measured = held("VmHWM") - before
    predicted = memory_needed(scan, replace(settings, mode="3d"))
    return {"predicted": predicted, "measured": measured}


def make_scan(kind: str, shape: tuple[int, ...]) -> Scan:
    """A ball, measured one way; what it looks like does not matter to memory."""
    places = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in shape), indexing="ij", sparse=True)
    ball = np.array(sum(place**2 for place in places) < 0.7, dtype=np.float32)
    if kind == "mri":  # of two axes a slice
        spectrum = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(ball), norm="ortho")).astype(np.complex64)
        kspace = np.stack([spectrum * np.complex64(1 + 0.1 * coil) for coil in range(N_COILS)])[None, None]
        mask = np.ones((1, 1, *shape), dtype=bool)
        return KSpaceScan(kspace, mask, np.eye(4), shape, "simulated")
    angles = angles_over(N_VIEWS, math.pi if kind == "stack" else 2 * math.pi)
    if kind == "stack":
        beam = ParallelBeam(angles, round(1.5 * shape[0]), 1.0)
        lines = np.broadcast_to(ball.sum(axis=0).T[:, None, : beam.n_columns], (shape[2], N_VIEWS, shape[1]))
        padded = np.zeros((shape[2], N_VIEWS, beam.n_columns), dtype=np.float32)
        padded[..., : shape[1]] = lines
        return ProjectionScan(padded, beam, Grid(shape[:2], (1.0, 1.0)), np.eye(4), "simulated")
    cone = ConeBeam(angles, shape[2], shape[0], 2.0, 2.0, 4.0 * shape[0], 8.0 * shape[0])
    rows = np.broadcast_to(ball.sum(axis=0).T, (N_VIEWS, shape[2], shape[0]))
    return ProjectionScan(rows[None].copy(), cone, Grid(shape, (1.0, 1.0, 1.0)), np.eye(4), "simulated")


def held(name: str) -> int:
    """Bytes of this process by a name of ``/proc/self/status``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith(name))


def line(row: dict[str, Any]) -> str:
    """A row of the tables."""
    if "n_workers" in row:
        figures = (row["predicted"], row["measured"], row["at_rest"])
        return f"| {row['n_workers']} | " + " | ".join(f"{figure / 2**20:.0f}" for figure in figures) + " |"
    if "in_flight" in row:
        return f"| {row['in_flight']} | {row['predicted'] / 2**20:.0f} | {row['measured'] / 2**20:.0f} |"
    sizes = " x ".join(map(str, row["shape"]))
    precision = "bfloat16" if row["precision"] == "on" else "float32"
    ratio = row["predicted"] / row["measured"]
    return (
        f"| {row['kind']} | {sizes} | {precision} | {'yes' if row['checkpointing'] else 'no'} "
        f"| {row['predicted'] / 2**20:.0f} | {row['measured'] / 2**20:.0f} | {ratio:.2f} "
        f"| {row['measured'] / math.prod(row['shape']):.0f} |"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)  # the estimate does not depend on it, and a busy machine is left alone
    main()
