"""Several methods on the same undersampled scan, judged against the same reference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.calib.centre import sampled_cells
from dipmed.evaluate import SnapshotScores, reference_image, score
from dipmed.io.images import load_image
from dipmed.methods import find_method, make_reconstructor
from dipmed.recon import Job, ReconSettings, jobs, prepare, resolve_device
from dipmed.scan import DipmedError, KSpaceScan, ShapeError

DEFAULT_UNDERSAMPLING = "random:R=4,acs=16,seed=0"

EVERY_FOURTH_READOUT = "equispaced:R=4,acs=0,seed=0"

_FULL_COVERAGE = 0.95
"""Share of the disc of k-space that a reference along a trajectory has to cover."""


@dataclass(frozen=True)
class Comparison:
    """The rows of the table and the magnitude images behind them."""

    rows: list[dict[str, Any]]
    images: dict[str, NDArray[np.float32]]
    reference: NDArray[np.float32]
    undersample: str | None
    slice: int


def compare(
    scan: KSpaceScan,
    methods: Sequence[str],
    settings: ReconSettings,
    *,
    reference: str = "full",
    on_method: Any = None,
) -> Comparison:
    """Run each method on one slice and score it.

    The reference reaches the scores only: the fits get an observer whose findings they never see.

    Parameters
    ----------
    methods
        Names, in the order of the rows.
    settings
        Calibration, undersampling, device and changes for all methods; ``slices`` names one slice, by default the
        middle one.
    reference
        ``"full"`` for the fully sampled scan itself, or the file of an image.
    on_method
        Called with each method's name before it runs.

    Raises
    ------
    DipmedError
        When the scan is not fully sampled and no image is given, or a method is unknown.
    """
    found = [find_method(name) for name in methods]
    if not found:
        raise DipmedError("name at least one method to compare")
    if settings.slices is None and scan.ndim == 2:
        middle = scan.n_slices // 2
        settings = replace(settings, slices=(middle, middle + 1))
    if reference == "full" and settings.undersample is None and settings.mask is None:
        settings = replace(settings, undersample=DEFAULT_UNDERSAMPLING if scan.is_cartesian else EVERY_FOURTH_READOUT)
    target, support = find_reference(scan, settings, reference)
    device = resolve_device(settings.device)
    start = time.perf_counter()
    job = next(jobs(prepare(scan, settings), settings, device))
    calibration = time.perf_counter() - start
    rows, images = [], {}
    for method in found:
        if on_method is not None:
            on_method(method.name)
        row, image = _run(method.name, job, scan.ndim, settings, target, support)
        row["seconds"] = row["seconds_fit"] + calibration
        rows.append(row)
        images[method.name] = image
    first = 0 if settings.slices is None else settings.slices[0]
    return Comparison(rows, images, target, settings.undersample, first)


def _run(
    name: str,
    job: Job,
    ndim: int,
    settings: ReconSettings,
    reference: NDArray[np.float32],
    support: NDArray[np.bool_],
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    method = find_method(name)
    snapshots = SnapshotScores(reference, support)
    config = replace(settings, method=name).fit_config(ndim)
    reconstructor = make_reconstructor(
        method,
        config,
        noise_variance=job.noise_variance,
        A_final=job.A_final,
        observer=snapshots if method.is_fit else None,
    )
    result = reconstructor(job.y, job.A)
    image = np.abs(result.image[0].cpu().numpy()).astype(np.float32)
    scores = score(image, reference, support)
    row: dict[str, Any] = {
        "method": name,
        "psnr": scores.psnr,
        "ssim": scores.ssim,
        "nrmse": scores.nrmse,
        "psnr_raw": scores.psnr_raw,
        "seconds_fit": result.seconds - snapshots.seconds,
        "iterations": result.iterations,
        "stop": {"rule": result.stop.rule, "iteration": result.stop.iteration, "reason": result.stop.reason},
        "regret": max(0.0, snapshots.best_psnr - scores.psnr) if method.is_fit else None,
        "snapshots": snapshots.curve if method.is_fit else [],
    }
    return row, image


def find_reference(
    scan: KSpaceScan, settings: ReconSettings, reference: str
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the magnitude image to score against and where it counts, both ``(x, y[, z])``.

    Raises
    ------
    DipmedError
        When the scan is asked to be its own reference and is not fully sampled.
    """
    if reference != "full":
        return _reference_from_file(Path(reference), settings)
    full = prepare(scan, replace(settings, undersample=None, mask=None, n_coils=None))
    if full.mask is None:
        return _reference_along_trajectory(full, settings)
    if not full.mask.all():
        raise DipmedError(
            f"this scan is not fully sampled ({full.mask.mean():.0%} of its locations are), so it cannot be its own "
            "reference; give one with --reference FILE, or use `dipmed recon`"
        )
    image, support = reference_image(full.kspace[0, 0])
    return np.abs(image).astype(np.float32), support


def _reference_along_trajectory(
    full: KSpaceScan, settings: ReconSettings
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Density-compensated adjoint of all samples, with maps from them, as the inverse transform is on a grid."""
    assert full.trajectory is not None  # noqa: S101  # a scan that is not Cartesian has one
    matrix = full.image_shape
    axes = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2) for n in matrix], indexing="ij")
    disc = np.sqrt(sum(axis**2 for axis in axes)) < _FULL_COVERAGE
    covered = sampled_cells(full.trajectory[0], matrix)[disc].mean()
    if covered < _FULL_COVERAGE:
        raise DipmedError(
            f"this scan is not fully sampled (its trajectory comes near {covered:.0%} of k-space), so it cannot be its "
            "own reference; join its frames with --join-frames if they are of one object, give an image with "
            "--reference FILE, or use `dipmed recon`"
        )
    job = next(jobs(full, replace(settings, undersample=None), torch.device("cpu")))
    image = job.A.adjoint(job.y)[0].numpy()
    return np.abs(image).astype(np.float32), (job.A.maps != 0).any(dim=0).numpy()


def _reference_from_file(path: Path, settings: ReconSettings) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    image = np.abs(load_image(path).data)
    if image.ndim == 4:
        raise ShapeError(f"the reference must be one volume (x, y, z), got {image.shape}")
    if settings.slices is not None:
        index = settings.slices[0] if image.shape[2] > 1 else 0
        if index >= image.shape[2]:
            raise ShapeError(f"slice {index} is compared, but the reference has {image.shape[2]}")
        image = image[:, :, index]
    return image.astype(np.float32), image > 0
