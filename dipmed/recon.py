"""From a scan to an image volume: calibrate, fit each slice by itself, put the slices back together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dipmed.assemble_volume import assemble_volume
from dipmed.calib.coils import CoilMaps
from dipmed.config import FitConfig
from dipmed.dip import Observer, Progress, n_fits
from dipmed.guides import check_guide, load_guides
from dipmed.jobs import jobs, n_frames, n_jobs
from dipmed.memory import check_memory, kspace_memory
from dipmed.methods import find_method
from dipmed.prepare import ReconSettings, check_weights, prepare
from dipmed.run_job import DIRECT, by_frame, run_direct, run_job
from dipmed.scan import DipmedError, ImageVolume, KSpaceScan, Reconstruction, Scan


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


def reconstruct(
    scan: Scan,
    settings: ReconSettings,
    *,
    progress: Callable[[int, int, Progress], None] | None = None,
    observer: Observer | None = None,
    maps: Sequence[Sequence[CoilMaps]] | None = None,
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
    maps
        Sensitivity maps of k-space, for each frame those of each slice; None to do as the settings say.
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
    n_images = n_jobs(prepared, settings)
    interrupted = False
    for number, job in enumerate(jobs(prepared, settings, device, guides, maps)):
        if interrupted:
            part = run_direct(job, settings)
        else:
            report = None if progress is None else _for_image(progress, number, n_images)
            part = run_job(job, settings, progress=report, observer=observer)
        parts += by_frame(part, job.A)
        interrupted = interrupted or part.stop.rule == "interrupted"
    if method.takes_series:  # all frames of a slice lie together, but a volume is put together frame by frame
        parts = [part for frame in range(n_frames(prepared)) for part in parts[frame :: n_frames(prepared)]]
    total = time.perf_counter() - start
    fit_seconds = sum(part.seconds for part in parts)
    notes = scan.notes
    if interrupted:
        n_left = sum(part.method != method.name for part in parts)
        notes += (f"interrupted: {n_left} of {n_images} images were not fitted and are {DIRECT[scan.modality]}",)
    volume, std, unit = assemble_volume(parts, prepared, in_hounsfield=settings.hounsfield)
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


def _for_image(
    progress: Callable[[int, int, Progress], None], number: int, n_images: int
) -> Callable[[Progress], None]:
    return lambda state: progress(number, n_images, state)
