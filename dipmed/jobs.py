"""The images of a prepared scan as jobs: the data of each, with its operator."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.calib.coils import (
    CALIBRATION_WIDTH,
    MAP_METHODS,
    CoilMaps,
    VolumeReference,
    estimate_maps,
    volume_reference,
)
from dipmed.calib.projections import ray_weights
from dipmed.calib.trajectory import central_kspace
from dipmed.io.arrays import load_maps
from dipmed.methods import find_method
from dipmed.prepare import join_frames, sampled_mask
from dipmed.scan import Complex64, DipmedError, KSpaceScan, ProjectionScan, Scan, ShapeError
from dipmed.settings import ReconSettings
from operators import (
    CartesianMRI,
    Frames,
    LinearOperator,
    MRIOperator,
    NonCartesianMRI,
    Projector,
    SliceProjector,
    Slices,
    VolumeProjector,
    density_compensation,
    norm_bound,
)
from operators.ct_geometry import Beam


@dataclass(frozen=True)
class Job:
    """One image to reconstruct: its place in the scan, its data and its operator.

    Samples along a trajectory are weighted as ``A`` weights them; projections are plain line integrals. ``A_final`` has
    maps that reach beyond the support, for the last steps of a fit; None where there are none. ``ray_weights`` are the
    roots of the relative photon counts, when the fit is to weight projections by them. ``guide`` is the similar image
    ``(1, x, y[, z])`` where one was given.
    """

    frame: int
    slice: int
    y: Tensor
    A: LinearOperator
    A_final: MRIOperator | Slices | None
    noise_variance: float | None
    ray_weights: Tensor | None = None
    guide: Tensor | None = None

    def to(self, device: torch.device) -> Self:
        """Return the same job with all its tensors there."""
        return replace(
            self,
            y=self.y.to(device),
            A=self.A.to(device),
            A_final=self.A_final and self.A_final.to(device),
            ray_weights=None if self.ray_weights is None else self.ray_weights.to(device),
            guide=None if self.guide is None else self.guide.to(device),
        )

    @property
    def place(self) -> tuple[int, int]:
        """Frame and slice; a series is at frame 0."""
        return self.frame, self.slice

    @property
    def modality(self) -> str:
        """``"mri"`` or ``"ct"``."""
        return "ct" if isinstance(self.A, Projector) else "mri"

    @property
    def ndim(self) -> int:
        """Dimensions of the image."""
        return len(self.A.domain.shape) - 1


def n_frames(scan: Scan) -> int:
    """Images of each slice; projections have one."""
    return scan.n_frames if isinstance(scan, KSpaceScan) else 1


def n_jobs(scan: Scan, settings: ReconSettings) -> int:
    """How many jobs there are of a prepared scan."""
    return scan.n_slices * (1 if find_method(settings.method).takes_series else n_frames(scan))


def jobs(
    scan: Scan,
    settings: ReconSettings,
    device: torch.device,
    guides: NDArray[Any] | None = None,
    maps: Sequence[Sequence[CoilMaps]] | None = None,
    *,
    skip: Collection[tuple[int, int]] = (),
) -> Iterator[Job]:
    """Yield the images of a prepared scan one after the other, with their operators.

    A method that fits a series gets all frames of a slice in one job.

    Parameters
    ----------
    guides
        Similar image of each slice, ``(slice, x, y)`` or ``(1, x, y, z)``, see `dipmed.guides.load_guides`.
    maps
        Sensitivity maps of k-space, for each frame those of each slice; None to do as the settings say.
    skip
        Places of jobs that are left out, and not calibrated either.

    Raises
    ------
    DipmedError
        When maps do not fit the scan, or a series is asked for and there is none.
    """
    is_series = find_method(settings.method).takes_series
    if is_series:
        skip = {(frame, index) for frame in range(n_frames(scan)) for _, index in skip}
    single = (
        _kspace_jobs(scan, settings, device, maps, skip)
        if isinstance(scan, KSpaceScan)
        else _projection_jobs(scan, settings, device, skip)
    )
    for job in _series_jobs(single, scan, settings) if is_series else single:
        guide = None if guides is None else torch.from_numpy(np.ascontiguousarray(guides[job.slice][None]))
        yield job if guide is None else replace(job, guide=guide)


def _series_jobs(single: Iterator[Job], scan: Scan, settings: ReconSettings) -> Iterator[Job]:
    """Join all frames of each slice in one job."""
    if n_frames(scan) < 2:
        raise DipmedError(f"{settings.method} fits a series of frames, and this scan has one; choose another method")
    if settings.uncertainty is not None:
        raise DipmedError(f"{settings.method} gives no map of the standard deviation; leave it out")
    found = list(single)
    for index in sorted({job.slice for job in found}):
        frames = [job for job in found if job.slice == index]
        A = Frames([job.A for job in frames if isinstance(job.A, MRIOperator)])
        y = torch.stack([job.y for job in frames], 1)
        yield Job(0, index, y, A, None, frames[0].noise_variance)


def _projection_jobs(
    scan: ProjectionScan, settings: ReconSettings, device: torch.device, skip: Collection[tuple[int, int]]
) -> Iterator[Job]:
    """Yield the slices, all of which share one operator, or the one volume."""
    A: SliceProjector | VolumeProjector
    A = SliceProjector(scan.grid, scan.beam) if isinstance(scan.beam, Beam) else VolumeProjector(scan.grid, scan.beam)
    A = A.to(device)
    # the weights of slices that are fitted together have to have one scale
    peak = float(scan.counts.max()) if scan.counts is not None and settings.stacks_slices(scan) else None
    for index in range(scan.n_slices):
        if (0, index) in skip:
            continue
        y = torch.from_numpy(np.ascontiguousarray(scan.projections[index : index + 1])).to(device)
        weights = ray_weights(scan, index, peak).to(device) if settings.poisson else None
        yield Job(0, index, y, A, None, None, weights)


def _kspace_jobs(
    scan: KSpaceScan,
    settings: ReconSettings,
    device: torch.device,
    maps: Sequence[Sequence[CoilMaps]] | None,
    skip: Collection[tuple[int, int]],
) -> Iterator[Job]:
    """Yield the images of k-space, with their sensitivity maps."""
    if settings.map_sets > 1 and settings.maps != "espirit":
        raise DipmedError("several sets of maps are found by --maps espirit; a file holds one set")
    maps = maps or _maps_for_all(scan, settings)
    variance = None
    if scan.noise_covariance is not None:
        variance = float(np.diag(scan.noise_covariance).real.mean())
    for frame in range(scan.n_frames):
        wanted = [index for index in range(scan.n_slices) if (frame, index) not in skip]
        if not wanted:
            continue
        is_volume = settings.split_readout or settings.stacks_slices(scan)
        volume = _volume_reference(scan, frame, settings) if is_volume and maps is None else None
        # the slices of a frame share their trajectory
        density = None if scan.trajectory is None else density_compensation(_positions(scan, frame), scan.image_shape)
        for index in wanted:
            given = None if maps is None else maps[frame][index]
            if density is None:
                y, A, A_final = _on_grid(scan, frame, index, settings, given, volume)
            else:
                y, A, A_final = _along_trajectory(scan, frame, index, density, settings, given, volume)
            yield Job(frame, index, y.to(device), A.to(device), A_final and A_final.to(device), variance)


def _maps_for_all(scan: KSpaceScan, settings: ReconSettings) -> list[list[CoilMaps]] | None:
    """The maps that all frames share, from a file or for a series; None when each image is to have its own."""
    if settings.maps not in MAP_METHODS:
        shared = _maps_from_file(Path(settings.maps), scan, settings)
    elif find_method(settings.method).takes_series:
        shared = _maps_of_all_frames(scan, settings)
    else:
        return None
    return [[CoilMaps.everywhere(maps) for maps in shared]] * scan.n_frames


def _volume_reference(scan: KSpaceScan, frame: int, settings: ReconSettings) -> VolumeReference:
    """What the maps of the slices of a frame share, so that the phase of their images is continuous."""
    if scan.trajectory is None:
        calibration = None if scan.calibration is None else scan.calibration[0]
        return volume_reference(scan.kspace[frame], sampled_mask(scan)[frame], settings.maps, calibration)
    positions = _positions(scan, frame).numpy()
    found = [central_kspace(y, positions, scan.image_shape, CALIBRATION_WIDTH) for y in scan.kspace[frame]]
    centres, masks = (np.stack(one) for one in zip(*found, strict=True))
    return volume_reference(centres, masks, settings.maps)


def _on_grid(
    scan: KSpaceScan,
    frame: int,
    index: int,
    settings: ReconSettings,
    given: CoilMaps | None,
    volume: VolumeReference | None,
) -> tuple[Tensor, MRIOperator, MRIOperator | None]:
    """Data and operators of one Cartesian image."""
    y, mask = scan.kspace[frame, index], sampled_mask(scan)[frame, index]
    data, sampled = torch.from_numpy(np.ascontiguousarray(y)), torch.from_numpy(np.ascontiguousarray(mask))
    calibration = None if scan.calibration is None else scan.calibration[0, index]
    found = given or _own_maps(y, mask, settings, calibration, volume)
    A = CartesianMRI(torch.from_numpy(found.cropped), sampled)
    return data, A, CartesianMRI(torch.from_numpy(found.maps), sampled) if _ends_wider(found, settings) else None


def _own_maps(
    y: Complex64,
    mask: NDArray[np.bool_],
    settings: ReconSettings,
    calibration: Complex64 | None = None,
    volume: VolumeReference | None = None,
) -> CoilMaps:
    """Maps of one slice; where it has no sample that is not zero there is nothing to find them in."""
    if not y.any():
        sets = (settings.map_sets,) if settings.map_sets > 1 else ()
        return CoilMaps.everywhere(np.zeros((*sets, *y.shape), np.complex64))
    return estimate_maps(y, mask, settings.maps, calibration=calibration, volume=volume, n_sets=settings.map_sets)


def _along_trajectory(
    scan: KSpaceScan,
    frame: int,
    index: int,
    density: Tensor,
    settings: ReconSettings,
    given: CoilMaps | None,
    volume: VolumeReference | None,
) -> tuple[Tensor, MRIOperator, MRIOperator | None]:
    """Data and operators of one image along a trajectory, weighted against its density, of norm 1 at most."""
    y, positions = scan.kspace[frame, index], _positions(scan, frame)
    found = given
    if found is None:
        centre, mask = central_kspace(y, positions.numpy(), scan.image_shape, CALIBRATION_WIDTH)
        found = _own_maps(centre, mask, settings, volume=volume)
    maps, wide = torch.from_numpy(found.cropped), torch.from_numpy(found.maps)
    norm = norm_bound(NonCartesianMRI(wide, positions, density)) if wide.any() else 1.0
    weights = density / norm**2
    A = NonCartesianMRI(maps, positions, weights)
    A_final = NonCartesianMRI(wide, positions, weights) if _ends_wider(found, settings) else None
    return A.weigh(torch.from_numpy(np.ascontiguousarray(y))), A, A_final


def _ends_wider(maps: CoilMaps, settings: ReconSettings) -> bool:
    """Whether there are maps beyond the support, and last steps of a fit that they are for."""
    return find_method(settings.method).is_fit and not bool(maps.support.all())


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
        found = _own_maps(y, mask, settings, calibration)
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
