"""What has to be settled before projections are reconstructed: which views and slices, and where the axis is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.scan import DipmedError, ProjectionScan
from operators import Grid, ParallelBeam

_UNSTEADY = 0.02
"""Share of the detector's width by which the centre of mass may leave its sine wave in a complete scan."""


def keep_views(scan: ProjectionScan, n_views: int) -> ProjectionScan:
    """Keep some of the measured views, evenly by their number.

    Raises
    ------
    DipmedError
        When the scan has fewer.
    """
    if not 1 <= n_views <= scan.n_views:
        raise DipmedError(f"--views {n_views} cannot be kept: the scan has {scan.n_views}")
    chosen = [number * scan.n_views // n_views for number in range(n_views)]
    return scan.replace(
        projections=scan.projections[:, chosen],
        counts=None if scan.counts is None else scan.counts[:, chosen],
        beam=scan.beam.with_views(chosen),
    )


def keep_slices(scan: ProjectionScan, slices: tuple[int, int]) -> ProjectionScan:
    """Keep the slices from the first to the one before the second number.

    Raises
    ------
    DipmedError
        When they do not fit the scan, or it has no slices.
    """
    first, end = slices
    if scan.ndim == 3:
        raise DipmedError("--slices chooses slices of a 2-D scan; this one is seen by a cone, as a volume")
    if not 0 <= first < end <= scan.n_slices:
        raise DipmedError(f"--slices {first}:{end} does not fit {scan.n_slices} slices; they count from 0")
    affine = scan.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    chosen = slice(first, end)
    counts = None if scan.counts is None else scan.counts[chosen]
    return scan.replace(projections=scan.projections[chosen], counts=counts, affine=affine)


def resample_grid(scan: ProjectionScan, n: int) -> ProjectionScan:
    """Reconstruct the same field of view on ``n`` x ``n`` pixels; the voxels of a volume keep their proportions."""
    if n < 2:
        raise DipmedError(f"--matrix needs two or more pixels, got {n}")
    grid = scan.grid
    shape = (n, n, *(max(1, round(size * n / grid.shape[0])) for size in grid.shape[2:]))
    spacing = tuple(old * size / new for old, size, new in zip(grid.spacing_mm, grid.shape, shape, strict=True))
    factors = np.ones(3)
    factors[: len(shape)] = [new / old for new, old in zip(spacing, grid.spacing_mm, strict=True)]
    affine = scan.affine.copy()
    affine[:3, :3] = scan.affine[:3, :3] * factors
    # the outer edge of the first voxel stays where it is
    affine[:3, 3] += scan.affine[:3, :3] @ ((factors - 1) / 2)
    return scan.replace(grid=Grid(shape, spacing, grid.centre_mm), affine=affine)


def centre_rotation(scan: ProjectionScan) -> ProjectionScan:
    """Find where the rotation axis is projected to, if the file does not say it.

    Parallel projections of a whole object have their centre of mass on a sine wave about the axis, whatever the object
    (S. Helgason, D. Ludwig, 1966; F. Natterer, 2001, doi:10.1137/1.9780898719284). Where the wave does not fit, as when
    the object is wider than the detector, the middle of the detector is kept. Either is listed as an assumption.
    """
    if scan.centre_known:
        return scan
    beam = scan.beam
    found = _axis_column(scan.projections, np.array(beam.angles)) if isinstance(beam, ParallelBeam) else None
    if found is None or not isinstance(beam, ParallelBeam):
        sentence = "Where the rotation axis is projected to is unknown: the middle of the detector was assumed."
        return scan.replace(centre_known=True, assumptions=(*scan.assumptions, sentence))
    sentence = (
        f"The rotation axis was taken to be projected to column {found:.2f}, counted from 0, about which the centre of "
        "mass of the views moves."
    )
    offset = (beam.n_columns - 1) / 2 - found
    return scan.replace(
        beam=replace(beam, column_offset=offset),
        centre_known=True,
        assumptions=(*scan.assumptions, sentence),
    )


def assume_counts(scan: ProjectionScan) -> ProjectionScan:
    """Take the photons of each ray as proportional to ``exp(−p)``, as where all columns are lit alike."""
    sentence = "How many photons each ray had is unknown: they were taken as in proportion to exp(-line integral)."
    counts = np.exp(-np.clip(scan.projections, 0, None))
    return scan.replace(counts=counts, assumptions=(*scan.assumptions, sentence))


def ray_weights(scan: ProjectionScan, index: int, peak: float | None = None) -> Tensor:
    """Return the roots of the counts of one slice or volume, ``(view, [row,] column)``, at most 1.

    The variance of a line integral is one over the expected photons of its ray, so that least squares with these
    weights are those of Poisson noise to first order (K. Sauer, C. Bouman, 1993, doi:10.1109/78.193196).

    Parameters
    ----------
    peak
        Counts whose weight is 1; None for the most of this slice.

    Raises
    ------
    DipmedError
        When no ray has a photon.
    """
    assert scan.counts is not None  # noqa: S101  # or they were assumed
    counts = np.clip(scan.counts[index], 0, None)
    if not counts.any():
        raise DipmedError("no ray has a photon to weight it by; leave out --poisson")
    return torch.from_numpy(np.sqrt(counts / (counts.max() if peak is None else np.float32(peak))))


def _axis_column(projections: NDArray[np.float32], angles: NDArray[np.float64]) -> float | None:
    """Mean of the sine wave of the centre of mass, over all slices; None where there is no such wave."""
    wave = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
    if np.linalg.matrix_rank(wave, tol=1e-3) < 3:
        return None
    values = projections.astype(np.float64)
    mass = values.sum(axis=-1)
    if not (mass > 0).all():
        return None
    centres = (values @ np.arange(values.shape[-1])) / mass
    # slices share the axis but not the object: one mean for all, a wave for each
    n_slices = len(centres)
    design = np.zeros((n_slices, len(angles), 1 + 2 * n_slices))
    design[:, :, 0] = 1
    for index in range(n_slices):
        design[index, :, 1 + 2 * index : 3 + 2 * index] = wave[:, 1:]
    fit, *_ = np.linalg.lstsq(design.reshape(-1, design.shape[-1]), centres.reshape(-1), rcond=None)
    misfit = np.abs(design.reshape(-1, design.shape[-1]) @ fit - centres.reshape(-1)).max()
    inside = 0 <= fit[0] <= values.shape[-1] - 1
    return float(fit[0]) if inside and misfit < _UNSTEADY * values.shape[-1] else None
