"""Pixels of CT slices whole and in parts: what measured views that no method saw say of the images.

Run as ``DIPMED_DATA=DIR python scripts/benchmark_subpixels.py --work FOLDER``. A few views of each measured scan are
reconstructed, by total variation at several weights and by ``dip``, with its pixels whole and in four parts. Each image
then predicts every seventh of all views, with the model that it was made with; the error is relative to what was
measured there. No reference image has a part in it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import CASES, WHOLE, prepare_case

from dipmed.config import find_preset
from dipmed.ct_baselines import CGTotalVariation
from dipmed.dip import DeepImagePrior
from dipmed.jobs import Job, jobs
from dipmed.prepare import ReconSettings, prepare, with_preset
from dipmed.scan import Scan
from operators import SliceProjector, through_parts

WEIGHTS = (3e-5, 6e-5, 1.2e-4, 2.4e-4, 4.8e-4)
EVERY = 7
N_PARTS = find_preset("ct-2d").subpixels


def main() -> None:
    """Parse the options and print a row for each scan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    measured = [name for name, case in CASES.items() if "views" in case.settings and case.slice is None]
    parser.add_argument("--cases", default=",".join(measured), help=f"of {', '.join(measured)}")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for reference images, as benchmark_methods has it"
    )
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| scan | method | error in other views: pixels whole | in parts | s: whole | in parts |")
    print("|---|---|---|---|---|---|")
    for name in chosen.cases.split(","):
        prepared = prepare_case(name, chosen.work)
        settings = with_preset(prepared.scan, prepared.settings)
        job, others = job_of(prepared.scan, settings), job_of(prepared.scan, replace(settings, views=None))
        rows = {"cg-tv, best of its weights": best_total_variation, "dip": fit}
        for method, reconstruct in rows.items():
            (whole, seconds), (parts, seconds_parts) = (reconstruct(job, others, settings, n) for n in (1, N_PARTS))
            print(
                f"| {name} | {method} | {whole:.4f} | {parts:.4f} | {seconds:.0f} | {seconds_parts:.0f} |", flush=True
            )


def job_of(scan: Scan, settings: ReconSettings) -> Job:
    """The one slice of a scan, with the views of the settings."""
    return next(jobs(prepare(scan, settings), settings, torch.device("cpu")))


def best_total_variation(job: Job, others: Job, _: ReconSettings, n_parts: int) -> tuple[float, float]:
    """The least error of all weights, and the seconds of one of them."""
    A = through(job.A, n_parts)
    found, seconds = [], []
    for weight in WEIGHTS:
        result = CGTotalVariation(weight, subpixels=1)(job.y, A)  # on the parts themselves, so that they come back
        found.append(error(result.image, others, n_parts))
        seconds.append(result.seconds)
    return min(found), sum(seconds) / len(seconds)


def fit(job: Job, others: Job, settings: ReconSettings, n_parts: int) -> tuple[float, float]:
    """The error of ``dip``, and its seconds."""
    own = replace(settings, sets=WHOLE) if n_parts == 1 else settings
    config = own.fit_config("ct", 2)
    start = time.perf_counter()
    with torch.enable_grad():
        leg = next(DeepImagePrior(config).course(job.y, job.A))
        leg.run()
    image = leg.fit.chosen[0] / leg.fit.problem.scale  # before its parts are joined
    return error(image, others, n_parts), time.perf_counter() - start


def error(image: Tensor, others: Job, n_parts: int) -> float:
    """Relative error of the predicted views."""
    views = range(EVERY // 2, others.y.shape[1], EVERY)
    assert isinstance(others.A, SliceProjector)  # noqa: S101  # the scans are slices
    seen = SliceProjector(others.A.grid, others.A.beam.with_views(views))
    measured = others.y[:, list(views)]
    predicted = (through_parts(seen, n_parts) if n_parts > 1 else seen)(image)
    return float((predicted - measured).norm() / measured.norm())


def through(A: object, n_parts: int) -> SliceProjector:
    """The projector of a job, through parts of its pixels."""
    assert isinstance(A, SliceProjector)  # noqa: S101  # the scans are slices
    return through_parts(A, n_parts) if n_parts > 1 else A


if __name__ == "__main__":
    main()
