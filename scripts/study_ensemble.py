"""What the mean of several fits gains on one fit: scores of the means of all subsets of each size.

Run as ``DIPMED_DATA=DIR python scripts/study_ensemble.py --json FILE --work FOLDER``. One line of JSON a scan: those
that the file holds are not run again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import CASES, prepare_case
from result_rows import add_row, read_rows

from dipmed.dip.uncertainty import shown_of
from dipmed.evaluate import score
from dipmed.run_job import run_job
from dipmed.settings import with_preset


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated scans and reference images")
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--fits", type=int, default=5, help="seeds of each scan, from 0")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    rows = read_rows(chosen.json)
    for case in chosen.cases.split(","):
        if any(row["case"] == case and len(row["means"]) == chosen.fits for row in rows):
            continue
        rows.append({"case": case, **run(case, chosen.fits, chosen.work)})
        add_row(chosen.json, rows[-1])
        print(rows[-1], flush=True)
    show([row for row in rows if len(row["means"]) == chosen.fits])


def run(case: str, n_fits: int, work: Path) -> dict[str, Any]:
    """Fit with each seed; return the mean PSNR and SSIM of the averages of 1, 2, … of these images."""
    prepared = prepare_case(case, work, 2 if "views" in CASES[case].settings else 1)
    target, support = prepared.target()
    settings = with_preset(prepared.scan, replace(prepared.settings, method="dip"))
    fits = [
        run_job(replace(prepared, settings=seeded).job(), seeded)
        for seeded in (replace(settings, sets=(*settings.sets, f"seed={seed}")) for seed in range(n_fits))
    ]
    images = torch.stack([fit.image for fit in fits])
    means = []
    for n in range(1, n_fits + 1):
        scores = [
            score(shown_of(images[list(subset)].mean(0)), target, support) for subset in combinations(range(n_fits), n)
        ]
        means.append([statistics.fmean(x.psnr for x in scores), statistics.fmean(x.ssim for x in scores)])
    return {"seconds": statistics.fmean(fit.seconds for fit in fits), "means": means}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the scores by how many fits are averaged."""
    n_fits = max((len(row["means"]) for row in rows), default=0)
    print("\n| scan | s a fit | " + " | ".join(f"{n} fit{'s' * (n > 1)}" for n in range(1, n_fits + 1)) + " |")
    print("|---" * (2 + n_fits) + "|")
    for row in rows:
        cells = [f"{psnr:.2f}, {ssim:.4f}" for psnr, ssim in row["means"]]
        print(f"| {row['case']} | {row['seconds']:.0f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
