"""From a scan to an image volume: calibrate, fit each slice by itself, put the slices back together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.calib.coils import CALIBRATION_WIDTH, MAP_METHODS, VolumeReference, estimate_maps, volume_reference
from dipmed.calib.projections import ray_weights
from dipmed.calib.trajectory import central_kspace
from dipmed.config import FitConfig
from dipmed.dip import Observer, Progress, n_fits
from dipmed.guides import check_guide, load_guides
from dipmed.io.arrays import load_maps
from dipmed.memory import check_memory, kspace_memory
from dipmed.methods import Method, find_method, make_reconstructor
from dipmed.prepare import ReconSettings, check_weights, join_frames, prepare, sampled_mask
from dipmed.scan import (
    Complex64,
    DipmedError,
    ImageVolume,
    KSpaceScan,
    ProjectionScan,
    Reconstruction,
    Scan,
    ShapeError,
    StopReason,
)
from operators import (
    CartesianMRI,
    Frames,
    LinearOperator,
    MRIOperator,
    NonCartesianMRI,
    SliceProjector,
    VolumeProjector,
    combine_sets,
    density_compensation,
    hounsfield,
    norm_bound,
)
from operators.ct_geometry import Beam

_FALLBACK = {"mri": "zero-filled", "ct": "fbp"}
"""The method of images that an interruption left undone."""


@dataclass(frozen=True)
class Job:
    """One image to reconstruct: its place in the scan, its data and its operator.

    Samples along a trajectory are weighted as ``A`` weights them; projections are plain line integrals. ``A_final`` has
    maps that reach beyond the support, for the last steps of a fit; None where there are none. ``ray_weights`` are the
    roots of the relative photon counts, when the fit is to weight projections by them.
    """

    frame: int
    slice: int
    y: Tensor
    A: LinearOperator
    A_final: MRIOperator | None
    noise_variance: float | None
    ray_weights: Tensor | None = None


@dataclass(frozen=True)
class ScanResult:
    """The volume and what is worth recording about how it came about.

    ``unit`` is ``"1/mm"`` or ``"HU"`` of projections, None of k-space, whose scale is the scanner's. ``std`` is the
    standard deviation of what is shown, None where it was not asked for or an interruption left an image without.
    """

    volume: ImageVolume
    unit: str | None
    reconstructions: list[Reconstruction]
    preset: str
    config: FitConfig
    seconds: dict[str, float]
    device: str
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]
    std: ImageVolume | None = None

    @property
    def was_interrupted(self) -> bool:
        return any(part.stop.rule == "interrupted" for part in self.reconstructions)


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into a device that is there.

    Raises
    ------
    DipmedError
        When CUDA is asked for and absent.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise DipmedError(f"unknown device {name!r}; choose auto, cpu or cuda")
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise DipmedError("no CUDA device was found; use --device cpu, or run `dipmed doctor` to see what is there")
    return torch.device("cuda" if has_cuda and name != "cpu" else "cpu")


def jobs(scan: Scan, settings: ReconSettings, device: torch.device) -> Iterator[Job]:
    """Yield the images of a prepared scan one after the other, with their operators."""
    if isinstance(scan, KSpaceScan):
        yield from _kspace_jobs(scan, settings, device)
    else:
        yield from _projection_jobs(scan, settings, device)


def _series_jobs(scan: Scan, settings: ReconSettings, device: torch.device) -> Iterator[Job]:
    """Yield the slices of a prepared scan, all frames of each in one job.

    Raises
    ------
    DipmedError
        When there is one frame alone, or a map of the standard deviation is asked for.
    """
    if _n_frames(scan) < 2:
        raise DipmedError(f"{settings.method} fits a series of frames, and this scan has one; choose another method")
    if settings.uncertainty is not None:
        raise DipmedError(f"{settings.method} gives no map of the standard deviation; leave it out")
    found = list(jobs(scan, settings, device))
    for index in range(scan.n_slices):
        frames = [job for job in found if job.slice == index]
        A = Frames([job.A for job in frames if isinstance(job.A, MRIOperator)])
        y = torch.stack([job.y for job in frames], 1)
        yield Job(0, index, y, A, None, frames[0].noise_variance)


def _projection_jobs(scan: ProjectionScan, settings: ReconSettings, device: torch.device) -> Iterator[Job]:
    """Yield the slices, all of which share one operator, or the one volume."""
    A: SliceProjector | VolumeProjector
    A = SliceProjector(scan.grid, scan.beam) if isinstance(scan.beam, Beam) else VolumeProjector(scan.grid, scan.beam)
    A = A.to(device)
    for index in range(scan.n_slices):
        y = torch.from_numpy(np.ascontiguousarray(scan.projections[index : index + 1])).to(device)
        weights = ray_weights(scan, index).to(device) if settings.poisson else None
        yield Job(0, index, y, A, None, None, weights)


def _kspace_jobs(scan: KSpaceScan, settings: ReconSettings, device: torch.device) -> Iterator[Job]:
    """Yield the images of k-space, with their sensitivity maps."""
    if settings.map_sets > 1 and settings.maps != "espirit":
        raise DipmedError("several sets of maps are found by --maps espirit; a file holds one set")
    from_file = None if settings.maps in MAP_METHODS else _maps_from_file(Path(settings.maps), scan, settings)
    if from_file is None and find_method(settings.method).takes_series:
        from_file = _maps_of_all_frames(scan, settings)
    variance = None
    if scan.noise_covariance is not None:
        variance = float(np.diag(scan.noise_covariance).real.mean())
    for frame in range(scan.n_frames):
        volume = None
        if settings.split_readout and from_file is None:
            calibration = None if scan.calibration is None else scan.calibration[0]
            volume = volume_reference(scan.kspace[frame], sampled_mask(scan)[frame], settings.maps, calibration)
        # the slices of a frame share their trajectory
        density = None if scan.trajectory is None else density_compensation(_positions(scan, frame), scan.image_shape)
        for index in range(scan.n_slices):
            given = None if from_file is None else from_file[index]
            if density is None:
                y, A, A_final = _on_grid(scan, frame, index, settings, given, volume)
            else:
                y, A, A_final = _along_trajectory(scan, frame, index, density, settings, given)
            yield Job(frame, index, y.to(device), A.to(device), A_final and A_final.to(device), variance)


def _on_grid(
    scan: KSpaceScan,
    frame: int,
    index: int,
    settings: ReconSettings,
    given: Complex64 | None,
    volume: VolumeReference | None,
) -> tuple[Tensor, MRIOperator, MRIOperator | None]:
    """Data and operators of one Cartesian image."""
    y, mask = scan.kspace[frame, index], sampled_mask(scan)[frame, index]
    data, sampled = torch.from_numpy(np.ascontiguousarray(y)), torch.from_numpy(np.ascontiguousarray(mask))
    if given is not None:
        return data, CartesianMRI(torch.from_numpy(given), sampled), None
    calibration = None if scan.calibration is None else scan.calibration[0, index]
    found = estimate_maps(y, mask, settings.maps, calibration=calibration, volume=volume, n_sets=settings.map_sets)
    A = CartesianMRI(torch.from_numpy(found.cropped), sampled)
    # maps beyond the support are for the last steps of a fit alone
    is_fit = find_method(settings.method).is_fit
    return data, A, CartesianMRI(torch.from_numpy(found.maps), sampled) if is_fit else None


def _along_trajectory(
    scan: KSpaceScan, frame: int, index: int, density: Tensor, settings: ReconSettings, given: Complex64 | None
) -> tuple[Tensor, MRIOperator, MRIOperator | None]:
    """Data and operators of one image along a trajectory, weighted against its density, of norm 1 at most."""
    y, positions = scan.kspace[frame, index], _positions(scan, frame)
    if given is None:
        centre, mask = central_kspace(y, positions.numpy(), scan.image_shape, CALIBRATION_WIDTH)
        found = estimate_maps(centre, mask, settings.maps, n_sets=settings.map_sets)
        maps, wide = torch.from_numpy(found.cropped), torch.from_numpy(found.maps)
    else:
        maps = wide = torch.from_numpy(given)
    weights = density / norm_bound(NonCartesianMRI(wide, positions, density)) ** 2
    A = NonCartesianMRI(maps, positions, weights)
    A_final = None if given is not None else NonCartesianMRI(wide, positions, weights)
    return A.weigh(torch.from_numpy(np.ascontiguousarray(y))), A, A_final


def _maps_of_all_frames(scan: KSpaceScan, settings: ReconSettings) -> Complex64:
    """Maps ``(slice, [set,] coil, x, y[, z])`` from the samples of all frames: one network can show one phase only."""
    joined = None if scan.trajectory is None else join_frames(scan)
    maps = []
    for index in range(scan.n_slices):
        if joined is not None:
            y, mask = central_kspace(
                joined.kspace[0, index], _positions(joined, 0).numpy(), scan.image_shape, CALIBRATION_WIDTH
            )
        else:
            times = sampled_mask(scan)[:, index].sum(axis=0)
            y, mask = scan.kspace[:, index].sum(axis=0) / np.maximum(times, 1).astype(np.float32), times > 0
        calibration = None if scan.calibration is None else scan.calibration[0, index]
        found = estimate_maps(y, mask, settings.maps, calibration=calibration, n_sets=settings.map_sets)
        maps.append(found.cropped)
    return np.stack(maps)


def _positions(scan: KSpaceScan, frame: int) -> Tensor:
    """Positions of the samples of a frame, ``(sample, dimension)``."""
    assert scan.trajectory is not None  # noqa: S101  # a scan that is not Cartesian has one
    return torch.from_numpy(np.ascontiguousarray(scan.trajectory[frame]))


def _maps_from_file(path: Path, scan: KSpaceScan, settings: ReconSettings) -> Complex64:
    maps = load_maps(path)
    if settings.split_readout and maps.ndim == 5:  # of the volume
        maps = np.moveaxis(maps[0], 1, 0)
    expected = (scan.n_slices, scan.n_coils, *scan.matrix_shape)
    if maps.shape != expected:
        raise ShapeError(f"the sensitivity maps must be (slice, coil, x, y[, z]) {expected}, got {maps.shape}")
    return maps


def reconstruct(
    scan: Scan,
    settings: ReconSettings,
    *,
    progress: Callable[[int, int, Progress], None] | None = None,
    observer: Observer | None = None,
) -> ScanResult:
    """Reconstruct all images of a scan.

    An interruption ends the image in progress with the best so far; the images after it are zero-filled or filtered
    back-projections.

    Parameters
    ----------
    progress
        Takes the image's number, how many there are, and the progress of its fit.
    observer
        Passed on to the fits, for evaluation from outside.
    """
    start = time.perf_counter()
    method = find_method(settings.method, scan.modality)
    check_guide(settings, [method])
    config = settings.fit_config(scan.modality, settings.ndim_for(scan))
    device = resolve_device(settings.device)
    settings.check_uncertainty(scan.modality, settings.ndim_for(scan))
    check_weights(settings, [method.name], scan.modality, settings.ndim_for(scan))
    if isinstance(scan, KSpaceScan):
        check_fits(scan, settings)
    prepared = prepare(scan, settings)
    guides = load_guides(scan, prepared, settings)
    parts: list[Reconstruction] = []
    n_images = prepared.n_slices * (1 if method.takes_series else _n_frames(prepared))
    interrupted = False
    for number, job in enumerate((_series_jobs if method.takes_series else jobs)(prepared, settings, device)):
        report = None if progress is None else _for_image(progress, number, n_images)
        chosen = find_method(_FALLBACK[scan.modality]) if interrupted else method
        if _sees_nothing(job.A):
            parts += _by_frame(_empty(job, method.name), job.A)
            continue
        reconstructor = make_reconstructor(
            chosen,
            config,
            options=None if interrupted else job_options(settings, job, guides),
            noise_variance=job.noise_variance,
            A_final=job.A_final,
            ray_weights=job.ray_weights,
            progress=report,
            observer=observer,
            uncertainty=settings.uncertainty,
        )
        parts += _by_frame(reconstructor(job.y, job.A), job.A)
        interrupted = interrupted or parts[-1].stop.rule == "interrupted"
    if method.takes_series:  # all frames of a slice lie together, but a volume is put together frame by frame
        parts = [part for frame in range(_n_frames(prepared)) for part in parts[frame :: _n_frames(prepared)]]
    total = time.perf_counter() - start
    fit_seconds = sum(part.seconds for part in parts)
    notes = scan.notes
    if interrupted:
        n_left = sum(part.method != method.name for part in parts)
        notes += (f"interrupted: {n_left} of {n_images} images were not fitted and are {_FALLBACK[scan.modality]}",)
    images = [combine_sets(part.image)[0] for part in parts]
    deviations = [part.std[0] for part in parts if part.std is not None]
    volume, unit = _assemble(images, prepared), None
    std = _assemble(deviations, prepared) if len(deviations) == len(parts) else None
    if isinstance(prepared, ProjectionScan):
        unit = "1/mm"
        if settings.hounsfield:
            volume, std, unit = _in_hounsfield(volume, prepared), std and _step_in_hounsfield(std, prepared), "HU"
    if settings.uncertainty is not None and std is None:
        notes += ("there is no map of the standard deviation: too few samples were drawn of some image",)
    return ScanResult(
        volume=volume,
        unit=unit,
        reconstructions=parts,
        preset=settings.preset_for(scan.modality, settings.ndim_for(scan)),
        config=config,
        seconds={"total": total, "calibration": total - fit_seconds, "fit": fit_seconds},
        device=device.type,
        # each once, however many images share it
        assumptions=(*prepared.assumptions, *dict.fromkeys(text for part in parts for text in part.assumptions)),
        notes=notes,
        std=std,
    )


def job_options(settings: ReconSettings, job: Job, guides: NDArray[Any] | None) -> dict[str, Any]:
    """Options of the method for one image, with the similar image where the method takes one."""
    options = settings.fit_options()
    if guides is not None and find_method(settings.method).takes_guide:
        options["guide"] = torch.from_numpy(np.ascontiguousarray(guides[job.slice][None]))
    return options


def check_fits(scan: KSpaceScan, settings: ReconSettings) -> None:
    """Refuse a reconstruction that memory will not hold, before it starts."""
    method, ndim = find_method(settings.method), settings.ndim_for(scan)
    config = settings.fit_config(scan.modality, ndim) if method.is_fit else None
    needed = kspace_memory(
        scan,
        method.name,
        config,
        ndim=ndim,
        n_coils=settings.n_coils,
        n_sets=settings.map_sets,
        n_fits=1 if config is None else n_fits(config),
    )
    sizes = " x ".join(map(str, scan.matrix_shape))
    advice = "compress to fewer coils with --coils N"
    if ndim == 3 and scan.is_cartesian:
        advice += ", or go slice by slice with --split-readout"
    elif scan.n_slices > 1:
        advice += ", or take fewer --slices"
    check_memory(needed, f"{method.name} of {scan.n_coils} coils of {sizes}", advice)


def _sees_nothing(A: LinearOperator) -> bool:
    operators = A.operators if isinstance(A, Frames) else (A,)
    return not any(bool(one.maps.any()) if isinstance(one, MRIOperator) else True for one in operators)


def _by_frame(part: Reconstruction, A: LinearOperator) -> list[Reconstruction]:
    """Take the result of a series apart; each frame has its share of the time."""
    if not isinstance(A, Frames):
        return [part]
    return [replace(part, image=image, seconds=part.seconds / len(A.operators)) for image in A.images_of(part.image)]


def _empty(job: Job, method: str) -> Reconstruction:
    """The image of a slice that holds nothing but air."""
    image = torch.zeros(job.A.domain.shape, dtype=job.y.dtype)
    stop = StopReason("direct", 0, "no coil saw anything but noise")
    return Reconstruction(image, method, stop, 0, 0.0, std=image[:1].abs())


def _for_image(
    progress: Callable[[int, int, Progress], None], number: int, n_images: int
) -> Callable[[Progress], None]:
    return lambda state: progress(number, n_images, state)


def _assemble(images: list[Tensor], scan: Scan) -> ImageVolume:
    stacked = np.stack([image.cpu().numpy() for image in images])
    n_frames = _n_frames(scan)
    frames = stacked.reshape(n_frames, scan.n_slices, *stacked.shape[1:])
    data = frames[:, 0] if scan.ndim == 3 else np.moveaxis(frames, 1, -1)
    data = np.moveaxis(data, 0, -1)
    return ImageVolume(data[..., 0] if n_frames == 1 else data, scan.affine)


def _in_hounsfield(volume: ImageVolume, scan: ProjectionScan) -> ImageVolume:
    assert scan.water_per_mm is not None  # noqa: S101  # or the scan was refused
    return ImageVolume(hounsfield(torch.from_numpy(volume.data), scan.water_per_mm).numpy(), volume.affine)


def _step_in_hounsfield(std: ImageVolume, scan: ProjectionScan) -> ImageVolume:
    """A difference of attenuation in Hounsfield units, which has no offset."""
    nothing = ImageVolume(np.zeros_like(std.data), std.affine)
    difference = _in_hounsfield(std, scan).data - _in_hounsfield(nothing, scan).data
    return ImageVolume(difference, std.affine)


def _n_frames(scan: Scan) -> int:
    return scan.n_frames if isinstance(scan, KSpaceScan) else 1


__all__ = ["Job", "Method", "ReconSettings", "ScanResult", "jobs", "prepare", "reconstruct", "resolve_device"]
