"""What the first weights and the size of the steps change: gains of the kernels against rates of Muon and of Adam.

Run as ``DIPMED_DATA=DIR python scripts/study_steps.py --json FILE --work FOLDER``. Every fit has one size of
network, small or that of the preset, and one number of iterations; before it, all convolution kernels are multiplied by
a gain. A rate counts as stable when the fit never fell back after a divergence. One line of JSON a fit: those that the
file holds are not run again. Prints Markdown tables at the end.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import prepare_case
from benchmark_methods import NETWORK, modality_of
from result_rows import add_row, read_rows

from dipmed.baselines import BASELINES
from dipmed.compare import find_reference
from dipmed.dip import DeepImagePrior
from dipmed.dip.fit import Fit
from dipmed.dip.methods import FIT_METHODS, FitMethod
from dipmed.evaluate import score
from dipmed.jobs import Job, jobs
from dipmed.prepare import prepare
from dipmed.scan import DivergedError
from dipmed.settings import ReconSettings

GAINS = (0.25, 1.0, 4.0)
RATES = {"muon": (0.003, 0.01, 0.03, 0.1, 0.3, 1.0), "adam": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)}
METHODS = ("dip-vanilla", "dip")
CLASSICAL = {"mri": ("l1-wavelet", 0.002)}
INTERVAL = 10


@dataclass(frozen=True)
class Trial:
    """One fit."""

    case: str
    method: str
    optimizer: str
    rate: float
    gain: float
    iterations: int
    full: bool = False
    seed: int = 0


def watched(kind: type[FitMethod]) -> FitMethod:
    """The method, which remembers whether a fit fell back."""

    class Watched(kind):  # type: ignore[misc, valid-type]
        fell_back: ClassVar[bool] = False

        def result(self, fit: Fit, image: Tensor) -> Tensor:
            type(self).fell_back |= fit.rate_factor < 1
            return super().result(fit, image)

    return Watched()


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated scans and reference images")
    parser.add_argument("--cases", default="brain8-R4", help="of scripts/benchmark_cases.py")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--gains", type=float, nargs="+", default=GAINS)
    parser.add_argument("--muon", type=float, nargs="*", default=RATES["muon"], metavar="RATE")
    parser.add_argument("--adam", type=float, nargs="*", default=RATES["adam"], metavar="RATE")
    parser.add_argument("--full", action="store_true", help="the network of the preset, not a small one")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    rows = read_rows(chosen.json)
    done = {Trial(**row["trial"]) for row in rows}
    for trial in trials(chosen):
        if trial in done:
            continue
        rows.append({"trial": asdict(trial), **run(trial, chosen.work)})
        add_row(chosen.json, rows[-1])
        print(trial, rows[-1]["psnr"], rows[-1]["stable"], flush=True)
    show(rows)


def trials(chosen: argparse.Namespace) -> Iterator[Trial]:
    """Every gain with every rate."""
    rates = [(name, rate) for name in RATES for rate in getattr(chosen, name)]
    for case, method, gain, (optimizer, rate), seed in itertools.product(
        chosen.cases.split(","), chosen.methods.split(","), chosen.gains, rates, chosen.seeds
    ):
        yield Trial(case, method, optimizer, rate, gain, chosen.iterations, chosen.full, seed)


def run(trial: Trial, work: Path) -> dict[str, Any]:
    """Fit once; the row holds the score of the last image, and when the classical one was reached."""
    prepared = prepare_case(trial.case, work)
    rate = {"muon": "rate", "adam": "adam_rate"}[trial.optimizer]
    sets = (
        *(() if trial.full else NETWORK),
        f"gain={trial.gain}",
        f"seed={trial.seed}",
        f"iterations={trial.iterations}",
        f"optimizer={trial.optimizer}",
        f"{rate}={trial.rate}",
        "stop=budget",
        "schedule=cosine",
    )
    settings = ReconSettings(
        **{name: getattr(prepared.settings, name) for name in ("undersample", "views", "matrix", "slices")},
        device="cpu",
        method=trial.method,
        sets=sets,
    )
    target, support = find_reference(prepared.scan, settings, prepared.reference)
    job = next(jobs(prepare(prepared.scan, settings), settings, torch.device("cpu")))
    curve: list[tuple[int, float]] = []
    method = watched(FIT_METHODS[trial.method])
    fit = DeepImagePrior(
        settings.fit_config(modality_of(trial.case), 2),
        method=method,
        A_final=job.A_final,
        observer=lambda i, image: curve.append((i, score(image.numpy(), target, support).psnr)),
        observer_interval=INTERVAL,
    )
    goal = classical(trial.case, job, target, support)
    try:
        fit(job.y, job.A)
    except DivergedError:
        return {"psnr": None, "stable": False, "reached": None, "goal": goal}
    reached = next((iteration for iteration, psnr in curve if psnr >= goal), None)
    return {"psnr": curve[-1][1], "stable": not type(method).fell_back, "reached": reached, "goal": goal}


def classical(case: str, job: Job, target: Any, support: Any) -> float:
    """PSNR of the classical method that the fits are to reach."""
    name, weight = CLASSICAL[modality_of(case)]
    return score(BASELINES[name](weight)(job.y, job.A).image[0].numpy(), target, support).psnr


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table of PSNR over rates for each kind of fit, a line for every gain and seed."""
    shared = ("case", "method", "optimizer", "iterations", "full")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row["trial"].get(name, False) for name in shared), []).append(row)
    for (case, method, optimizer, iterations, full), members in groups.items():
        rates = sorted({row["trial"]["rate"] for row in members})
        size = "the preset's network" if full else "a small network"
        print(f"\n{case}, {method}, {optimizer}, {iterations} iterations, {size}: PSNR dB\n")
        columns = ["gain", "seed", *(f"{rate:g}" for rate in rates), "largest stable", "best", "reached classical"]
        print("| " + " | ".join(columns) + " |")
        print("|---" * len(columns) + "|")
        lines: dict[tuple[float, int], dict[float, dict[str, Any]]] = {}
        for row in members:
            lines.setdefault((row["trial"]["gain"], row["trial"].get("seed", 0)), {})[row["trial"]["rate"]] = row
        for (gain, seed), found in sorted(lines.items()):
            cells = " | ".join(cell(found.get(rate)) for rate in rates)
            print(f"| {gain:g} | {seed} | {cells} | {summary(found)} |")


def cell(row: dict[str, Any] | None) -> str:
    """PSNR; a fit that fell back once is in brackets, one that was given up is a dash."""
    if row is None:
        return ""
    if row["psnr"] is None:
        return "–"
    return f"{row['psnr']:.2f}" if row["stable"] else f"({row['psnr']:.2f})"


def summary(found: dict[float, dict[str, Any]]) -> str:
    """The largest rate up to which all fits were stable, the best PSNR, the first iteration of classical quality."""
    stable = None
    for rate, row in sorted(found.items()):
        if not row["stable"]:
            break
        stable = rate
    best = max((row["psnr"] for row in found.values() if row["psnr"] is not None), default=float("nan"))
    reached = min((row["reached"] for row in found.values() if row["reached"] is not None), default="never")
    return f"{'none' if stable is None else f'{stable:g}'} | {best:.2f} | {reached}"


if __name__ == "__main__":
    main()
