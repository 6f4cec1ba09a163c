"""From a scan to an image volume: calibrate, fit each slice by itself, put the slices back together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.calib.coils import (
    CALIBRATION_WIDTH,
    MAP_METHODS,
    VolumeReference,
    compress_coils,
    estimate_maps,
    volume_reference,
)
from dipmed.calib.helix import rebin_helix
from dipmed.calib.noise import prewhiten
from dipmed.calib.projections import centre_rotation, keep_slices, keep_views, resample_grid
from dipmed.calib.readout import remove_oversampling, split_readout
from dipmed.calib.trajectory import central_kspace
from dipmed.config import FitConfig, find_preset
from dipmed.dip import Observer, Progress
from dipmed.io.arrays import load_maps, load_mask
from dipmed.memory import check_memory, kspace_memory
from dipmed.methods import Method, find_method, make_reconstructor
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
    LinearOperator,
    MRIOperator,
    NonCartesianMRI,
    SliceProjector,
    VolumeProjector,
    combine_sets,
    density_compensation,
    hounsfield,
    make_mask,
    norm_bound,
    parse_undersampling,
)
from operators.ct_geometry import Beam


@dataclass(frozen=True)
class ReconSettings:
    """What a user chooses for a reconstruction.

    Parameters
    ----------
    method, preset
        Names; the preset defaults to the one for the scan's dimensions.
    changes
        Fields of `FitConfig` that replace the preset's and the method's.
    undersample
        Name of a retrospective undersampling, e.g. ``"random:R=4,acs=16,seed=0"``.
    mask
        File of a sampling mask to apply instead.
    join_frames
        Take all frames of a trajectory as one acquisition.
    split_readout
        Reconstruct a 3-D Cartesian acquisition slice by slice, see `dipmed.calib.readout.split_readout`; ``slices`` are
        then positions along the readout.
    rebin
        Turn a helical CT scan into slices first, see `dipmed.calib.helix.rebin_helix`.
    maps
        ``"espirit"``, ``"jsense"``, or a file of sensitivity maps.
    map_sets
        Sets of ESPIRiT maps, more than one where the field of view is smaller than the object.
    n_coils
        Virtual coils to compress to; None keeps all.
    slices
        First slice and the one after the last; None for all.
    views
        How many of the measured views of projections to keep, evenly; None for all.
    matrix
        Pixels along x and y of a CT image over the same field of view; None for as many as the scan says.
    hounsfield
        Give CT images in Hounsfield units and not in 1/mm.
    water
        Attenuation of water in 1/mm for them; None for what the scan says.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    method: str = "dip"
    preset: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    undersample: str | None = None
    mask: Path | None = None
    join_frames: bool = False
    split_readout: bool = False
    rebin: bool = False
    maps: str = "espirit"
    map_sets: int = 1
    n_coils: int | None = None
    slices: tuple[int, int] | None = None
    views: int | None = None
    matrix: int | None = None
    hounsfield: bool = False
    water: float | None = None
    device: str = "auto"

    def ndim_for(self, scan: Scan) -> int:
        """Dimensions of one image of a scan as it is reconstructed."""
        return 2 if self.split_readout or self.rebin else scan.ndim

    def preset_for(self, modality: str, ndim: int) -> str:
        """Name of the preset for a scan of ``ndim`` dimensions by ``"mri"`` or ``"ct"``."""
        return self.preset or f"{modality}-{ndim}d"

    def fit_config(self, modality: str, ndim: int) -> FitConfig:
        """The settings of the fit for such a scan."""
        preset = find_preset(self.preset_for(modality, ndim))
        return find_method(self.method).configure(preset).replace(**self.changes)


_FALLBACK = {"mri": "zero-filled", "ct": "fbp"}
"""The method of images that an interruption left undone."""


@dataclass(frozen=True)
class Job:
    """One image to reconstruct: its place in the scan, its data and its operator.

    Samples along a trajectory are weighted as ``A`` weights them; projections are plain line integrals. ``A_final`` has
    maps that reach beyond the support, for the last steps of a fit; None where there are none.
    """

    frame: int
    slice: int
    y: Tensor
    A: LinearOperator
    A_final: MRIOperator | None
    noise_variance: float | None


@dataclass(frozen=True)
class ScanResult:
    """The volume and what is worth recording about how it came about.

    ``unit`` is ``"1/mm"`` or ``"HU"`` of projections, None of k-space, whose scale is the scanner's.
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


def prepare(scan: Scan, settings: ReconSettings) -> Scan:
    """Bring a scan to what a reconstruction starts from, with what it was told to keep.

    K-space: chosen slices, white noise, no oversampling, fewer coils. Projections: chosen slices and views, the
    rotation axis, the grid.

    Raises
    ------
    DipmedError
        When a choice does not fit the scan.
    """
    _check_choices(scan, settings)
    return prepare_kspace(scan, settings) if isinstance(scan, KSpaceScan) else _prepare_projections(scan, settings)


_FOR_KSPACE = {
    "undersample": "--undersample",
    "mask": "--mask",
    "join_frames": "--join-frames",
    "split_readout": "--split-readout",
    "map_sets": "--map-sets",
    "n_coils": "--coils",
}
_FOR_PROJECTIONS = {
    "rebin": "--rebin",
    "views": "--views",
    "matrix": "--matrix",
    "hounsfield": "--hounsfield",
    "water": "--water",
}


def _check_choices(scan: Scan, settings: ReconSettings) -> None:
    """Refuse what makes sense for the other kind of scan only."""
    is_kspace = isinstance(scan, KSpaceScan)
    for name, option in (_FOR_PROJECTIONS if is_kspace else _FOR_KSPACE).items():
        if getattr(settings, name) != getattr(ReconSettings, name):
            kind, other = ("k-space", "projections") if is_kspace else ("projections", "k-space")
            raise DipmedError(f"{option} is for {other}, but this scan holds {kind}")


def _prepare_projections(scan: ProjectionScan, settings: ReconSettings) -> ProjectionScan:
    if settings.rebin:
        scan = rebin_helix(scan)
    if settings.slices is not None:
        scan = keep_slices(scan, settings.slices)
    if settings.views is not None:
        scan = keep_views(scan, settings.views)
    if settings.matrix is not None:
        scan = resample_grid(scan, settings.matrix)
    if settings.water is not None:
        scan = scan.replace(water_per_mm=settings.water)
    if settings.hounsfield and scan.water_per_mm is None:
        raise DipmedError("Hounsfield units need the attenuation of water, which the file does not say; give --water")
    # from the views that are kept: a reconstruction from few views must not profit from the others
    return centre_rotation(scan)


def prepare_kspace(scan: KSpaceScan, settings: ReconSettings) -> KSpaceScan:
    """Do the part of `prepare` that is for k-space."""
    if settings.join_frames:
        scan = join_frames(scan)
    if settings.split_readout:
        scan = split_readout(scan)
    scan = remove_oversampling(prewhiten(_choose_slices(scan, settings.slices)))
    scan = _undersample(scan, settings)
    if not scan.kspace.any():
        raise DipmedError("all k-space samples are zero: there is nothing to reconstruct")
    return scan if settings.n_coils is None else compress_coils(scan, settings.n_coils)


def _choose_slices(scan: KSpaceScan, slices: tuple[int, int] | None) -> KSpaceScan:
    if slices is None:
        return scan
    first, end = slices
    if scan.ndim == 3:
        raise DipmedError(
            "--slices chooses slices of a 2-D scan; this one is a 3-D acquisition: with --split-readout, positions "
            "along its readout are slices"
        )
    if not 0 <= first < end <= scan.n_slices:
        raise DipmedError(f"--slices {first}:{end} does not fit {scan.n_slices} slices; they count from 0")
    affine = scan.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    chosen = slice(first, end)
    return scan.replace(
        kspace=scan.kspace[:, chosen],
        mask=None if scan.mask is None else scan.mask[:, chosen],
        calibration=None if scan.calibration is None else scan.calibration[:, chosen],
        affine=affine,
    )


def _undersample(scan: KSpaceScan, settings: ReconSettings) -> KSpaceScan:
    if settings.undersample is not None and settings.mask is not None:
        raise DipmedError("give --undersample or --mask, not both")
    if not scan.is_cartesian:
        return _undersample_readouts(scan, settings)
    if settings.undersample is not None:
        chosen = make_mask(settings.undersample, scan.matrix_shape).numpy()
    elif settings.mask is not None:
        chosen = _fit_mask(load_mask(settings.mask), scan)
        if settings.split_readout and chosen.ndim == 3 and (chosen != chosen[:1]).any():
            raise DipmedError("the mask leaves out parts of the readout, so the scan cannot be split into slices")
    else:
        return scan
    mask = _mask(scan) & chosen
    # a separate reference acquisition was not part of what is undersampled, but using it would flatter the result
    return scan.replace(kspace=scan.kspace * mask[:, :, None], mask=mask, calibration=None)


def _undersample_readouts(scan: KSpaceScan, settings: ReconSettings) -> KSpaceScan:
    """Keep some readouts of a trajectory: the rule counts them as it counts lines."""
    if settings.mask is not None:
        raise DipmedError("--mask chooses locations of a Cartesian grid, but this scan has a trajectory")
    if settings.undersample is None:
        return scan
    limits = parse_undersampling(settings.undersample).limits
    if limits:
        raise DipmedError(f"{' and '.join(limits)} leave out parts of a Cartesian grid, but this scan has a trajectory")
    if scan.n_readouts is None:
        raise DipmedError("--undersample keeps whole readouts, but those of this scan differ in length")
    assert scan.trajectory is not None  # noqa: S101  # a scan without a mask has one
    readouts = make_mask(settings.undersample, (1, scan.n_readouts)).numpy()[0]
    chosen = np.repeat(readouts, scan.kspace.shape[-1] // scan.n_readouts)
    return scan.replace(
        kspace=scan.kspace[..., chosen], trajectory=scan.trajectory[:, chosen], n_readouts=int(readouts.sum())
    )


def join_frames(scan: KSpaceScan) -> KSpaceScan:
    """Take all frames of a trajectory as one acquisition.

    Raises
    ------
    DipmedError
        When the scan is Cartesian.
    """
    if scan.trajectory is None:
        raise DipmedError("frames can be joined where samples lie on a trajectory; this scan is Cartesian")
    n_frames, n_slices, n_coils, _ = scan.kspace.shape
    return scan.replace(
        kspace=np.moveaxis(scan.kspace, 0, 2).reshape(1, n_slices, n_coils, -1),
        trajectory=scan.trajectory.reshape(1, -1, scan.ndim),
        n_readouts=None if scan.n_readouts is None else scan.n_readouts * n_frames,
        frame_labels=({},),
        notes=(*scan.notes, f"{n_frames} frames were joined to one."),
    )


def _fit_mask(mask: NDArray[np.bool_], scan: KSpaceScan) -> NDArray[np.bool_]:
    """Broadcast a mask from a file to ``(slice, x, y[, z])``."""
    for shape in (scan.matrix_shape, scan.matrix_shape[1:], (scan.n_slices, *scan.matrix_shape)):
        if mask.shape == shape:
            return np.broadcast_to(mask, (scan.n_slices, *scan.matrix_shape))
    raise ShapeError(
        f"the mask must be {scan.matrix_shape} or {scan.matrix_shape[1:]} like the k-space, got {mask.shape}"
    )


def jobs(scan: Scan, settings: ReconSettings, device: torch.device) -> Iterator[Job]:
    """Yield the images of a prepared scan one after the other, with their operators."""
    if isinstance(scan, KSpaceScan):
        yield from _kspace_jobs(scan, settings, device)
    else:
        yield from _projection_jobs(scan, device)


def _projection_jobs(scan: ProjectionScan, device: torch.device) -> Iterator[Job]:
    """Yield the slices, all of which share one operator, or the one volume."""
    A: SliceProjector | VolumeProjector
    A = SliceProjector(scan.grid, scan.beam) if isinstance(scan.beam, Beam) else VolumeProjector(scan.grid, scan.beam)
    A = A.to(device)
    for index in range(scan.n_slices):
        y = torch.from_numpy(np.ascontiguousarray(scan.projections[index : index + 1])).to(device)
        yield Job(0, index, y, A, None, None)


def _kspace_jobs(scan: KSpaceScan, settings: ReconSettings, device: torch.device) -> Iterator[Job]:
    """Yield the images of k-space, with their sensitivity maps."""
    if settings.map_sets > 1 and settings.maps != "espirit":
        raise DipmedError("several sets of maps are found by --maps espirit; a file holds one set")
    from_file = None if settings.maps in MAP_METHODS else _maps_from_file(Path(settings.maps), scan, settings)
    variance = None
    if scan.noise_covariance is not None:
        variance = float(np.diag(scan.noise_covariance).real.mean())
    for frame in range(scan.n_frames):
        volume = None
        if settings.split_readout and from_file is None:
            calibration = None if scan.calibration is None else scan.calibration[0]
            volume = volume_reference(scan.kspace[frame], _mask(scan)[frame], settings.maps, calibration)
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
    y, mask = scan.kspace[frame, index], _mask(scan)[frame, index]
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


def _mask(scan: KSpaceScan) -> NDArray[np.bool_]:
    """Which locations of a Cartesian scan were sampled, ``(frame, slice, x, y[, z])``."""
    assert scan.mask is not None  # noqa: S101  # a Cartesian scan always has one
    return scan.mask


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
    config = settings.fit_config(scan.modality, settings.ndim_for(scan))
    device = resolve_device(settings.device)
    if isinstance(scan, KSpaceScan):
        check_fits(scan, settings)
    prepared = prepare(scan, settings)
    parts: list[Reconstruction] = []
    n_images = _n_frames(prepared) * prepared.n_slices
    interrupted = False
    for number, job in enumerate(jobs(prepared, settings, device)):
        report = None if progress is None else _for_image(progress, number, n_images)
        chosen = find_method(_FALLBACK[scan.modality]) if interrupted else method
        if isinstance(job.A, MRIOperator) and not bool(job.A.maps.any()):
            parts.append(_empty(job, method.name))
            continue
        reconstructor = make_reconstructor(
            chosen,
            config,
            noise_variance=job.noise_variance,
            A_final=job.A_final,
            progress=report,
            observer=observer,
        )
        parts.append(reconstructor(job.y, job.A))
        interrupted = interrupted or parts[-1].stop.rule == "interrupted"
    total = time.perf_counter() - start
    fit_seconds = sum(part.seconds for part in parts)
    notes = scan.notes
    if interrupted:
        n_left = sum(part.method != method.name for part in parts)
        notes += (f"interrupted: {n_left} of {n_images} images were not fitted and are {_FALLBACK[scan.modality]}",)
    volume, unit = _assemble(parts, prepared), None
    if isinstance(prepared, ProjectionScan):
        volume, unit = (_in_hounsfield(volume, prepared), "HU") if settings.hounsfield else (volume, "1/mm")
    return ScanResult(
        volume=volume,
        unit=unit,
        reconstructions=parts,
        preset=settings.preset_for(scan.modality, settings.ndim_for(scan)),
        config=config,
        seconds={"total": total, "calibration": total - fit_seconds, "fit": fit_seconds},
        device=device.type,
        assumptions=prepared.assumptions,
        notes=notes,
    )


def check_fits(scan: KSpaceScan, settings: ReconSettings) -> None:
    """Refuse a reconstruction that memory will not hold, before it starts."""
    method, ndim = find_method(settings.method), settings.ndim_for(scan)
    config = settings.fit_config(scan.modality, ndim) if method.is_fit else None
    needed = kspace_memory(scan, method.name, config, ndim=ndim, n_coils=settings.n_coils, n_sets=settings.map_sets)
    sizes = " x ".join(map(str, scan.matrix_shape))
    advice = "compress to fewer coils with --coils N"
    if ndim == 3 and scan.is_cartesian:
        advice += ", or go slice by slice with --split-readout"
    elif scan.n_slices > 1:
        advice += ", or take fewer --slices"
    check_memory(needed, f"{method.name} of {scan.n_coils} coils of {sizes}", advice)


def _empty(job: Job, method: str) -> Reconstruction:
    """The image of a slice that holds nothing but air."""
    image = torch.zeros(job.A.domain.shape, dtype=job.y.dtype)
    return Reconstruction(image, method, StopReason("direct", 0, "no coil saw anything but noise"), 0, 0.0)


def _for_image(
    progress: Callable[[int, int, Progress], None], number: int, n_images: int
) -> Callable[[Progress], None]:
    return lambda state: progress(number, n_images, state)


def _assemble(parts: list[Reconstruction], scan: Scan) -> ImageVolume:
    images = np.stack([combine_sets(part.image)[0].cpu().numpy() for part in parts])
    n_frames = _n_frames(scan)
    frames = images.reshape(n_frames, scan.n_slices, *images.shape[1:])
    data = frames[:, 0] if scan.ndim == 3 else np.moveaxis(frames, 1, -1)
    data = np.moveaxis(data, 0, -1)
    return ImageVolume(data[..., 0] if n_frames == 1 else data, scan.affine)


def _in_hounsfield(volume: ImageVolume, scan: ProjectionScan) -> ImageVolume:
    assert scan.water_per_mm is not None  # noqa: S101  # or the scan was refused
    return ImageVolume(hounsfield(torch.from_numpy(volume.data), scan.water_per_mm).numpy(), volume.affine)


def _n_frames(scan: Scan) -> int:
    return scan.n_frames if isinstance(scan, KSpaceScan) else 1


__all__ = ["Job", "Method", "ReconSettings", "ScanResult", "jobs", "prepare", "reconstruct", "resolve_device"]
