"""Several methods on the same undersampled scan, judged against the same reference."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.calib.centre import sampled_cells
from dipmed.calib.helix import rebin_helix
from dipmed.calib.readout import split_readout
from dipmed.ct_baselines import CGTotalVariation, has_back_projection
from dipmed.devices import resolve_device
from dipmed.evaluate import SnapshotScores, calibration, reference_image, score
from dipmed.guides import check_guide, load_guides
from dipmed.io.images import load_image
from dipmed.jobs import Job, jobs
from dipmed.methods import Method, find_method
from dipmed.mode import check_fits
from dipmed.prepare import prepare, prepare_kspace
from dipmed.run_job import run_job
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan, Reconstruction, Scan, ShapeError
from dipmed.settings import ReconSettings, check_weights, with_preset
from operators import (
    NonCartesianMRI,
    SliceProjector,
    VolumeProjector,
    can_be_divided,
    combine_sets,
    field_of_view_mm,
    volume_of_view_mm,
)
from operators.ct_geometry import Beam
from operators.sampling import inside_ellipse

DEFAULT_UNDERSAMPLING = "random:R=4,acs=16,seed=0"

EVERY_FOURTH_READOUT = "equispaced:R=4,acs=0,seed=0"

_REFERENCE_WEIGHT = 6e-5
"""Of the total variation of a reference from all views: less than any that suits few views."""

_REFERENCE_GIB, _FEWEST_VIEWS = 2.0, 100
"""What its matrices may take, and how many views it is made of at least where some are left out for that."""

_FULL_COVERAGE = 0.95
"""Share of the disc of k-space that a reference along a trajectory has to cover."""


@dataclass(frozen=True)
class Comparison:
    """The rows of the table and the images behind them: magnitudes, or attenuation.

    ``support`` is where images count. ``data_left`` says what of the data the methods saw: the rule of the
    undersampling, or how many views; ``prepared`` are those data, by the ``settings``. ``parts`` are the
    reconstructions by the methods' names.
    """

    rows: list[dict[str, Any]]
    images: dict[str, NDArray[np.float32]]
    reference: NDArray[np.float32]
    support: NDArray[np.bool_]
    data_left: str | None
    slice: int
    prepared: Scan
    settings: ReconSettings
    parts: dict[str, Reconstruction]
    device: str


DEFAULT_METHODS = {
    "mri": ("zero-filled", "cg-sense", "l1-wavelet", "tv", "dip"),
    "ct": ("fbp", "sirt", "cg-tv", "dip"),
}


def score_cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The scores of a row for people: method, PSNR, SSIM, NRMSE, seconds of the fit, iterations, regret, stop."""
    return (
        row["method"],
        f"{row['psnr']:.2f}",
        f"{row['ssim']:.4f}",
        f"{row['nrmse']:.4f}",
        f"{row['seconds_fit']:.1f}",
        str(row["iterations"]),
        "" if row["regret"] is None else f"{row['regret']:.2f}",
        row["stop"]["rule"],
    )


def compare(
    scan: Scan,
    methods: Sequence[str] | None,
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
        Names, in the order of the rows; None for those of `DEFAULT_METHODS` that there are for such rays.
    settings
        Calibration, undersampling, device and changes for all methods; ``slices`` names one slice, by default the
        middle one.
    reference
        ``"full"`` for the fully sampled scan itself, or all views of projections; or the file of an image.
    on_method
        Called with each method's name before it runs.

    Raises
    ------
    DipmedError
        When the scan is not fully sampled and no image is given, or a method is unknown.
    """
    if settings.rebin and isinstance(scan, ProjectionScan):
        scan, settings = rebin_helix(scan), replace(settings, rebin=False)
    names = _default_methods(scan) if methods is None else methods
    found = [_method_of_one_image(name, scan) for name in names]
    if not found:
        raise DipmedError("name at least one method to compare")
    check_weights(settings, [method.name for method in found], scan.modality, settings.ndim_for(scan))
    check_guide(settings, found)
    if settings.split_readout and isinstance(scan, KSpaceScan):
        # one slice is compared, so there is nothing that slices could share
        scan, settings = split_readout(scan), replace(settings, split_readout=False)
    if settings.slices is None and scan.ndim == 2:
        middle = scan.n_slices // 2
        settings = replace(settings, slices=(middle, middle + 1))
    if reference == "full":
        settings = _with_less(scan, settings)
    settings = with_preset(scan, settings)
    target, support = find_reference(scan, settings, reference)
    device = resolve_device(settings.device)
    mode = "slice" if settings.ndim_for(scan) == 2 else "3d"
    for method in found:
        check_fits(scan, replace(settings, method=method.name, mode=mode), device)
    start = time.perf_counter()
    prepared = prepare(scan, settings)
    job = next(jobs(prepared, settings, device, load_guides(scan, prepared, settings)))
    calibration = time.perf_counter() - start
    rows, images, parts = [], {}, {}
    for method in found:
        if on_method is not None:
            on_method(method.name)
        row, image, part = _run(method.name, job, settings, target, support)
        row["seconds"] = row["seconds_fit"] + calibration
        rows.append(row)
        images[method.name] = image
        parts[method.name] = part
    return Comparison(
        rows=rows,
        images=images,
        reference=target,
        support=support,
        data_left=_data_left(scan, settings),
        slice=0 if settings.slices is None else settings.slices[0],
        prepared=prepared,
        settings=settings,
        parts=parts,
        device=device.type,
    )


def _method_of_one_image(name: str, scan: Scan) -> Method:
    method = find_method(name, scan.modality)
    if method.takes_series:
        raise DipmedError(f"{name} fits a series of frames, but one image is compared; use `dipmed recon`")
    return method


def _default_methods(scan: Scan) -> list[str]:
    found = list(DEFAULT_METHODS[scan.modality])
    if isinstance(scan, ProjectionScan) and not has_back_projection(scan.beam):
        found.remove("fbp")
    return found


def _with_less(scan: Scan, settings: ReconSettings) -> ReconSettings:
    """Leave out a part of the data by default where all of them are the reference."""
    if isinstance(scan, ProjectionScan):
        return replace(settings, views=max(1, scan.n_views // 4)) if settings.views is None else settings
    if settings.undersample is not None or settings.mask is not None:
        return settings
    return replace(settings, undersample=DEFAULT_UNDERSAMPLING if scan.is_cartesian else EVERY_FOURTH_READOUT)


def _data_left(scan: Scan, settings: ReconSettings) -> str | None:
    if isinstance(scan, ProjectionScan):
        return None if settings.views is None else f"{settings.views} of {scan.n_views} views"
    return settings.undersample


def _to_score(image: NDArray[Any]) -> NDArray[np.float32]:
    """Magnitude of a complex image; attenuation keeps its sign."""
    values: NDArray[Any] = np.abs(image) if np.iscomplexobj(image) else image
    return values.astype(np.float32)


def _run(
    name: str,
    job: Job,
    settings: ReconSettings,
    reference: NDArray[np.float32],
    support: NDArray[np.bool_],
) -> tuple[dict[str, Any], NDArray[np.float32], Reconstruction]:
    method = find_method(name)
    snapshots = SnapshotScores(reference, support)
    settings = replace(settings, method=name)
    if settings.objection_to_uncertainty(job.modality, job.ndim) is not None:
        settings = replace(settings, uncertainty=None)
    result = run_job(job, settings, observer=snapshots if method.is_fit else None)
    image = _to_score(combine_sets(result.image)[0].cpu().numpy())
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
        "choices": result.choices,
        "raised_weights": result.raised,
        "last_steps": result.last_steps,
        "first_jitter": result.first_jitter,
        "regret": max(0.0, snapshots.best_psnr - scores.psnr) if method.is_fit else None,
        "snapshots": snapshots.curve if method.is_fit else [],
        "calibration": None if result.std is None else asdict(calibration(image, result.std, reference, support)),
    }
    return row, image, result


def find_reference(
    scan: Scan, settings: ReconSettings, reference: str, *, subpixels: int = CGTotalVariation.subpixels
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the magnitude or attenuation to score against and where it counts, both ``(x, y[, z])``.

    Parameters
    ----------
    subpixels
        Parts of the pixels of a slice of projections that is its own reference.

    Raises
    ------
    DipmedError
        When the scan is asked to be its own reference and is not fully sampled.
    """
    if isinstance(scan, ProjectionScan):
        return _reference_of_projections(scan, settings, reference, subpixels)
    if reference != "full":
        given = _reference_from_file(Path(reference), settings)
        return given, given > 0
    full = prepare_kspace(scan, replace(settings, undersample=None, mask=None, n_coils=None))
    if full.mask is None:
        return _reference_along_trajectory(full, settings)
    if not _covers_kspace(full.mask[0, 0]):
        raise DipmedError(
            f"this scan is not fully sampled ({full.mask.mean():.0%} of its locations are), so it cannot be its own "
            "reference; give one with --reference FILE, or use `dipmed recon`"
        )
    image, support = reference_image(full.kspace[0, 0], n_sets=settings.map_sets)
    return np.abs(image).astype(np.float32), support


def _covers_kspace(mask: NDArray[np.bool_]) -> bool:
    """Whether k-space was fully sampled, but for the corners of both phase encodes.

    What an elliptical shutter leaves out makes the image no less sharp along its axes, so an image without it is the
    image of that acquisition. A side that is missing (partial Fourier, asymmetric echo) blurs whatever is not smooth in
    phase, and its image is no reference.
    """
    encoded = np.asarray(mask.all(axis=0)) if mask.ndim == 3 else mask
    is_full = bool(encoded[inside_ellipse(encoded.shape, _FULL_COVERAGE)].all())
    # of slices, a line without any sample was left out, and not by a shutter
    return is_full and (mask.ndim == 3 or all(bool(mask.any(axis=axis).all()) for axis in (0, 1)))


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
    assert isinstance(job.A, NonCartesianMRI)  # noqa: S101  # the operator of a trajectory
    image = combine_sets(job.A.adjoint(job.y))[0].numpy()
    seen = (job.A.maps != 0).flatten(0, -job.A.ndim - 1).any(dim=0)
    return np.abs(image).astype(np.float32), seen.numpy()


def _reference_of_projections(
    scan: ProjectionScan, settings: ReconSettings, reference: str, subpixels: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Total variation over all views, or a file; it counts inside the disc that every view sees.

    The pixels of slices are divided; where the matrices through the parts would be large, some views are left out,
    evenly, as long as a hundred are left.
    """
    full = prepare(scan, replace(settings, views=None))
    assert isinstance(full, ProjectionScan)  # noqa: S101  # preparing keeps the kind
    x, y = (full.grid.coordinates(axis) for axis in (0, 1))
    pixel = max(full.grid.spacing_mm[:2])
    radius = field_of_view_mm(full.beam) if isinstance(full.beam, Beam) else volume_of_view_mm(full.beam)[0]
    disc = np.hypot(x[:, None], y[None, :]) < radius - pixel
    image: NDArray[np.float32]
    if reference != "full":
        image = _reference_from_file(Path(reference), settings)
    elif settings.views == scan.n_views:
        raise DipmedError(f"all {scan.n_views} views are kept, so they cannot be judged by themselves; give --views N")
    else:
        job = next(jobs(full, settings, torch.device("cpu")))
        assert isinstance(job.A, SliceProjector | VolumeProjector)  # noqa: S101  # the operators of projections
        data, A = _thinned(job.y, job.A, subpixels) if isinstance(job.A, SliceProjector) else (job.y, job.A)
        tv = CGTotalVariation(lam=_REFERENCE_WEIGHT, subpixels=subpixels, matrices_gib=_REFERENCE_GIB)
        image = tv(data, A).image[0].cpu().numpy()
    if image.shape != full.grid.shape:
        raise ShapeError(f"the reference must be {full.grid.shape} like the image, got {image.shape}")
    return image, disc if full.ndim == 2 else np.broadcast_to(disc[..., None], full.grid.shape).copy()


def _thinned(y: Tensor, A: SliceProjector, subpixels: int) -> tuple[Tensor, SliceProjector]:
    """Leave out views, evenly, so that the pixels can be divided; none where few would be left."""
    n_views = len(A.beam.angles)
    for step in range(1, n_views // _FEWEST_VIEWS + 1):
        kept = range(0, n_views, step)
        beam = A.beam.with_views(kept)
        if subpixels == 1 or can_be_divided(A.grid, beam, subpixels, _REFERENCE_GIB):
            return (y, A) if step == 1 else (y[:, kept], SliceProjector(A.grid, beam))
    return y, A


def _reference_from_file(path: Path, settings: ReconSettings) -> NDArray[np.float32]:
    image = _to_score(load_image(path).data)
    if image.ndim == 4:
        raise ShapeError(f"the reference must be one volume (x, y, z), got {image.shape}")
    if settings.slices is not None:
        index = settings.slices[0] if image.shape[2] > 1 else 0
        if index >= image.shape[2]:
            raise ShapeError(f"slice {index} is compared, but the reference has {image.shape[2]}")
        image = image[:, :, index]
    return image
