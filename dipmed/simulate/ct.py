"""Projections of a CT volume: rays through its own fine voxels, averaged over each detector column as photons are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dipmed.scan import DipmedError, ImageVolume, ProjectionScan
from dipmed.simulate.volume import check_memory, check_reduction, from_slice, generator_for, voxel_sizes
from operators import (
    FanBeam,
    Grid,
    ParallelBeam,
    SliceProjector,
    angles_over,
    attenuation,
    field_of_view_mm,
    line_integrals,
    photon_counts,
)

GEOMETRIES = ("parallel", "fan")

SOURCE_TO_AXIS_MM = 570.0
SOURCE_TO_DETECTOR_MM = 1040.0
"""As in a clinical scanner, for which the detector is an arc about the source."""

_WIDEST = 0.75
"""Of the distance from source to axis: the radius of an object beyond which the scanner is made larger."""

RAYS = 3
"""Rays for each column, evenly spaced; their intensities are averaged."""

_VIEWS_BYTES = 2**28
"""About how much memory the weights of the views take that are computed at a time."""

_AIR_HU = -500.0


@dataclass(frozen=True)
class ProjectionSettings:
    """How a CT volume is measured.

    Parameters
    ----------
    n_views
        Equally spaced: over half a turn for parallel rays, over a full one for a fan.
    geometry
        One of `GEOMETRIES`.
    photons
        Expected for each ray without an object; None for no noise.
    water_per_mm
        Attenuation of water in 1/mm; 0.02 is that of about 70 keV.
    reduce
        Voxels of the volume along each side of a pixel to reconstruct, 2 or more.
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
    """Project slices of Hounsfield units; return the scan, and the attenuation in 1/mm on the grid to reconstruct.

    The rotation axis passes through the middle of each slice, and every view sees its corners, so nothing lies outside
    the field of view. Slices are measured one by one, as if the beam had no width along the axis.

    Raises
    ------
    GeometryError
        When the axes of the slices are not perpendicular.
    DipmedError
        When the values are no Hounsfield units, or the work would not fit in memory.
    """
    _check_hounsfield(volume)
    x_mm, y_mm, _ = voxel_sizes(volume)
    n_x, n_y = (-(-n // settings.reduce) for n in volume.data.shape[:2])
    fine = Grid((n_x * settings.reduce, n_y * settings.reduce), (x_mm, y_mm))
    grid = Grid((n_x, n_y), (x_mm * settings.reduce, y_mm * settings.reduce))
    beam = make_beam(settings.geometry, settings.n_views, fine.radius_mm, min(grid.spacing_mm))
    n_values = len(slices) * (2 * math.prod(fine.shape) + 4 * RAYS * math.prod(beam.shape))
    check_memory(4 * n_values + 4 * _VIEWS_BYTES, "choose fewer --slices or --views, or a larger --reduce")

    image = _attenuation(volume, settings, slices, fine)
    integrals = _project(image, fine, beam, progress)
    counts = None
    notes: tuple[str, ...] = (f"Simulated from an image volume on voxels {settings.reduce} times finer.",)
    if settings.photons is not None:
        counts, integrals, n_dark = _detect(integrals, settings, slices)
        notes += (f"{n_dark} of {integrals.numel()} rays were not reached by a photon.",) if n_dark else ()
    affine = _reduced_affine(from_slice(volume.affine, slices[0]), settings.reduce)
    blocks = image.reshape(len(slices), n_x, settings.reduce, n_y, settings.reduce)
    reference = ImageVolume(np.ascontiguousarray(blocks.mean(dim=(2, 4)).permute(1, 2, 0).numpy()), affine)
    scan = ProjectionScan(
        projections=integrals[:, 0].numpy(),
        beam=beam,
        grid=grid,
        affine=affine,
        source="simulated",
        counts=None if counts is None else counts[:, 0].numpy(),
        water_per_mm=settings.water_per_mm,
        assumptions=_assumptions(settings, beam),
        notes=notes,
    )
    return scan, reference


def make_beam(geometry: str, n_views: int, radius_mm: float, pixel_mm: float) -> ParallelBeam | FanBeam:
    """Return a beam whose every view sees the disc of this radius, with columns as wide as a pixel at the axis."""
    if geometry == "parallel":
        return ParallelBeam(angles_over(n_views), 2 * math.ceil(radius_mm / pixel_mm), pixel_mm)
    larger = max(1.0, radius_mm / (_WIDEST * SOURCE_TO_AXIS_MM))
    to_axis, to_detector = larger * SOURCE_TO_AXIS_MM, larger * SOURCE_TO_DETECTOR_MM
    column_mm = pixel_mm * to_detector / to_axis
    half = to_detector * math.asin(radius_mm / to_axis)
    n_columns = 2 * math.ceil(half / column_mm)
    return FanBeam(angles_over(n_views, 2 * math.pi), n_columns, column_mm, to_axis, to_detector, curved=True)


def _check_hounsfield(volume: ImageVolume) -> None:
    lowest = float(volume.data.min())
    if lowest > _AIR_HU:
        raise DipmedError(
            f"the lowest voxel of this volume is {lowest:.4g}; expected a CT volume in Hounsfield units, where the air "
            "around the object is -1000"
        )


def _attenuation(volume: ImageVolume, settings: ProjectionSettings, slices: range, fine: Grid) -> Tensor:
    """Attenuation of the slices, padded with air, ``(slice, 1, x, y)``."""
    n_x, n_y = volume.data.shape[:2]
    image = torch.zeros((len(slices), 1, *fine.shape))
    values = np.ascontiguousarray(np.moveaxis(volume.data[:, :, slices.start : slices.stop], 2, 0), dtype=np.float32)
    image[:, 0, :n_x, :n_y] = attenuation(torch.from_numpy(values), settings.water_per_mm)
    return image


def _project(
    image: Tensor, fine: Grid, beam: ParallelBeam | FanBeam, progress: Callable[[int, int], None] | None
) -> Tensor:
    """Line integrals ``(slice, 1, view, column)`` that the mean intensity over each column stands for."""
    rays = replace(beam, n_columns=beam.n_columns * RAYS, column_mm=beam.column_mm / RAYS)
    n_views = len(beam.angles)
    weights = 32 * rays.n_columns * max(fine.shape)  # bytes for one view, as the projector estimates them
    step = max(1, _VIEWS_BYTES // weights)
    parts = []
    for start in range(0, n_views, step):
        chosen = range(start, min(start + step, n_views))
        along_rays = SliceProjector(fine, rays.with_views(chosen))(image).double()
        intensity = torch.exp(-along_rays).reshape(*along_rays.shape[:-1], beam.n_columns, RAYS).mean(dim=-1)
        parts.append(-torch.log(intensity).float())
        if progress is not None:
            progress(chosen.stop, n_views)
    return torch.cat(parts, dim=2)


def _detect(integrals: Tensor, settings: ProjectionSettings, slices: range) -> tuple[Tensor, Tensor, int]:
    """Return the photons of each ray, the line integrals that they make, and how many rays had none."""
    assert settings.photons is not None  # noqa: S101  # or nothing is detected
    counts, measured, n_dark = [], [], 0
    for number, truth in zip(slices, integrals, strict=True):
        counts.append(photon_counts(truth, settings.photons, generator_for(settings.seed, number)))
        values, dark = line_integrals(counts[-1], settings.photons)
        measured.append(values)
        n_dark += int(dark.sum())
    return torch.stack(counts), torch.stack(measured), n_dark


def _reduced_affine(affine: np.ndarray, reduce: int) -> np.ndarray:
    """Affine of pixels that are means over ``reduce`` x ``reduce`` of the volume's."""
    coarse = affine.copy()
    coarse[:3, :2] *= reduce
    coarse[:3, 3] += affine[:3, :2].sum(axis=1) * (reduce - 1) / 2
    return coarse


def _assumptions(settings: ProjectionSettings, beam: ParallelBeam | FanBeam) -> tuple[str, ...]:
    scanner = f"{beam.n_columns} columns of {beam.column_mm:.4g} mm"
    if isinstance(beam, FanBeam):
        scanner += (
            f" on an arc, {beam.source_to_detector_mm:g} mm from a source that is {beam.source_to_axis_mm:g} mm from "
            "the axis"
        )
    return (
        "The values of the volume were taken as Hounsfield units, those below -1000 as air.",
        f"The attenuation of water was taken as {settings.water_per_mm:g} / mm.",
        f"The scanner: {settings.geometry} rays, {scanner}; a field of view of {2 * field_of_view_mm(beam):.4g} mm.",
        "One photon energy, no scatter, and a detector that counts every photon.",
    )
