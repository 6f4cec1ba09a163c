"""What it gains that the weights of a fit follow the noise: scans as they are, and with more noise.

Run as ``DIPMED_DATA=DIR python scripts/study_noise.py --json FILE --work FOLDER``. Simulations of CT have fewer
photons, measured k-space has white noise added, up to so many times the level that its outermost samples show. Each is
reconstructed by `dip` with weights that follow the noise and with those of its preset, and by total variation or
wavelets at the best of many weights, **with the reference in hand**. One line of JSON a row: those that the file holds
are not run again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import CASES, PHOTONS, Prepared, prepare_case
from result_rows import add_row, read_rows

from dipmed.baselines import BASELINES
from dipmed.calib.ray_noise import ray_noise_level
from dipmed.ct_baselines import CT_BASELINES
from dipmed.dip import DeepImagePrior
from dipmed.dip.noise import estimate_noise
from dipmed.evaluate import score
from dipmed.scan import KSpaceScan, ProjectionScan, Reconstruction, Scan
from dipmed.settings import with_preset
from operators import MRIOperator

LEVELS = {"lung1": (1, 3, 7), "head": (1, 3, 7), "brain8": (1, 3, 6), "vfa13": (1, 3, 6), "radial5": (1, 3, 6)}
"""Noise over that of the scan as it is; that of photons grows as the root of their number falls."""

FITS = {"as the preset": False, "following": True}
WEIGHTS = {
    "cg-tv": (3e-5, 6e-5, 1.2e-4, 2.4e-4, 5e-4, 1e-3, 2e-3, 4e-3),
    "tv": (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.04),
    "l1-wavelet": (0.001, 0.002, 0.005, 0.01, 0.02, 0.04),
}


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated scans and reference images")
    simulated = [name for name, case in CASES.items() if case.slice is not None]
    measured = [name for name, case in CASES.items() if "undersample" in case.settings]
    parser.add_argument(
        "--cases", default=",".join([*simulated, *measured]), help="scans to run, by default %(default)s"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    rows = read_rows(chosen.json)
    for case in chosen.cases.split(","):
        for times in LEVELS[case.split("-")[0]]:
            wanted = [("classical", 0), *((fit, seed) for seed in chosen.seeds for fit in FITS)]
            for way, seed in wanted:
                key = {"case": case, "times": times, "way": way, "seed": seed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                prepared = noisy_case(case, times, chosen.work)
                rows.append({**key, **(classical(prepared) if way == "classical" else fit(prepared, FITS[way], seed))})
                add_row(chosen.json, rows[-1])
                print(rows[-1], flush=True)
    show(rows)


def noisy_case(name: str, times: float, folder: Path) -> Prepared:
    """A case with so many times its noise."""
    if CASES[name].slice is not None:
        return prepare_case(name, folder, 2, PHOTONS / times**2)
    prepared = prepare_case(name, folder)
    scan, job = prepared.scan, prepared.job()
    if not (isinstance(scan, KSpaceScan) and isinstance(job.A, MRIOperator)):
        raise SystemExit(f"{name} has neither k-space nor is it a simulation: its noise cannot be raised")
    level = estimate_noise(job.A, job.y, None).level * np.sqrt((times**2 - 1) / 2)
    real, imaginary = np.random.default_rng(1).standard_normal((2, *scan.kspace.shape), np.float32)
    noise = np.float32(level) * (real + 1j * imaginary)
    return replace(prepared, scan=replace(scan, kspace=np.where(scan.kspace != 0, scan.kspace + noise, 0)))


def classical(prepared: Prepared) -> dict[str, Any]:
    """The best of the classical methods and of their weights, by PSNR."""
    target, support = prepared.target()
    job = prepared.job()
    found = []
    for name, make in (BASELINES | CT_BASELINES).items():
        if (name in CT_BASELINES) == (prepared.scan.modality == "ct"):
            for weight in WEIGHTS.get(name, ()):
                scores = score(make(weight)(job.y, job.A).image[0], target, support)
                found.append({"method": name, "weight": weight, "psnr": scores.psnr, "ssim": scores.ssim})
    return {**max(found, key=lambda row: float(row["psnr"])), "noise_found": noise_found(prepared.scan)}


def noise_found(scan: Scan) -> float | None:
    """The noise of the line integrals as it is estimated, over that of the photons that were simulated."""
    if not isinstance(scan, ProjectionScan) or scan.counts is None:
        return None
    return ray_noise_level(scan.projections[0])[0] / float(np.sqrt(np.mean(1 / np.maximum(scan.counts[0], 1))))


def reconstruct(prepared: Prepared, follows: bool, seed: int) -> Reconstruction:
    """Fit with the preset, its weights as they are or following the noise."""
    job = prepared.job()
    settings = with_preset(prepared.scan, prepared.settings)
    config = settings.fit_config(prepared.scan.modality, 2).replace(follow_noise=follows, seed=seed)
    return DeepImagePrior(config, noise_variance=job.noise_variance, A_final=job.A_final)(job.y, job.A)


def fit(prepared: Prepared, follows: bool, seed: int) -> dict[str, Any]:
    """Fit and score."""
    target, support = prepared.target()
    result = reconstruct(prepared, follows, seed)
    scores = score(result.image[0], target, support)
    return {"psnr": scores.psnr, "ssim": scores.ssim, "seconds": result.seconds, "raised": result.raised}


def show(rows: list[dict[str, Any]]) -> None:
    """Print means over the seeds."""
    groups: dict[tuple[str, float], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["case"], row["times"]][row["way"]].append(row)
    ways = "`dip` as its preset | following the noise | gain | weights raised to"
    print(f"\n| scan | noise | found / true | best classical, its weight | {ways} |")
    print("|---|---|---|---|---|---|---|---|")
    for (case, times), group in groups.items():
        best = group["classical"][0]
        psnr, ssim = ({way: statistics.fmean(row[of] for row in group[way]) for way in FITS} for of in ("psnr", "ssim"))
        cells = [f"{psnr[way]:.2f}, {ssim[way]:.3f}" for way in FITS]
        gain = f"{psnr['following'] - psnr['as the preset']:+.2f} dB, {ssim['following'] - ssim['as the preset']:+.3f}"
        raised = ", ".join(f"{name} {weight:.2g}" for name, weight in group["following"][0]["raised"].items())
        first = f"{best['psnr']:.2f}, {best['ssim']:.3f}: {best['method']} {best['weight']:g}"
        found = "" if best.get("noise_found") is None else f"{best['noise_found']:.2f}"
        print(f"| {case} | x {times:g} | {found} | {first} | {' | '.join(cells)} | {gain} | {raised} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
