"""A volume slice by slice, by one network in three dimensions, and in overlapping slabs: quality, seconds, memory.

Run as ``python scripts/benchmark_volume.py [--cases lung1,brain] [--ways "slice;3d;slab"] [--json FILE]`` on Linux
with ``DIPMED_DATA`` set. Scans are simulated from image volumes, so that the truth is known: eight slices of a chest
and of a phantom's head by CT with 30 views, eight slices of a head by MRI with eight coils at R=4. Scores are of the
whole volume.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmark_memory import held

from dipmed.evaluate import score
from dipmed.prepare import ReconSettings
from dipmed.recon import reconstruct
from dipmed.simulate import KSpaceSettings, ProjectionSettings, Settings, Simulation, read_volume, simulate

MORE = ("network.channels=32,64,64", "network.skip_channels=16", "network.up_channels=32")
"""Twice the features of the presets for volumes, at about twice the time."""


@dataclass(frozen=True)
class Case:
    """Slices of an image volume under ``DIPMED_DATA``, and what measures them."""

    path: str
    slices: tuple[int, int]
    settings: Settings


CASES = {
    "lung1": Case(
        "nifti_ct_lung1/lung1_crop.nii.gz", (3, 11), ProjectionSettings(n_views=30, photons=1e5, reduce=5, seed=0)
    ),
    "plastic": Case("dicom_ct_plastichead", (4, 12), ProjectionSettings(n_views=30, photons=1e5, reduce=4, seed=0)),
    "brain": Case(
        "nifti_mr_ch2bet/ch2bet.nii.gz",
        (86, 94),
        KSpaceSettings(n_coils=8, noise=0.01, undersample="random:R=4,acs=16,seed=0", reduce=2, seed=0),
    ),
}

WAYS: dict[str, dict[str, Any]] = {
    "slice": {"mode": "slice"},
    "3d": {"mode": "3d"},
    "3d, more features": {"mode": "3d", "sets": MORE},
    "slab": {"mode": "slab", "slab": 6},
}


def main() -> None:
    """Print a row for each case and way, and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--ways", default=";".join(WAYS), help="separated by semicolons")
    parser.add_argument("--iterations", type=int, help="of each fit, in place of the preset's")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    settings = parser.parse_args()
    changes = {} if settings.iterations is None else {"iterations": settings.iterations}
    rows = []
    for name in settings.cases.split(","):
        simulation = measure(CASES[name])
        for way in settings.ways.split(";"):
            rows.append({"case": name, "way": way, **run(simulation, way, changes)})
            print(line(rows[-1]), flush=True)
    if settings.json:
        settings.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(case: Case) -> Simulation:
    """Simulate the scan."""
    modality = "ct" if isinstance(case.settings, ProjectionSettings) else "mri"
    volume = read_volume(Path(os.environ["DIPMED_DATA"]) / case.path, modality)
    return simulate(volume, case.settings, case.slices)


def run(simulation: Simulation, way: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Reconstruct one way, and score the volume."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = held("VmRSS")
    start, busy = time.perf_counter(), time.process_time()
    result = reconstruct(simulation.scan, ReconSettings(changes=changes, **WAYS[way]))
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    memory = held("VmHWM") - before
    truth = np.abs(simulation.reference.data).astype(np.float32)
    image = result.volume.data
    image = np.abs(image) if np.iscomplexobj(image) else image
    scores = score(image.astype(np.float32), truth, truth > 0)
    slices = [score(image[..., z], truth[..., z], truth[..., z] > 0).psnr for z in range(truth.shape[-1])]
    return {
        "shape": list(truth.shape),
        "psnr": scores.psnr,
        "ssim": scores.ssim,
        "psnr_of_slices": slices,
        "seconds": seconds,
        "core_seconds": busy,
        "memory": memory,
        "fits": len(result.reconstructions),
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    shape = " x ".join(map(str, row["shape"]))
    return (
        f"| {row['case']}, {shape} | {row['way']} | {row['fits']} | {row['psnr']:.2f} | {row['ssim']:.4f} "
        f"| {row['psnr_of_slices'][0]:.2f} .. {min(row['psnr_of_slices']):.2f} | {row['seconds']:.0f} "
        f"| {row['core_seconds']:.0f} | {row['memory'] / 2**20:.0f} |"
    )


if __name__ == "__main__":
    main()
