"""Total variation that a fit of CT begins with: preconditioned conjugate gradients against plain ones, in one run.

Run as ``DIPMED_DATA=DIR OMP_NUM_THREADS=1 python scripts/benchmark_variation.py --work FOLDER``. The scans are those of
`scripts/benchmark_cases.py`, with pixels in parts; both ways take turns. Prints seconds, the least of the repetitions,
rounds, and how far the image is from the one that many more rounds lead to, and from the reference.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import prepare_case

from dipmed import solvers
from dipmed.dip.problem import Problem, make_problem
from dipmed.evaluate import score
from dipmed.settings import with_preset
from operators import block_means, through_parts


def main() -> None:
    """Print a row for each scan and way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated scans and reference images")
    parser.add_argument("--cases", default="lung1-18,lung1-30,lung1-60,head-30,htc-30,tooth-31")
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    print("| scan | seconds: plain | preconditioned | ratio | rounds | from the limit | PSNR dB |")
    print("|---|---|---|---|---|---|---|")
    for name in chosen.cases.split(","):
        print(row(name, chosen.work, chosen.repeats), flush=True)


def row(name: str, work: Path, repeats: int) -> str:
    """Both ways, one after the other, as often as asked for."""
    prepared = prepare_case(name, work, 2)
    config = with_preset(prepared.scan, prepared.settings).fit_config("ct", 2)
    target, support = prepared.target()
    job = prepared.job()
    problem = make_problem(
        job.y,
        through_parts(job.A, config.subpixels),
        kspace_exponent=config.kspace_exponent,
        held_out=None,
        noise_variance=None,
        generator=torch.Generator().manual_seed(0),
    )
    seen, lam = problem.for_input(), config.variation_weight
    limit, _ = solvers.total_variation_image(*seen, lam, max_iter=600, inner=10, tol=1e-6)
    near_inverse = solvers._near_inverse
    least, rounds, distances, psnr = [math.inf] * 2, [0] * 2, [0.0] * 2, [0.0] * 2
    for _ in range(repeats):
        for way, inverse in enumerate((lambda *_: lambda v: v, near_inverse)):
            solvers._near_inverse = inverse
            start = time.perf_counter()
            found, changes = solvers.total_variation_image(*seen, lam)
            least[way], rounds[way] = min(least[way], time.perf_counter() - start), len(changes)
            distances[way] = float((found - limit).norm() / limit.norm())
            psnr[way] = score(shown(found, problem, config.subpixels)[0], target, support).psnr
    solvers._near_inverse = near_inverse
    return (
        f"| {name} | {least[0]:.2f} | {least[1]:.2f} | {least[0] / least[1]:.2f} | {rounds[0]}, {rounds[1]} "
        f"| {distances[0]:.2%}, {distances[1]:.2%} | {psnr[0]:.2f}, {psnr[1]:.2f} |"
    )


def shown(found: Tensor, problem: Problem, n_parts: int) -> Tensor:
    """Whole pixels in the units of the data."""
    return block_means(found, n_parts, (1, 2)) / problem.scale


if __name__ == "__main__":
    main()
