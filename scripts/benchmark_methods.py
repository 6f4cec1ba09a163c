"""Every method on every scan at one number of iterations, one network size and one budget of tuning.

Run as ``DIPMED_DATA=DIR python scripts/benchmark_methods.py --json FILE --work FOLDER``. With ``--sweep`` each
fit runs at several rates of Muon and of Adam on two tuning scans; without, at the best of them where the file
knows it. With ``--iterations 0`` methods run in the size and for the iterations of their presets. One line of JSON a
row: rows that the file holds are not run again. Each runs in a process of its own on one core, ``--jobs`` of them at a
time. ``WORK/mri.safetensors`` and ``WORK/ct.safetensors``, made by `scripts/pretrain.py`,
are the weights of the methods that start from some; their networks have the sizes of those files.
`scripts/render_methods.py` makes tables and plots of the rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import CASES, WHOLE, prepare_case
from result_rows import add_row, read_rows

from dipmed.config import find_preset
from dipmed.methods import METHODS

NETWORK = ("network.channels=32,32,32,32", "network.skip_channels=8", "network.up_channels=16")
WATCH = "watch=windowed-variance,exponential-variance,spectral-band"
"""Rules that say of each run what they would have chosen; those that need data of their own are left out."""

TO_THE_END = {"ct": ("stop=budget",), "mri": ()}
"""Of fits at one number of iterations: published methods for CT would hold views out, and end at another number."""

SWEPT_CASES = {"mri": "brain8-R4", "ct": "htc-30"}
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "": (),
    "muon-0.01": ("optimizer=muon", "rate=0.01"),
    "muon-0.03": ("optimizer=muon", "rate=0.03"),
    "adam-0.005": ("optimizer=adam", "adam_rate=0.005"),
}
WEIGHTS = {
    "cg-sense": (0.005, 0.01, 0.02),
    "l1-wavelet": (0.001, 0.002, 0.005, 0.01),
    "tv": (0.001, 0.002, 0.003, 0.005, 0.01),
    "cg-ls": (1e-4, 1e-3, 1e-2),
    "cg-tv": (1.5e-5, 3e-5, 6e-5, 1.2e-4, 2.4e-4, 5e-4),
}
"""Of classical methods, the best by PSNR with the reference in hand."""


@dataclass(frozen=True)
class Task:
    """One row: ``optimizer`` names a line of `OPTIMIZERS`, the empty one for the method's own rates.

    A fit of no ``iterations`` is one as the method's preset has it, in its size; classical methods have none.
    ``subpixels`` are the parts of the pixels of slices of CT, of the reference too: 1 in the common table, since no
    published method has any, and those of the preset where fits have its size.
    """

    case: str
    method: str
    seed: int
    iterations: int
    optimizer: str = ""
    subpixels: int = 1


def main() -> None:
    """Parse the options and run what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    parser.add_argument("--work", type=Path, required=True, help="folder for simulated scans and reference images")
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    untaught = [name for name, method in METHODS.items() if not (method.takes_weights or method.takes_series)]
    parser.add_argument("--methods", default=",".join(untaught), help="rows to run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--iterations", type=int, default=400, help="of each fit; 0 for those of its preset, with the network of that"
    )
    parser.add_argument("--sweep", action="store_true", help="optimizers and rates, on the swept scans alone")
    parser.add_argument(
        "--optimizers", default=",".join(OPTIMIZERS), help="of the sweep; an empty name for a method's own"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    rows = read_rows(chosen.json)
    done = {Task(**row["task"]) for row in rows}
    methods = chosen.methods.split(",")
    if chosen.sweep:
        wanted = sweep_tasks(chosen.cases.split(","), methods, chosen.optimizers.split(","), chosen.iterations)
    else:
        wanted = table_tasks(rows, chosen.cases.split(","), methods, chosen.seeds, chosen.iterations)
    tasks = [task for task in wanted if task not in done]
    for case in dict.fromkeys(task.case for task in tasks):
        for subpixels in {task.subpixels for task in tasks if task.case == case}:
            prepare_case(case, chosen.work, subpixels)  # so that no two processes make the same files
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(chosen.jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(run, task, chosen.work): task for task in tasks}
        for future in as_completed(futures):
            row = {"task": asdict(futures[future]), **future.result()}
            add_row(chosen.json, row)
            print(describe(row), flush=True)


def sweep_tasks(cases: list[str], methods: list[str], optimizers: Iterable[str], iterations: int) -> Iterator[Task]:
    """Every fit with every optimizer, on one scan of each kind."""
    for optimizer in optimizers:
        for modality, case in SWEPT_CASES.items():
            for name in methods if case in cases else ():
                if METHODS[name].is_fit and modality in METHODS[name].modalities:
                    yield Task(case, name, 0, iterations, optimizer)


def table_tasks(
    rows: list[dict[str, Any]], cases: Iterable[str], methods: list[str], seeds: Iterable[int], iterations: int
) -> Iterator[Task]:
    """Every method on every scan, each fit with the optimizer that did best in the sweep."""
    for seed in seeds:
        for case in cases:
            modality = modality_of(case)
            for name in methods:
                method = METHODS[name]
                if modality not in method.modalities or (seed and not method.is_fit):
                    continue
                best = best_optimizer(rows, name, modality) if method.is_fit and iterations else ""
                parts = find_preset("ct-2d").subpixels if modality == "ct" and not iterations else 1
                yield Task(case, name, seed, iterations if method.is_fit else 0, best, parts)


def modality_of(case: str) -> str:
    """Whether a case is of k-space or of projections."""
    return "ct" if "views" in CASES[case].settings else "mri"


def best_optimizer(rows: list[dict[str, Any]], method: str, modality: str) -> str:
    """The optimizer that gave the highest PSNR at the stop in the sweep; the method's own where there was none."""
    case = SWEPT_CASES[modality]
    tried = [row for row in rows if (row["task"]["method"], row["task"]["case"]) == (method, case) and row["psnr"]]
    return max(tried, key=lambda row: row["psnr"])["task"]["optimizer"] if tried else ""


def run(task: Task, work: Path) -> dict[str, Any]:
    """Run one row, in a process of its own; an error is a row as well."""
    import torch

    from dipmed.record import peak_memory_mib
    from dipmed.scan import DipmedError

    torch.set_num_threads(1)
    start = time.process_time()
    try:
        row = run_fit(task, work) if METHODS[task.method].is_fit else run_classical(task, work)
    except DipmedError as error:
        return {"psnr": None, "error": " ".join(str(error).split())}
    return {**row, "cpu_seconds": time.process_time() - start, "peak_memory_mib": peak_memory_mib()}


def run_fit(task: Task, work: Path) -> dict[str, Any]:
    """Fit one method to one scan, with the common network unless the method is about the network."""
    from dataclasses import replace

    from dipmed.compare import compare
    from dipmed.io.weights_file import load_weights

    prepared = prepare_case(task.case, work, task.subpixels)
    method = METHODS[task.method]
    network = () if "network" in method.fit.changes or method.takes_weights else NETWORK
    modality = modality_of(task.case)
    whole = WHOLE if (task.method, modality) == ("dip", "ct") else ()
    size = (*network, f"iterations={task.iterations}", *whole, *TO_THE_END[modality]) if task.iterations else ()
    sets = (*size, f"seed={task.seed}", WATCH, *OPTIMIZERS[task.optimizer])
    file = work / f"{modality}.safetensors"
    weights = load_weights(file) if method.takes_weights and file.exists() else None
    settings = replace(prepared.settings, sets=sets, weights=weights)
    return compare(prepared.scan, [task.method], settings, reference=prepared.reference).rows[0]


def run_classical(task: Task, work: Path) -> dict[str, Any]:
    """Run a classical method at the best of its weights."""
    from dataclasses import replace

    from dipmed.baselines import BASELINES
    from dipmed.ct_baselines import CT_BASELINES, CGTotalVariation
    from dipmed.evaluate import score

    prepared = prepare_case(task.case, work, task.subpixels)
    target, support = prepared.target()
    job = prepared.job()
    make = (BASELINES | CT_BASELINES)[task.method]
    found = []
    for weight in WEIGHTS.get(task.method, (None,)):
        reconstruct = make() if weight is None else make(weight)
        if isinstance(reconstruct, CGTotalVariation):
            reconstruct = replace(reconstruct, subpixels=task.subpixels)
        result = reconstruct(job.y, job.A)
        scores = score(result.image[0], target, support)
        found.append({**asdict(scores), "weight": weight, "seconds_fit": result.seconds})
    return max(found, key=lambda row: row["psnr"])


def describe(row: dict[str, Any]) -> str:
    """One line about a row."""
    task = row["task"]
    head = f"{task['case']} {task['method']} {task['optimizer']} seed {task['seed']}"
    if row["psnr"] is None:
        return f"{head}: {row['error']}"
    return f"{head}: {row['psnr']:.2f} dB, {row['ssim']:.3f}, {row['seconds_fit']:.1f} s, regret {row.get('regret')}"


if __name__ == "__main__":
    main()
