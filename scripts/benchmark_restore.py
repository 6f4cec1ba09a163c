"""Quality of `dipmed restore` beside the classical methods, on parts of real slices whose truth is known.

Run as ``DIPMED_DATA=DIR python scripts/benchmark_restore.py --json FILE [--cases a,b]``. Noise, thick slices, holes and
blur are added to real images. The classical methods get the best of a sweep by PSNR, chosen with the truth in hand; the
fits get the presets, and the noise level estimated from the data. PSNR is of all voxels, for holes of those alone;
regret is the best PSNR along a fit of all data, looked at every 25 iterations, less that of the image that was
returned. One line of JSON a case: cases that the file holds already are not run again. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from result_rows import add_row, read_rows
from scipy.ndimage import map_coordinates
from skimage import restoration
from torch import Tensor

from dipmed.image_pieces import Task, pieces
from dipmed.io.images import load_image
from dipmed.io.source_volume import SourceVolume
from dipmed.restore import RestoreSettings, restore
from dipmed.scan import ImageVolume
from dipmed.settings import ReconSettings
from dipmed.solvers import total_variation_image
from operators import norm_bound

Plane = NDArray[np.float32]

_BRAIN = ("nifti_mr_ch2bet/ch2bet.nii.gz", (slice(42, 138), slice(60, 156), 90))
_SAGITTAL = ("nifti_mr_ch2bet/ch2bet.nii.gz", (slice(40, 136), 110, slice(30, 126)))
_PHANTOM = ("dicom_mr_acr_skyra", (slice(80, 176), slice(76, 172), 1))
_CHEST = ("nifti_ct_lung1/lung1_crop.nii.gz", (slice(200, 296), slice(150, 246), 7))


@dataclass(frozen=True)
class Case:
    """Part of a plane of a volume, voxels of 1 mm, the noise in its units, and what is to be undone."""

    part: tuple[str, tuple[Any, ...]]
    sigma: float
    task: Task
    rician: bool = False


CASES = {
    "denoise brain 5 %": Case(_BRAIN, 6.65, Task("denoise")),
    "denoise brain 10 %": Case(_BRAIN, 13.3, Task("denoise")),
    "denoise brain 10 %, Rician": Case(_BRAIN, 13.3, Task("denoise"), rician=True),
    "denoise phantom 5 %": Case(_PHANTOM, 54.0, Task("denoise")),
    "denoise chest 60 HU": Case(_CHEST, 60.0, Task("denoise")),
    "superres brain x 4": Case(_SAGITTAL, 2.0, Task("superres", factor=4)),
    "inpaint brain, half and a square": Case(_BRAIN, 2.0, Task("inpaint")),
    "deblur brain 3 mm": Case(_BRAIN, 2.0, Task("deblur", fwhm_mm=3.0)),
    "deblur chest 3 mm": Case(_CHEST, 10.0, Task("deblur", fwhm_mm=3.0)),
}


def main() -> None:
    """Parse the options, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES).replace(", ", "; "), help="names, with commas between them")
    parser.add_argument("--json", type=Path, required=True, help="rows, one a line; kept and added to")
    chosen = parser.parse_args()
    rows = read_rows(chosen.json)
    for name in (text.replace("; ", ", ") for text in chosen.cases.split(",")):
        if name not in {row["case"] for row in rows}:
            rows.append({"case": name, **run_case(CASES[name])})
            add_row(chosen.json, rows[-1])
            print(rows[-1], flush=True)
    show(rows)


def run_case(case: Case) -> dict[str, Any]:
    """Spoil a plane, and restore it by every method that is for the task."""
    truth = load_truth(case)
    known = inpainting_mask(truth.shape) if case.task.name == "inpaint" else None
    volume = spoil(truth, case, known)
    where = np.ones(truth.shape, bool) if known is None else ~known
    classical = {
        name: max((psnr(image, truth, where), setting) for setting, image in method(volume, case, known).items())
        for name, method in CLASSICAL[case.task.name].items()
    }
    curve: list[float] = []
    darkest = volume.data.min() if known is None else volume.data[:, :, 0][known].min()

    def observe(_: int, image: Tensor) -> None:
        curve.append(psnr(image[0].numpy() + darkest, truth, where))

    settings = RestoreSettings(case.task, fit=ReconSettings(device="cpu"))
    source, holes = SourceVolume(volume), None if known is None else ~known[:, :, None]
    found = restore(source, settings, holes, observer=observe)
    if settings.config().refit == "restart":  # the second fit, of all data, ends where the first told it to
        whole = replace(settings, fit=ReconSettings(device="cpu", changes={"stop": "budget"}))
        restore(source, whole, holes, observer=observe)
    part, final = found.parts[0], psnr(plane_of(found.volume), truth, where)
    return {
        "classical": classical,
        "dip": final,
        "regret": max(0.0, max(curve) - final),
        "stop": f"{part.stop.rule} at {part.stop.iteration} of {part.iterations}",
        "seconds": part.seconds,
        "sigma": (case.sigma, found.sigma),
    }


def load_truth(case: Case) -> Plane:
    """Return the part of the plane, ``(x, y)``."""
    path, part = case.part
    return np.ascontiguousarray(load_image(Path(os.environ["DIPMED_DATA"]) / path).data[part])


def inpainting_mask(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Half of the voxels at random, without a square."""
    known = np.random.default_rng(0).random(shape) < 0.5
    known[40:52, 40:52] = False
    return known


def spoil(truth: Plane, case: Case, known: NDArray[np.bool_] | None) -> ImageVolume:
    """Apply what the task undoes and add noise; a volume of one plane ``(x, y, 1)``, for thick slices ``(x, 1, z)``."""
    random = np.random.default_rng(0)
    y = truth
    if case.task.name in ("deblur", "superres"):
        whole = volume_of(np.zeros((truth.shape[0], truth.shape[1] // (case.task.factor or 1)), np.float32), case)
        A = next(pieces(whole, case.task, None)).A
        y = A(torch.from_numpy(truth)[None])[0].numpy()
    y = y + case.sigma * random.standard_normal(y.shape)
    if case.rician:
        y = np.hypot(y, case.sigma * random.standard_normal(y.shape))
    y = y if known is None else np.where(known, y, 0)
    return volume_of(y.astype(np.float32), case)


def volume_of(plane: Plane, case: Case) -> ImageVolume:
    """Make a volume of one plane."""
    if case.task.name == "superres":
        return ImageVolume(plane[:, None, :], np.diag([1.0, 1.0, float(case.task.factor or 1), 1.0]))
    return ImageVolume(plane[:, :, None], np.eye(4))


def plane_of(volume: ImageVolume) -> Plane:
    """Take it out again."""
    return volume.data[:, 0, :] if volume.data.shape[1] == 1 else volume.data[:, :, 0]


def psnr(image: Plane, truth: Plane, where: NDArray[np.bool_]) -> float:
    """Peak signal-to-noise ratio in dB over some voxels, the peak being the range of the truth."""
    return float(10 * np.log10(np.ptp(truth) ** 2 / np.mean((image - truth)[where] ** 2)))


Images = dict[float, Plane]
"""Images by the setting that made them."""


def as_given(volume: ImageVolume, *_: Any) -> Images:
    """Nothing."""
    return {0: plane_of(volume)}


def non_local_means(volume: ImageVolume, case: Case, _: NDArray[np.bool_] | None) -> Images:
    """Non-local means with the true noise level, by strength in units of it."""
    y, options = plane_of(volume), {"patch_size": 5, "patch_distance": 5, "fast_mode": False, "sigma": case.sigma}
    return {
        h: restoration.denoise_nl_means(y, h=h * case.sigma, **options) for h in (0.5, 0.7, 0.8, 0.9, 1.0, 1.2, 1.5)
    }


def wavelets(volume: ImageVolume, case: Case, _: NDArray[np.bool_] | None) -> Images:
    """Wavelet shrinkage averaged over shifts."""
    y = plane_of(volume)
    low, width = y.min(), np.ptp(y)
    shrunk = restoration.cycle_spin(
        (y - low) / width,
        max_shifts=3,
        func=restoration.denoise_wavelet,
        func_kw={"sigma": case.sigma / width},
        workers=1,
    )
    return {0: low + width * shrunk}


def total_variation(volume: ImageVolume, case: Case, known: NDArray[np.bool_] | None) -> Images:
    """Least total variation with the operator, by weight in units of the noise."""
    seen = volume.data if known is None else volume.data[known[:, :, None]]
    darkest, width = seen.min(), np.ptp(seen)
    scaled = ImageVolume((volume.data - darkest) / width, volume.affine)
    piece = next(pieces(scaled, case.task, None if known is None else known[:, :, None]))
    level = case.sigma / width / norm_bound(piece.A)
    images = {}
    for weight in (0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4):
        lam = weight * level
        x, _ = total_variation_image(piece.A, piece.A.adjoint(piece.y), lam, max_iter=100)
        images[weight] = x[0].numpy() * width + darkest
    return images


def interpolation(volume: ImageVolume, case: Case, _: NDArray[np.bool_] | None) -> Images:
    """Splines across the slices, by their order."""
    y, factor = plane_of(volume), case.task.factor or 1
    places = (np.arange(y.shape[1] * factor) + 0.5) / factor - 0.5
    grid = np.meshgrid(np.arange(y.shape[0]), places, indexing="ij")
    return {order: map_coordinates(y, grid, order=order, mode="nearest") for order in (1, 3)}


def biharmonic(volume: ImageVolume, _: Case, known: NDArray[np.bool_] | None) -> Images:
    """Biharmonic inpainting."""
    assert known is not None  # noqa: S101  # the task has holes
    return {0: restoration.inpaint_biharmonic(plane_of(volume), ~known)}


def wiener(volume: ImageVolume, case: Case, _: NDArray[np.bool_] | None) -> Images:
    """Wiener filters by the weight of their roughness, with mirrored edges."""
    y, reach = plane_of(volume), 12
    axis = np.exp(-4 * np.log(2) * (np.arange(-reach, reach + 1) / (case.task.fwhm_mm or 1)) ** 2)
    kernel = np.outer(axis, axis) / axis.sum() ** 2
    padded, inner = np.pad(y, reach, mode="symmetric"), (slice(reach, -reach),) * 2
    weights = (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
    return {weight: restoration.wiener(padded, kernel, weight, clip=False)[inner] for weight in weights}


_TV = {"total variation": total_variation}
CLASSICAL: dict[str, dict[str, Callable[..., Images]]] = {
    "denoise": {"none": as_given, "non-local means": non_local_means, "wavelets": wavelets, **_TV},
    "superres": {"spline": interpolation, **_TV},
    "inpaint": {"biharmonic": biharmonic, **_TV},
    "deblur": {"none": as_given, "Wiener": wiener, **_TV},
}


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    print("\n| case | classical, PSNR dB (setting) | `restore` | gain | regret dB | stop | seconds | σ, estimated |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        cells = [f"{name} {value:.2f} ({setting:g})" for name, (value, setting) in row["classical"].items()]
        gain = row["dip"] - max(value for value, _ in row["classical"].values())
        end = f"{row['regret']:.2f} | {row['stop']} | {row['seconds']:.0f} | {row['sigma'][0]:g}, {row['sigma'][1]:.3g}"
        print(f"| {row['case']} | {', '.join(cells)} | {row['dip']:.2f} | {gain:+.2f} | {end} |")


if __name__ == "__main__":
    main()
