"""What a share of the input image in the returned one gains, of CT: scores by share, for fits of several lengths.

Run as ``DIPMED_DATA=DIR python scripts/study_share.py --json FILE --work FOLDER``. One line of JSON a fit: those that
the file holds are not run again. Prints a Markdown table of means over the seeds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import CASES, prepare_case
from result_rows import add_row, read_rows

from dipmed.dip import DeepImagePrior
from dipmed.dip.fit import Fit
from dipmed.dip.methods.plain import Default
from dipmed.evaluate import score
from dipmed.settings import with_preset
from operators import block_means

SHARES = (0.0, 0.2, 0.3, 0.4, 0.6, 1.0)


class Apart(Default):
    """The default, which keeps the two images that it mixes, in the units of the data."""

    def result(self, fit: Fit, image: Tensor) -> Tensor:
        n_parts, scale = fit.config.subpixels, fit.problem.scale
        if fit.first_image is not None:
            self.of_network, self.of_input = (
                block_means(x[0], n_parts, (1, 2)) / scale for x in (image, fit.first_image)
            )
        return super().result(fit, image)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated scans and reference images")
    cases = [name for name, case in CASES.items() if "views" in case.settings]
    parser.add_argument("--cases", default=",".join(cases), help=f"of {', '.join(cases)}")
    parser.add_argument("--iterations", type=int, nargs="+", default=[150, 400])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    rows = read_rows(chosen.json)
    for case in chosen.cases.split(","):
        for iterations in chosen.iterations:
            for seed in chosen.seeds:
                key = {"case": case, "iterations": iterations, "seed": seed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                rows.append({**key, **run(case, iterations, seed, chosen.work)})
                add_row(chosen.json, rows[-1])
                print(rows[-1], flush=True)
    show(rows)


def run(case: str, iterations: int, seed: int, work: Path) -> dict[str, Any]:
    """Fit once, and score the mixtures."""
    prepared = prepare_case(case, work, 2)
    target, support = prepared.target()
    job = prepared.job()
    config = with_preset(prepared.scan, prepared.settings).fit_config("ct", 2).replace(iterations=iterations, seed=seed)
    method = Apart()
    start = time.perf_counter()
    DeepImagePrior(config, method=method)(job.y, job.A)
    seconds = time.perf_counter() - start
    scores = {}
    for share in SHARES:
        result = score(method.of_network.lerp(method.of_input, share)[0], target, support)
        scores[str(share)] = [result.psnr, result.ssim]
    return {"seconds": seconds, "scores": scores}


def show(rows: list[dict[str, Any]]) -> None:
    """Print means over the seeds."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["case"], row["iterations"]].append(row)
    print("\n| scan | iterations | n | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |")
    print("|---" * (3 + len(SHARES)) + "|")
    for (case, iterations), group in groups.items():
        cells = []
        for share in SHARES:
            psnr, ssim = (statistics.fmean(row["scores"][str(share)][of] for row in group) for of in (0, 1))
            cells.append(f"{psnr:.2f}, {ssim:.3f}")
        print(f"| {case} | {iterations} | {len(group)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
