"""A volume slice by slice, by one network in three dimensions, and in overlapping slabs: quality, seconds, memory.

Run as ``python scripts/benchmark_volume.py [--cases "lung1;brain"] [--ways "slice;3d;slab"] [--json FILE]`` on Linux
with ``DIPMED_DATA`` set. Scans are simulated from image volumes, so that the truth is known: eight slices of a chest
and of a phantom's head by CT with 30 views, eight slices of a head by MRI with eight coils at R=4; and the same with
larger pixels, thicker slices or other data, which tells how alike slices must be for one network
(`dipmed.mode.ALIKE`). Scores are of the whole volume, and of its slices.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_memory import held

from dipmed.baselines import TotalVariation
from dipmed.calib.neighbours import slice_change
from dipmed.ct_baselines import CGTotalVariation
from dipmed.evaluate import score
from dipmed.prepare import prepare
from dipmed.recon import reconstruct
from dipmed.settings import ReconSettings
from dipmed.simulate import KSpaceSettings, ProjectionSettings, Settings, Simulation, read_volume, simulate
from dipmed.stacks import jobs_of

MORE = ("network.channels=32,64,64", "network.skip_channels=16", "network.up_channels=32")
"""Twice the features of the presets for volumes, at about twice the time."""


@dataclass(frozen=True)
class Case:
    """Slices of an image volume under ``DIPMED_DATA``, and what measures them; ``thick`` at a time become one."""

    path: str
    slices: tuple[int, int]
    settings: Settings
    thick: int = 1


_RAYS = ProjectionSettings(n_views=30, photons=1e5, reduce=5, seed=0)
_COILS = KSpaceSettings(n_coils=8, noise=0.01, undersample="random:R=4,acs=16,seed=0", reduce=2, seed=0)
_CHEST = Case("nifti_ct_lung1/lung1_crop.nii.gz", (3, 11), _RAYS)
_PHANTOM = Case("dicom_ct_plastichead", (4, 12), replace(_RAYS, reduce=4))
_HEAD = Case("nifti_mr_ch2bet/ch2bet.nii.gz", (86, 94), _COILS)

CASES = {"lung1": _CHEST, "plastic": _PHANTOM, "brain": _HEAD}
"""What is run if nothing else is said."""

MORE_CASES = {
    "lung1, reduce=3": replace(_CHEST, settings=replace(_RAYS, reduce=3)),
    "lung1, reduce=8": replace(_CHEST, settings=replace(_RAYS, reduce=8)),
    "lung1, thick=2": replace(_CHEST, slices=(0, 14), thick=2),
    "lung1, 18 views": replace(_CHEST, settings=replace(_RAYS, n_views=18)),
    "lung1, 60 views": replace(_CHEST, settings=replace(_RAYS, n_views=60)),
    "lung1, photons=1e4": replace(_CHEST, settings=replace(_RAYS, photons=1e4)),
    "plastic, reduce=6": replace(_PHANTOM, settings=replace(_RAYS, reduce=6)),
    "plastic, reduce=8": replace(_PHANTOM, settings=replace(_RAYS, reduce=8)),
    "brain, thick=2": replace(_HEAD, slices=(82, 98), thick=2),
    "brain, thick=4": replace(_HEAD, slices=(74, 106), thick=4),
    "brain, thick=8": replace(_HEAD, slices=(58, 122), thick=8),
    "brain, R=2": replace(_HEAD, settings=replace(_COILS, undersample="random:R=2,acs=24,seed=0")),
    "brain, R=6": replace(_HEAD, settings=replace(_COILS, undersample="random:R=6,acs=12,seed=0")),
}

WAYS: dict[str, dict[str, Any]] = {
    "slice": {"mode": "slice"},
    "3d": {"mode": "3d"},
    "3d, more features": {"mode": "3d", "sets": MORE},
    "slab": {"mode": "slab", "slab": 6},
    "slice, tv": {"mode": "slice"},
    "3d, tv": {"mode": "3d"},
}
"""By networks, and by total variation alone."""

TOTAL_VARIATION: dict[str, tuple[Any, tuple[float, ...]]] = {
    "ct": (CGTotalVariation, (1e-5, 3e-5, 6e-5, 1e-4, 2e-4, 4e-4)),
    "mri": (TotalVariation, (5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2)),
}
"""Of each modality, with weights of which the best counts: by the truth in hand, which no user has."""


def main() -> None:
    """Print a row for each case and way, and write them where ``--json`` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    every = CASES | MORE_CASES
    parser.add_argument("--cases", default=";".join(CASES), help=f"of {'; '.join(every)}; separated by semicolons")
    parser.add_argument("--ways", default=";".join(WAYS), help="separated by semicolons")
    parser.add_argument("--iterations", type=int, help="of each fit, in place of the preset's")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    settings = parser.parse_args()
    changes = {} if settings.iterations is None else {"iterations": settings.iterations}
    rows = []
    for name in settings.cases.split(";"):
        simulation = measure(every[name])
        change = slice_change(simulation.scan)
        for way in settings.ways.split(";"):
            rows.append({"case": name, "way": way, "change": change, **run(simulation, way, changes)})
            print(line(rows[-1]), flush=True)
    if settings.json:
        settings.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(case: Case) -> Simulation:
    """Simulate the scan."""
    modality = "ct" if isinstance(case.settings, ProjectionSettings) else "mri"
    volume = read_volume(Path(os.environ["DIPMED_DATA"]) / case.path, modality)
    first, end = case.slices
    data = volume.data[:, :, first:end]
    thicker = data.reshape(*data.shape[:2], -1, case.thick).mean(-1)
    affine = volume.affine.copy()
    affine[:, 2] *= case.thick
    return simulate(replace(volume, data=thicker, affine=affine), case.settings)


def run(simulation: Simulation, way: str, changes: dict[str, Any]) -> dict[str, Any]:
    """Reconstruct one way, and score the volume; of total variation, the best of several weights."""
    if not way.endswith("tv"):
        settings = ReconSettings(changes=changes, **WAYS[way])
        return measured(simulation, lambda: reconstruct(simulation.scan, settings).volume.data)
    settings = ReconSettings(**WAYS[way])
    jobs = list(jobs_of(prepare(simulation.scan, settings), settings, torch.device("cpu")))
    solver, weights = TOTAL_VARIATION[simulation.scan.modality]

    def images(weight: float) -> Any:
        found = [solver(weight)(job.y, job.A).image[0] for job in jobs]
        return (found[0] if len(found) == 1 else torch.stack(found, -1)).numpy()

    rows = [{"weight": weight, **measured(simulation, partial(images, weight))} for weight in weights]
    return max(rows, key=lambda row: row["psnr"])


def measured(simulation: Simulation, make: Callable[[], Any]) -> dict[str, Any]:
    """Make the volume, and say how good it is and what it took."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = held("VmRSS")
    start, busy = time.perf_counter(), time.process_time()
    image = make()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    memory = held("VmHWM") - before
    truth = np.abs(simulation.reference.data).astype(np.float32)
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
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    shape = " x ".join(map(str, row["shape"]))
    return (
        f"| {row['case']}, {shape} | {row['change']:.3f} | {row['way']} {row.get('weight', '')} | {row['psnr']:.2f} "
        f"| {row['ssim']:.4f} | {np.mean(row['psnr_of_slices']):.2f}, {min(row['psnr_of_slices']):.2f} "
        f"| {row['seconds']:.0f} | {row['core_seconds']:.0f} | {row['memory'] / 2**20:.0f} |"
    )


if __name__ == "__main__":
    main()
