"""Quality and time of every method on few views of CT scans, measured and simulated.

Run as ``DIPMED_DATA=DIR python scripts/benchmark_ct.py --json FILE [--cases a,b] [--views N ...]``. The classical
methods get the best of a sweep of their weight, iterations or filter by PSNR, chosen with the reference in hand; the
fits get one setting for all scans. Measured scans are judged against total variation over all their views, simulated
ones against the volume that they were made from. One line of JSON a row: rows that the file holds already are not run
again. Prints Markdown tables at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from benchmark_cases import WHOLE
from result_rows import add_row, read_rows

from dipmed.compare import compare, find_reference
from dipmed.ct_baselines import SIRT, CGTotalVariation, FilteredBackProjection, LeastSquares
from dipmed.evaluate import score
from dipmed.io import load, save_image
from dipmed.jobs import jobs
from dipmed.prepare import prepare
from dipmed.scan import ImageVolume, Reconstruction, Scan
from dipmed.settings import ReconSettings
from dipmed.simulate import ProjectionSettings, read_volume, save_simulation, simulate
from operators.fbp import Filter

PHOTONS = 1e5
FITS = ("dip",)


@dataclass(frozen=True)
class Case:
    """A scan, which views of it are kept, and the size of the image; ``slice`` of a volume makes it a simulation."""

    path: str
    views: tuple[int, ...]
    matrix: int | None = None
    slice: int | None = None


CASES = {
    "ct_htc_tb_fan": Case("ct_htc_tb_fan/htc2022_tb_merged.mat", (20, 30, 60), matrix=256),
    "ct_tooth_parallel": Case("ct_tooth_parallel/tooth.h5", (31,), matrix=256),
    "nifti_ct_lung1": Case("nifti_ct_lung1/lung1_crop.nii.gz", (18, 30, 60), slice=7),
    "dicom_ct_plastichead": Case("dicom_ct_plastichead", (18, 30, 60), slice=8),
}

_SWEEPS: dict[str, dict[Any, Callable[[Any, Any], Reconstruction]]] = {
    "fbp": {name: FilteredBackProjection(name) for name in get_args(Filter)},
    "sirt": {n: SIRT(n) for n in (25, 50, 100, 200)},
    "cg-ls": {lam: LeastSquares(lam) for lam in (1e-4, 1e-3, 1e-2)},
    "cg-tv": {lam: CGTotalVariation(lam) for lam in (1e-5, 3e-5, 6e-5, 1.2e-4, 2.4e-4, 5e-4)},
}


def main() -> None:
    """Parse the options, run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--views", type=int, nargs="+", help="only these numbers of views")
    parser.add_argument("--methods", default=",".join((*_SWEEPS, *FITS)), help="rows to run")
    parser.add_argument(
        "--whole", action="store_true", help="leave the pixels of fits, of cg-tv and of references whole"
    )
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    chosen = parser.parse_args()
    data = Path(os.environ["DIPMED_DATA"])
    rows = read_rows(chosen.json)
    for name in chosen.cases.split(","):
        for n_views in CASES[name].views:
            if chosen.views and n_views not in chosen.views:
                continue
            done = {row["method"] for row in rows if (row["case"], row["views"]) == (name, n_views)}
            missing = [method for method in chosen.methods.split(",") if method not in done]
            for row in run_case(data, CASES[name], n_views, missing, whole=chosen.whole) if missing else ():
                rows.append({"case": name, "views": n_views, **row})
                add_row(chosen.json, rows[-1])
    show(rows)


def run_case(data: Path, case: Case, n_views: int, methods: list[str], *, whole: bool) -> Iterator[dict[str, Any]]:
    """Run the methods on one scan with so many views, a row each."""
    subpixels = 1 if whole else CGTotalVariation.subpixels
    with tempfile.TemporaryDirectory() as folder:
        scan, reference = open_case(data, case, n_views, Path(folder))
        sets = WHOLE if whole else ()
        settings = ReconSettings(views=n_views, matrix=case.matrix, slices=(0, 1), device="cpu", sets=sets)
        target, support = find_reference(scan, settings, reference, subpixels=subpixels)
        file = Path(folder) / "target.npz"  # so that all views are reconstructed once for all methods
        save_image(ImageVolume(target[:, :, None], scan.affine), file)
        for method in methods:
            if method in _SWEEPS:
                yield sweep(method, scan, settings, target, support, subpixels)
            else:
                row = compare(scan, [method], settings, reference=str(file)).rows[0]
                yield {**row, "setting": None}


def open_case(data: Path, case: Case, n_views: int, folder: Path) -> tuple[Scan, str]:
    """Return the scan, and where its reference is found."""
    if case.slice is None:
        return load(data / case.path), "full"
    volume = read_volume(data / case.path, "ct")
    settings = ProjectionSettings(n_views, "fan", photons=PHOTONS)
    save_simulation(simulate(volume, settings, (case.slice, case.slice + 1)), folder / "scan.h5")
    return load(folder / "scan.h5"), str(folder / "scan.reference.nii.gz")


def sweep(
    method: str, scan: Scan, settings: ReconSettings, target: NDArray[Any], support: NDArray[Any], subpixels: int
) -> dict[str, Any]:
    """Return the row of the setting with the highest PSNR."""
    job = next(jobs(prepare(scan, settings), settings, torch.device("cpu")))
    found = []
    for setting, reconstructor in _SWEEPS[method].items():
        if isinstance(reconstructor, CGTotalVariation):
            reconstructor = replace(reconstructor, subpixels=subpixels)
        result = reconstructor(job.y, job.A)
        scores = score(result.image[0].numpy(), target, support)
        found.append({**asdict(scores), "setting": setting, "seconds_fit": result.seconds})
    best = max(found, key=lambda row: row["psnr"])
    return {"method": method, **best, "iterations": None, "regret": None, "stop": None, "swept": found}


def show(rows: list[dict[str, Any]]) -> None:
    """Print a table for each case and number of views."""
    for case, views in dict.fromkeys((row["case"], row["views"]) for row in rows):
        print(f"\n### {case}, {views} views\n")
        print("| method | best setting | PSNR dB | SSIM | NRMSE | seconds | iterations | stop | regret dB |")
        print("|---|---|---|---|---|---|---|---|---|")
        for row in rows:
            if (row["case"], row["views"]) == (case, views):
                stop = "" if row["stop"] is None else f"{row['stop']['rule']} at {row['stop']['iteration']}"
                regret = "" if row["regret"] is None else f"{row['regret']:.2f}"
                setting = "" if row["setting"] is None else row["setting"]
                scores = f"{row['psnr']:.2f} | {row['ssim']:.4f} | {row['nrmse']:.4f}"
                end = f"{row['seconds_fit']:.1f} | {row['iterations'] or ''} | {stop} | {regret}"
                print(f"| {row['method']} | {setting} | {scores} | {end} |")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
