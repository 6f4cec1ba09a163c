"""Quality and time of every method on measured scans, undersampled in retrospect.

Run as ``DIPMED_DATA=DIR python scripts/benchmark_recon.py [--cases a,b] [--json FILE]``. The classical methods get
the best of a sweep of their weight by PSNR, chosen with the reference in hand, ours and BART's (when it is
installed); the fits get one setting for all scans. The row "input" is the wavelet image with the penalty on the
phase that the fit starts from, at the fit's own settings. The row "smoothed" is the reference itself after
a Gaussian of 0.7 pixels: what it loses is noise and the finest detail. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

sys.path.insert(0, str(Path(__file__).parent))
from bart_sweep import Row, sweep, sweep_trajectory

from dipmed.compare import compare, find_reference
from dipmed.config import FitConfig
from dipmed.dip.inputs import wavelet_image
from dipmed.dip.last_steps import end_with_data
from dipmed.dip.problem import make_problem
from dipmed.evaluate import score
from dipmed.io import load
from dipmed.jobs import Job, jobs
from dipmed.prepare import prepare_kspace
from dipmed.record import versions
from dipmed.scan import KSpaceScan
from dipmed.settings import ReconSettings
from operators import CartesianMRI, NonCartesianMRI

CASES = {
    "bart_brain8": "bart_brain8/full.cfl",
    "fastmri_vfa13": "fastmri_vfa13/vfa13_fa11.h5",
    "mat73_brain16": "mat73_brain16/raw_data.mat",
    "dyn_vfa_radial5": "dyn_vfa_radial5/vfa_radial5.h5",
    "sim3d_mc6": "sim3d_mc6/ksp.cfl",
}
# a case that is undersampled in its own way: ten frames of spokes as one, of which a tenth is kept; a given mask
OWN_SETTINGS: dict[str, dict[str, Any]] = {
    "dyn_vfa_radial5": {"join_frames": True, "undersample": "equispaced:R=10,acs=0,seed=0"},
    "sim3d_mc6": {"mask": Path("sim3d_mc6/mask_yz.npy")},
}
SMOOTHING = 0.7
SHOWN = (50, 100, 200, 300, 400, 500)
SPECS = ("random:R=4,acs=16,seed=0", "random:R=6,acs=12,seed=0")


def main() -> None:
    """Parse the options, run the cases, print and write their tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default="bart_brain8,fastmri_vfa13", help=f"of {', '.join(CASES)}")
    parser.add_argument("--specs", nargs="+", default=SPECS, metavar="SPEC", help="undersampling, e.g. " + SPECS[0])
    parser.add_argument("--methods", default="dip,dip-vanilla", help="fits to run; empty for none")
    parser.add_argument("--no-sweep", action="store_true", help="leave the classical methods out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures and curves to this file as well")
    chosen = parser.parse_args()
    data = Path(os.environ["DIPMED_DATA"])
    report: dict[str, Any] = {"machine": machine(), "versions": versions(), "cases": []}
    for case in chosen.cases.split(","):
        for settings in case_settings(case, chosen.specs, data, chosen.seed):
            methods = [name for name in chosen.methods.split(",") if name]
            result = run_case(data / CASES[case], settings, methods, with_sweep=not chosen.no_sweep)
            spec = settings.undersample or str(OWN_SETTINGS[case]["mask"])
            report["cases"].append({"case": case, "undersample": spec, **result})
            show(case, spec, result)
            if chosen.json:
                chosen.json.write_text(json.dumps(report, indent=1) + "\n")


def case_settings(case: str, specs: Sequence[str], data: Path, seed: int) -> list[ReconSettings]:
    """How a case is undersampled: by each rule, or in its own way."""
    common: dict[str, Any] = {"changes": {"seed": seed}, "device": "cpu"}
    if case not in OWN_SETTINGS:
        return [ReconSettings(undersample=spec, **common) for spec in specs]
    own = dict(OWN_SETTINGS[case])
    if "mask" in own:
        own["mask"] = data / own["mask"]
    return [ReconSettings(**own, **common)]


def run_case(path: Path, settings: ReconSettings, methods: list[str], *, with_sweep: bool) -> dict[str, Any]:
    """Sweep the classical methods, then run the fits, all on the same undersampled slice or volume."""
    scan = load(path)
    assert isinstance(scan, KSpaceScan)  # noqa: S101  # all cases are
    if scan.ndim == 2:
        middle = scan.n_slices // 2
        settings = replace(settings, slices=(middle, middle + 1))
    reference, support = find_reference(scan, settings, "full")
    prepared = prepare_kspace(scan, settings)
    job = next(jobs(prepared, settings, torch.device("cpu")))
    rows = []
    if with_sweep:
        if isinstance(job.A, NonCartesianMRI):
            rows = sweep_trajectory(np.ascontiguousarray(prepared.kspace[0, 0]), job.A, reference, support)
        else:
            assert isinstance(job.A, CartesianMRI)  # noqa: S101  # the other operator of k-space
            rows = sweep(job.y.numpy(), job.A.mask.numpy(), reference, support)
    start = score_input(job, settings.fit_config("mri", scan.ndim), reference, support)
    fits = compare(scan, methods, settings).rows if methods else []
    classical = [asdict(row) for row in rows]
    smoothed = asdict(score(gaussian_filter(reference, SMOOTHING), reference, support))
    return {
        "classical": classical,
        "input": start,
        "smoothed": smoothed,
        "fits": fits,
        "reaching": reaching(rows, fits),
    }


def score_input(job: Job, config: FitConfig, reference: NDArray[Any], support: NDArray[Any]) -> dict[str, Any]:
    """Score the wavelet image that the fit gets as input, finished as the fit's own image is."""
    start = time.perf_counter()
    generator = torch.Generator().manual_seed(config.seed)
    problem = make_problem(
        job.y,
        job.A,
        kspace_exponent=config.kspace_exponent,
        phase_weight=config.phase_weight,
        held_out=None,
        noise_variance=None,
        generator=generator,
        A_final=job.A_final,
    )
    image = wavelet_image(problem.A, problem.adjoint_data, generator, smooth_phase=problem.smooth_phase)
    image, _ = end_with_data(problem, image, config.data_consistency_steps)
    seconds = time.perf_counter() - start
    return {**asdict(score(image[0].numpy(), reference, support)), "seconds": seconds}


def reaching(rows: list[Row], fits: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """When each fit first was as good as the best l1-wavelet image, in iterations and seconds; None for never."""
    if not rows:
        return []
    target = max(row.psnr for row in rows if "l1-wavelet" in row.method)
    found = []
    for fit in fits:
        iteration = next((step for step, psnr, _ in fit["snapshots"] if psnr >= target), None)
        seconds = None if iteration is None else fit["seconds_fit"] * iteration / fit["iterations"]
        found.append({"method": fit["method"], "psnr": target, "iteration": iteration, "seconds": seconds})
    return found


def show(case: str, spec: str, result: dict[str, Any]) -> None:
    """Print the tables of one case."""
    print(f"\n### {case}, `{spec}`\n")
    print("| method | maps | weight | PSNR dB | SSIM | NRMSE | seconds | iterations | stop | regret dB |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for row in result["classical"]:
        weight = "" if row["weight"] in (None, 0) else f"{row['weight']:g}"
        scores = f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['nrmse']:.4f}"
        print(f"| {row['method']} | {row['maps']} | {weight} | {scores} | {row['seconds']:.1f} | | | |")
    for name in ("smoothed", "input"):
        row = result[name]
        scores = f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['nrmse']:.4f}"
        print(f"| {name} | | | {scores} | {row.get('seconds', 0):.1f} | | | |")
    for row in result["fits"]:
        scores = f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['nrmse']:.4f}"
        stop = f"{row['stop']['rule']} at {row['stop']['iteration']}"
        end = f"{row['seconds_fit']:.1f} | {row['iterations']} | {stop} | {row['regret']:.2f}"
        print(f"| **{row['method']}** | dipmed | | {scores} | {end} |")
    print()
    for row in result["fits"]:
        show_frontier(row)
    for row in result["reaching"]:
        reached = f"iteration {row['iteration']}, {row['seconds']:.0f} s" if row["iteration"] else "never"
        print(f"- {row['method']} reaches the best l1-wavelet ({row['psnr']:.2f} dB): {reached}")
    sys.stdout.flush()


def show_frontier(row: dict[str, Any]) -> None:
    """Print what one fit would have returned had it ended sooner."""
    per_iteration = row["seconds_fit"] / row["iterations"]
    shown = [snapshot for snapshot in row["snapshots"] if snapshot[0] in SHOWN or snapshot[0] == row["iterations"]]
    for iteration, psnr, ssim in shown:
        print(f"- {row['method']}, iteration {iteration}, {iteration * per_iteration:.0f} s: {psnr:.2f} dB, {ssim:.4f}")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {"processor": platform.machine(), "threads": torch.get_num_threads(), "system": platform.system()}


if __name__ == "__main__":
    main()
