"""What MONAI's way costs over the direct call, and what workers of a DataLoader bring.

Run as ``python scripts/benchmark_monai.py``. The scan is simulated; the direct call reads the same file, and both fit
for so few iterations that the way counts. Seconds are those of the processor for one process, and by the clock for the
workers. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from monai.data import DataLoader, Dataset
from monai.transforms import Compose

from dipmed.io import load, save_ismrmrd
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.settings import ReconSettings
from dipmed.transforms import AdjointReconstructd, DIPReconstructd, EstimateCoilMapsd, LoadScand, Reconstructd

SHAPE, N_COILS = (192, 192), 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--items", type=int, default=16, help="scans that the workers read")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scan.h5"
        save_ismrmrd(brain_phantom_scan(SHAPE, n_coils=N_COILS)[0], file)
        show_overhead(file, chosen.repeats, chosen.iterations)
        show_workers(file, chosen.items)


def show_overhead(file: Path, repeats: int, iterations: int) -> None:
    """One process: each way turn by turn, the fastest of the repeats."""
    fit = {"iterations": iterations}
    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "zero-filled": (
            direct(file, ReconSettings("zero-filled", device="cpu")),
            piped(file, Reconstructd("kspace", "zero-filled", device="cpu")),
        ),
        f"dip, {iterations} iterations": (
            direct(file, ReconSettings("dip", device="cpu", changes=fit)),
            piped(file, DIPReconstructd("kspace", device="cpu", **fit)),
        ),
        f"dip, {iterations} iterations, maps by a transform": (
            direct(file, ReconSettings("dip", device="cpu", changes=fit)),
            piped(file, EstimateCoilMapsd("kspace"), DIPReconstructd("kspace", maps_key="maps", device="cpu", **fit)),
        ),
    }
    print(f"{SHAPE[0]} x {SHAPE[1]}, {N_COILS} coils, one thread\n")
    print("| reconstruction | direct, s | MONAI, s | ratio |\n|---|---|---|---|")
    for name, both in ways.items():
        best = [float("inf"), float("inf")]
        for _ in range(repeats + 1):  # the first warms up
            for number, way in enumerate(both):
                start = time.process_time()
                way()
                best[number] = min(best[number], time.process_time() - start)
        print(f"| {name} | {best[0]:.3f} | {best[1]:.3f} | {best[1] / best[0]:.2f} |")


def direct(file: Path, settings: ReconSettings) -> Callable[[], object]:
    """The library's own call."""
    return lambda: reconstruct(load(file), settings)


def piped(file: Path, *transforms: object) -> Callable[[], object]:
    """The same as a pipeline."""
    pipeline = Compose([LoadScand("kspace"), *transforms])
    return lambda: pipeline({"kspace": str(file)})


def show_workers(file: Path, n_items: int) -> None:
    """Zero-filled images of many files, as training reads them."""
    pipeline = Compose([LoadScand("kspace"), AdjointReconstructd("kspace", output_key="image", device="cpu")])
    dataset = Dataset([{"kspace": str(file)}] * n_items, pipeline)
    print(f"\n{n_items} files to zero-filled images, by the clock\n")
    print("| workers | s | items/s |\n|---|---|---|")
    for n_workers in (0, 1, 2):
        loader = DataLoader(dataset, batch_size=2, num_workers=n_workers)
        start = time.perf_counter()
        n_seen = sum(len(batch["image"]) for batch in loader)
        seconds = time.perf_counter() - start
        print(f"| {n_workers} | {seconds:.2f} | {n_seen / seconds:.1f} |")


if __name__ == "__main__":
    main()
