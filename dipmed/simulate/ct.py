"""Projections of a CT volume: rays through its own fine voxels, averaged over each detector cell as photons are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dipmed.scan import SIMULATED, DipmedError, ImageVolume, ProjectionScan
from dipmed.simulate.scanner import GEOMETRIES, SimulatedBeam, describe, make_beam, make_cone
from dipmed.simulate.volume import check_memory, check_reduction, from_slice, generator_for, voxel_sizes
from operators import (
    ConeBeam,
    Grid,
    LinearOperator,
    SliceProjector,
    VolumeProjector,
    attenuation,
    block_means,
    line_integrals,
    photon_counts,
)

_VIEWS_BYTES = 2**28
"""About how much memory the views take that are computed at a time."""

_AIR_HU = -500.0


@dataclass(frozen=True)
class ProjectionSettings:
    """How a CT volume is measured.

    Parameters
    ----------
    n_views
        Equally spaced: over half a turn for parallel rays, over a full one for a fan or a cone.
    geometry
        One of `GEOMETRIES`.
    photons
        Expected for each ray without an object; None for no noise.
    water_per_mm
        Attenuation of water in 1/mm; 0.02 is that of about 70 keV.
    reduce
        Voxels of the volume along each side of one to reconstruct, 2 or more; across slices for a cone alone.
    seed
        Of the noise.
    """

    n_views: int
    geometry: str = "fan"
    photons: float | None = None
    water_per_mm: float = 0.02
    reduce: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.geometry not in GEOMETRIES:
            raise DipmedError(f"unknown geometry {self.geometry!r}; choose one of {', '.join(GEOMETRIES)}")
        if self.n_views < 1:
            raise DipmedError(f"--views needs one or more views, got {self.n_views}")
        if self.photons is not None and not (math.isfinite(self.photons) and self.photons > 0):
            raise DipmedError(f"--photons must be positive, got {self.photons}")
        if not (math.isfinite(self.water_per_mm) and self.water_per_mm > 0):
            raise DipmedError(f"--water must be positive, about 0.02 / mm, got {self.water_per_mm}")
        check_reduction(self.reduce)


def simulate_projections(
    volume: ImageVolume,
    settings: ProjectionSettings,
    slices: range,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[ProjectionScan, ImageVolume]:
    """Project Hounsfield units; return the scan, and the attenuation in 1/mm on the grid to reconstruct.

    The rotation axis passes through the middle of the volume, and every view sees its corners, so nothing lies outside
    the field of view. Parallel rays and fans measure slices one by one, as if they had no width along the axis; a cone
    measures all slices as one volume.

    Raises
    ------
    GeometryError
        When the axes of the slices, or of the volume for a cone, are not perpendicular.
    DipmedError
        When the values are no Hounsfield units, or the work would not fit in memory.
    """
    _check_hounsfield(volume)
    n_axes = 3 if settings.geometry == "cone" else 2
    sizes = voxel_sizes(volume, n_axes)[:n_axes]
    factor = settings.reduce
    coarse = tuple(-(-n // factor) for n in (*volume.data.shape[:2], len(slices))[:n_axes])
    fine = Grid(tuple(n * factor for n in coarse), sizes)
    grid = Grid(coarse, tuple(size * factor for size in sizes))
    beam = _scanner(settings, fine, grid)
    n_items = 1 if n_axes == 3 else len(slices)
    n_values = n_items * (2 * math.prod(fine.shape) + 4 * math.prod(beam.shape))
    check_memory(4 * n_values + 4 * _VIEWS_BYTES, "choose fewer --slices or --views, or a larger --reduce")

    image = _attenuation(volume, settings, slices, fine)
    integrals = _project(image, fine, beam, factor, progress)
    counts = None
    notes: tuple[str, ...] = (f"Simulated from an image volume on voxels {factor} times finer.",)
    if settings.photons is not None:
        counts, integrals, n_dark = _detect(integrals, settings, slices)
        notes += (f"{n_dark} of {integrals.numel()} rays were not reached by a photon.",) if n_dark else ()
    affine = _reduced_affine(from_slice(volume.affine, slices[0]), factor, n_axes)
    scan = ProjectionScan(
        projections=integrals[:, 0].numpy(),
        beam=beam,
        grid=grid,
        affine=affine,
        source=SIMULATED,
        counts=None if counts is None else counts[:, 0].numpy(),
        water_per_mm=settings.water_per_mm,
        assumptions=(
            "The values of the volume were taken as Hounsfield units, those below -1000 as air.",
            f"The attenuation of water was taken as {settings.water_per_mm:g} / mm.",
            describe(beam),
            "One photon energy, no scatter, and a detector that counts every photon.",
        ),
        notes=notes,
    )
    truth = block_means(image[:, 0], factor, range(-n_axes, 0)).numpy()
    truth = truth[0] if n_axes == 3 else np.moveaxis(truth, 0, -1)
    return scan, ImageVolume(np.ascontiguousarray(truth), affine)


def _scanner(settings: ProjectionSettings, fine: Grid, grid: Grid) -> SimulatedBeam:
    pixel = min(grid.spacing_mm[:2])
    if settings.geometry != "cone":
        return make_beam(settings.geometry, settings.n_views, fine.radius_mm, pixel)
    height = fine.shape[2] * fine.spacing_mm[2]
    return make_cone(settings.n_views, fine.radius_mm, height, pixel, grid.spacing_mm[2])


def _check_hounsfield(volume: ImageVolume) -> None:
    lowest = float(volume.data.min())
    if lowest > _AIR_HU:
        raise DipmedError(
            f"the lowest voxel of this volume is {lowest:.4g}; expected a CT volume in Hounsfield units, where the air "
            "around the object is -1000"
        )


def _attenuation(volume: ImageVolume, settings: ProjectionSettings, slices: range, fine: Grid) -> Tensor:
    """Attenuation padded with air: of slices ``(slice, 1, x, y)``, or of a volume ``(1, 1, x, y, z)``."""
    chosen = volume.data[:, :, slices.start : slices.stop]
    values = attenuation(torch.from_numpy(np.ascontiguousarray(chosen, dtype=np.float32)), settings.water_per_mm)
    items = values[None] if len(fine.shape) == 3 else values.movedim(-1, 0)
    image = torch.zeros((len(items), 1, *fine.shape))
    inside = (slice(None), 0, *(slice(0, n) for n in items.shape[1:]))
    image[inside] = items  # type: ignore[index]  # a tuple of slices and numbers
    return image


def _project(
    image: Tensor, fine: Grid, beam: SimulatedBeam, factor: int, progress: Callable[[int, int], None] | None
) -> Tensor:
    """Line integrals ``(slice, 1, view[, row], column)`` that the mean intensity over each cell stands for.

    Rays to a cell lie no farther apart than the voxels: one more across a column, as many each way for a cone.
    """
    per_axis = factor if isinstance(beam, ConeBeam) else factor + 1
    rays: SimulatedBeam = replace(beam, n_columns=beam.n_columns * per_axis, column_mm=beam.column_mm / per_axis)
    if isinstance(rays, ConeBeam):
        rays = replace(rays, n_rows=rays.n_rows * per_axis, row_mm=rays.row_mm / per_axis)
        bytes_each = 24 * math.prod(rays.shape[1:])
    else:
        bytes_each = 32 * rays.n_columns * max(fine.shape)  # the matrices of the projector
    n_views = len(beam.angles)
    step = max(1, _VIEWS_BYTES // bytes_each)
    parts = []
    for start in range(0, n_views, step):
        chosen = range(start, min(start + step, n_views))
        along_rays = _projector(fine, rays.with_views(chosen))(image).double()
        intensity = block_means(torch.exp(-along_rays), per_axis, range(1 - len(beam.shape), 0))
        parts.append(-torch.log(intensity).float())
        if progress is not None:
            progress(chosen.stop, n_views)
    return torch.cat(parts, dim=2)


def _projector(grid: Grid, beam: SimulatedBeam) -> LinearOperator:
    return VolumeProjector(grid, beam) if isinstance(beam, ConeBeam) else SliceProjector(grid, beam)


def _detect(integrals: Tensor, settings: ProjectionSettings, slices: range) -> tuple[Tensor, Tensor, int]:
    """Return the photons of each ray, the line integrals that they make, and how many rays had none."""
    assert settings.photons is not None  # noqa: S101  # or nothing is detected
    counts, measured, n_dark = [], [], 0
    for number, truth in enumerate(integrals, start=slices.start):
        counts.append(photon_counts(truth, settings.photons, generator_for(settings.seed, number)))
        values, dark = line_integrals(counts[-1], settings.photons)
        measured.append(values)
        n_dark += int(dark.sum())
    return torch.stack(counts), torch.stack(measured), n_dark


def _reduced_affine(affine: np.ndarray, reduce: int, n_axes: int) -> np.ndarray:
    """Affine of voxels that are means over ``reduce`` of the volume's along the first axes."""
    coarse = affine.copy()
    coarse[:3, :n_axes] *= reduce
    coarse[:3, 3] += affine[:3, :n_axes].sum(axis=1) * (reduce - 1) / 2
    return coarse
