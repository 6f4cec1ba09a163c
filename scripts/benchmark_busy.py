"""Seconds of a short `dipmed recon` on an idle and on a busy machine, by what threads do while they wait.

Run as ``python scripts/benchmark_busy.py SCAN [--undersample SPEC] [--iterations N]`` on a machine that is otherwise
idle. Busy means that as many other processes compute as there are cores. Prints a Markdown table, with the ratio to the
first row of each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAYS = {"spin for a while, OpenMP's default": "dipmed.cli", "sleep, as the command has it": "dipmed"}
"""Modules to run: the first one leaves threads as they are."""


def main() -> None:
    """Measure each way with one thread and with one a core, idle and busy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--undersample", help="as of `dipmed recon`")
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3, help="of each row, of which the fastest counts")
    chosen = parser.parse_args()
    options = ["--slices", "0:1", "--set", f"iterations={chosen.iterations}"]
    options += ["--undersample", chosen.undersample] if chosen.undersample else []
    cores = len(os.sched_getaffinity(0))
    print("| other processes | threads | while they wait they | seconds of the fit | ratio |\n|---|---|---|---|---|")
    for n_others in (0, cores):
        first = None
        for way, module in WAYS.items():
            for threads in (cores, 1):
                with others(n_others):
                    seconds = min(fit(chosen.scan, options, module, threads) for _ in range(chosen.repeats))
                first = first or seconds
                print(f"| {n_others} | {threads} | {way} | {seconds:.1f} | {seconds / first:.2f} |", flush=True)


@contextmanager
def others(n: int) -> Iterator[None]:
    """Keep so many processes computing."""
    processes = [multiprocessing.Process(target=compute, daemon=True) for _ in range(n)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


def compute() -> None:
    """Keep a core busy."""
    while True:
        sum(range(10**6))


def fit(scan: Path, options: list[str], module: str, threads: int) -> float:
    """Seconds that a command says that its fit took."""
    settings = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", module, "recon", str(scan), "-o", f"{folder}/image.nii.gz", *options],
            env={**settings, "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
            check=True,
        )
    found = re.search(r"slice 0: .*\(([\d.]+) s\)", " ".join(done.stderr.split()))
    if found is None:
        raise SystemExit(f"the command did not say how long it took: {done.stderr}")
    return float(found[1])


if __name__ == "__main__":
    main()
