"""Pixels of CT slices whole and in parts: what measured views that no method saw say of the images.

Run as ``DIPMED_DATA=DIR python scripts/benchmark_subpixels.py``. A few views of each measured scan are
reconstructed, by total variation at several weights and by ``dip``, with its pixels whole and in four parts. Each image
then predicts every seventh of all views, with the model that it was made with; the error is relative to what was
measured there. No reference image has a part in it. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import CASES, WHOLE

from dipmed.config import find_preset
from dipmed.ct_baselines import CGTotalVariation
from dipmed.dip import DeepImagePrior
from dipmed.io import load
from dipmed.jobs import jobs
from dipmed.prepare import prepare
from dipmed.scan import Scan
from dipmed.settings import ReconSettings, with_preset
from operators import SliceProjector, through_parts

WEIGHTS = (3e-5, 6e-5, 1.2e-4, 2.4e-4, 4.8e-4)
EVERY = 7
Views = tuple[Tensor, SliceProjector]
"""Of a slice what was measured, and its projector."""

N_PARTS = find_preset("ct-2d").subpixels


def main() -> None:
    """Parse the options and print a row for each scan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    measured = [name for name, case in CASES.items() if "views" in case.settings and case.slice is None]
    parser.add_argument("--cases", default=",".join(measured), help=f"of {', '.join(measured)}")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("| scan | method | error in other views: pixels whole | in parts | s: whole | in parts |")
    print("|---|---|---|---|---|---|")
    for name in chosen.cases.split(","):
        scan = load(Path(os.environ["DIPMED_DATA"]) / CASES[name].path)
        settings = with_preset(scan, ReconSettings(**CASES[name].settings, slices=(0, 1), device="cpu"))
        kept, others = measured_slice(scan, settings), measured_slice(scan, replace(settings, views=None))
        rows = {"cg-tv, best of its weights": best_total_variation, "dip": fit}
        for method, reconstruct in rows.items():
            (whole, seconds), (parts, seconds_parts) = (reconstruct(kept, others, settings, n) for n in (1, N_PARTS))
            print(
                f"| {name} | {method} | {whole:.4f} | {parts:.4f} | {seconds:.0f} | {seconds_parts:.0f} |", flush=True
            )


def measured_slice(scan: Scan, settings: ReconSettings) -> Views:
    """The one slice of a scan, with the views of the settings."""
    job = next(jobs(prepare(scan, settings), settings, torch.device("cpu")))
    if not isinstance(job.A, SliceProjector):
        raise SystemExit(f"only pixels of slices of projections can be divided, and this is {job.A!r}")
    return job.y, job.A


def best_total_variation(kept: Views, others: Views, _: ReconSettings, n_parts: int) -> tuple[float, float]:
    """The least error of all weights, and the seconds of one of them."""
    y, A = kept
    found, seconds = [], []
    for weight in WEIGHTS:
        result = CGTotalVariation(weight, subpixels=1)(y, through(A, n_parts))  # so that the parts come back
        found.append(error(result.image, others, n_parts))
        seconds.append(result.seconds)
    return min(found), sum(seconds) / len(seconds)


def fit(kept: Views, others: Views, settings: ReconSettings, n_parts: int) -> tuple[float, float]:
    """The error of ``dip``, and its seconds."""
    own = replace(settings, sets=WHOLE) if n_parts == 1 else settings
    start = time.perf_counter()
    leg = next(DeepImagePrior(own.fit_config("ct", 2)).course(*kept))
    leg.run()
    image = leg.fit.ending.chosen[0] / leg.fit.problem.scale  # before its parts are joined
    return error(image, others, n_parts), time.perf_counter() - start


def error(image: Tensor, others: Views, n_parts: int) -> float:
    """Relative error of the predicted views."""
    y, A = others
    chosen = list(range(EVERY // 2, y.shape[1], EVERY))
    predicted = through(SliceProjector(A.grid, A.beam.with_views(chosen)), n_parts)(image)
    return float((predicted - y[:, chosen]).norm() / y[:, chosen].norm())


def through(A: SliceProjector, n_parts: int) -> SliceProjector:
    """The projector through whole pixels as it is, or through their parts."""
    return through_parts(A, n_parts) if n_parts > 1 else A


if __name__ == "__main__":
    main()
