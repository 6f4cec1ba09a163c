"""A similar image from a file, checked against the place of the scan that it guides."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.io.images import load_image
from dipmed.methods import Method
from dipmed.patient import default_affine, picture_affine
from dipmed.scan import DipmedError, GeometryError, KSpaceScan, Scan, ShapeError
from dipmed.settings import ReconSettings

_OPTION = "--reference-image"


def check_guide(settings: ReconSettings, methods: Sequence[Method]) -> None:
    """Refuse a method that lacks its similar image, and an image that no method takes.

    Raises
    ------
    DipmedError
        In both cases.
    """
    guided = [method.name for method in methods if method.takes_guide]
    if guided and settings.reference_image is None:
        raise DipmedError(f"{guided[0]} needs a similar image of the same place; give one with {_OPTION} FILE")
    if not guided and settings.reference_image is not None:
        raise DipmedError(f"{_OPTION} is for reference-guided, and not for {', '.join(m.name for m in methods)}")


def load_guides(scan: Scan, prepared: Scan, settings: ReconSettings) -> NDArray[Any] | None:
    """Read the similar image of each slice, ``(slice, x, y)``, or of the volume, ``(1, x, y, z)``; None without one.

    Of a scan of which some ``slices`` are chosen it may hold all or those alone.

    Parameters
    ----------
    scan
        As it came from its file, which says whether its place is known.
    prepared
        What is reconstructed.

    Raises
    ------
    ShapeError
        When its grid is not that of the images.
    GeometryError
        When it lies elsewhere, if both the scan and its file say where they are.
    """
    if settings.reference_image is None:
        return None
    path = settings.reference_image
    image = load_image(path)
    data, affine = image.data, image.affine
    placed = not (_place_is_assumed(affine, data.shape[:3]) or _is_placeless(scan))
    sizes = prepared.matrix_shape if isinstance(prepared, KSpaceScan) else prepared.grid.shape
    expected = sizes if prepared.ndim == 3 else (*sizes, prepared.n_slices)
    if prepared.ndim == 2 and settings.slices is not None and data.shape[2] != expected[2]:
        first, end = settings.slices
        data = data[:, :, first:end]
        affine = affine.copy()
        affine[:3, 3] += first * affine[:3, 2]
    if data.shape != expected:
        raise ShapeError(f"the similar image must be {expected} like the scan's, but {path} is {image.data.shape}")
    misfit = _distance_mm(affine, prepared.affine, expected)
    if placed and misfit > np.linalg.norm(prepared.affine[:3, :3], axis=0).min() / 2:
        raise GeometryError(f"{path} lies up to {misfit:.1f} mm from the scan; align it and resample it to its grid")
    return data[None] if prepared.ndim == 3 else np.moveaxis(data, 2, 0)


def _is_placeless(scan: Scan) -> bool:
    sizes = scan.image_shape if isinstance(scan, KSpaceScan) else scan.grid.shape
    return _place_is_assumed(scan.affine, sizes if scan.ndim == 3 else (*sizes, scan.n_slices))


def _place_is_assumed(affine: NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    """Whether an affine is, within a voxel, one of those that stand for an unknown place."""
    voxel = np.linalg.norm(affine[:3, :3], axis=0)
    assumed = (default_affine(tuple(voxel), shape), picture_affine(tuple(voxel), shape))
    return any(
        np.allclose(affine[:3, :3], other[:3, :3], atol=1e-4)
        and bool((np.abs(affine[:3, 3] - other[:3, 3]) <= voxel.max()).all())
        for other in assumed
    )


def _distance_mm(one: NDArray[np.float64], other: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Largest distance of a corner of one volume from the same of the other."""
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm(corners @ (one - other).T, axis=1).max())
