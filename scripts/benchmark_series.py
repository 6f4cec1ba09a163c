"""Time and quality of a volume: by default, and its slices by single runs, by two processes, each from the one before.

Run as ``DIPMED_DATA=DIR python scripts/benchmark_series.py --json FILE --work FOLDER``. Seconds by the clock, for a
machine that has nothing else to do, and of the processor, for one that has. One line of JSON a row: rows that the file
holds are not run again. ``--state NAME`` names the code that runs; an older one is run by this script first, with its
checkout on ``PYTHONPATH`` and ``--levers single``. Prints a Markdown table of all rows.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_rows import add_row, read_rows

from dipmed.compare import find_reference
from dipmed.evaluate import score
from dipmed.io import load
from dipmed.recon import reconstruct
from dipmed.simulate import KSpaceSettings, ProjectionSettings, read_volume, reference_path, save_simulation, simulate

try:
    from dipmed.settings import ReconSettings
except ModuleNotFoundError:  # an older state
    from dipmed.prepare import ReconSettings


@dataclass(frozen=True)
class Case:
    """A volume under ``DIPMED_DATA``, how it is measured, and the first slice of those that are."""

    path: str
    modality: str
    scanner: KSpaceSettings | ProjectionSettings
    first: int


CASES = {
    "ch2bet": Case(
        "nifti_mr_ch2bet/ch2bet.nii.gz",
        "mri",
        KSpaceSettings(8, noise=0.01, undersample="random:R=4,acs=16,seed=0"),
        87,
    ),
    "lung1": Case("nifti_ct_lung1/lung1_crop.nii.gz", "ct", ProjectionSettings(30, "fan", photons=1e5, reduce=4), 0),
}
"""The brain has 90 x 108 pixels; the chest 128 x 128, half as many along each axis as in `scripts/benchmark_ct.py`."""


def main() -> None:
    """Parse the options, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated scans")
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--levers", default="single,default,workers", help="of single, default, workers, warm")
    parser.add_argument("--slices", type=int, default=16, help="neighbouring slices; a volume of fewer gives all")
    parser.add_argument("--threads", type=int, default=2, help="of a run, or one for each of so many workers")
    parser.add_argument("--state", default="now", help="name of the code that runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="settings of all fits")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    chosen.work.mkdir(parents=True, exist_ok=True)
    rows = read_rows(chosen.json)
    for name in chosen.cases.split(","):
        path = make_scan(CASES[name], chosen.work / f"{name}-{chosen.slices}.h5", chosen.slices)
        for lever in chosen.levers.split(","):
            for first, end in runs(lever, path):
                key = {"case": name, "state": chosen.state, "lever": lever, "sets": chosen.set}
                key |= {"slices": [first, end], "threads": chosen.threads}
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows.append({**key, **run(path, lever, first, end, tuple(chosen.set), chosen.threads)})
                add_row(chosen.json, rows[-1])
                print(rows[-1], flush=True)
    show(rows)


def make_scan(case: Case, path: Path, n_slices: int) -> Path:
    """Simulate the scan of some slices, unless it is there."""
    if not path.exists():
        volume = read_volume(Path(os.environ["DIPMED_DATA"]) / case.path, case.modality)
        end = min(case.first + n_slices, volume.data.shape[2])
        save_simulation(simulate(volume, case.scanner, (case.first, end)), path)
    return path


def runs(lever: str, path: Path) -> list[tuple[int, int]]:
    """The slices of each run: single ones, or all."""
    n_slices = load(path).n_slices
    return [(0, n_slices)] if lever != "single" else [(number, number + 1) for number in range(n_slices)]


def run(path: Path, lever: str, first: int, end: int, sets: tuple[str, ...], threads: int) -> dict[str, Any]:
    """Reconstruct some slices, and score each."""
    scan = load(path)
    settings = ReconSettings(slices=(first, end), device="cpu", sets=sets)
    start, cpu_start = time.perf_counter(), cpu_seconds()
    if lever == "workers":
        from dipmed.cluster import local_cluster  # older states have none

        with local_cluster(threads) as cluster:
            result = reconstruct(scan, replace(settings, mode="slice"), cluster=cluster)
    else:
        result = reconstruct(scan, replace(settings, warm_start=True) if lever == "warm" else settings)
    seconds, of_processor = time.perf_counter() - start, cpu_seconds() - cpu_start
    scores = []
    for number in range(first, end):
        target, support = find_reference(
            scan, replace(settings, slices=(number, number + 1)), str(reference_path(path))
        )
        image = result.volume.data[:, :, number - first]
        scores.append(score(np.abs(image) if np.iscomplexobj(image) else image, target, support))
    return {
        "seconds": seconds,
        "cpu_seconds": of_processor,
        "iterations": [part.iterations for part in result.reconstructions],
        "psnr": [one.psnr for one in scores],
        "ssim": [one.ssim for one in scores],
    }


def cpu_seconds() -> float:
    """Seconds of the processor, in this process and in its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def show(rows: list[dict[str, Any]]) -> None:
    """Print what the slices of each case took in all, with each lever, and the ratio to the first row of the case."""
    print("\n| case | code | way | slices | seconds | CPU seconds | a slice | faster | PSNR dB | change: mean, worst |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["slices"]):
        groups.setdefault((row["case"], row["state"], row["lever"], " ".join(row["sets"])), []).append(row)
    firsts: dict[str, tuple[float, Any]] = {}
    for (case, state, lever, sets), found in groups.items():
        psnr = np.concatenate([row["psnr"] for row in found])
        seconds, of_processor = (sum(row[key] for row in found) for key in ("seconds", "cpu_seconds"))
        before, reference = firsts.setdefault(case, (seconds / len(psnr), psnr))
        change = psnr - reference if len(psnr) == len(reference) else np.full(1, np.nan)
        print(
            f"| {case} | {state} | {lever} {sets} | {len(psnr)} | {seconds:.0f} | {of_processor:.0f} | "
            f"{seconds / len(psnr):.1f} | {before / (seconds / len(psnr)):.2f} | {psnr.mean():.2f} | "
            f"{change.mean():+.2f}, {change.min():+.2f} |"
        )


if __name__ == "__main__":
    main()
