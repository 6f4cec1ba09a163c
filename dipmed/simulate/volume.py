"""From the voxels of a volume to the coarser ones of a reconstruction."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.patient import check_directions
from dipmed.scan import DipmedError, GeometryError, ImageVolume

MEMORY_GIB = 8.0
"""Most memory that a simulation may take."""


def check_reduction(reduce: int) -> None:
    """Refuse to measure on the grid that is reconstructed on, which would make the problem easier than any real one."""
    if reduce < 2:
        raise DipmedError(f"--reduce must be 2 or more, so that the simulation knows more than the image, got {reduce}")


def check_memory(n_bytes: float, advice: str) -> None:
    """Refuse what would not fit, with an estimate."""
    needed = n_bytes / 2**30
    if needed > MEMORY_GIB:
        raise DipmedError(f"this simulation needs about {needed:.1f} GiB, and {MEMORY_GIB:g} GiB are allowed; {advice}")


def voxel_sizes(volume: ImageVolume, n_axes: int = 2) -> tuple[float, float, float]:
    """Return the voxel sizes in mm of a volume whose first ``n_axes`` axes are perpendicular.

    Raises
    ------
    GeometryError
        When they are not.
    """
    columns = volume.affine[:3, :3].T
    sizes = np.linalg.norm(columns, axis=1)
    third = columns[2] if n_axes == 3 else np.cross(columns[0], columns[1])
    if not (sizes.all() and np.linalg.norm(third) > 0):
        raise GeometryError("the axes of the volume do not span it")
    check_directions(columns[0] / sizes[0], columns[1] / sizes[1], third / np.linalg.norm(third))
    return float(sizes[0]), float(sizes[1]), float(sizes[2])


def from_slice(affine: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Return the affine of a volume that begins with this slice."""
    moved = affine.copy()
    moved[:3, 3] += first * affine[:3, 2]
    return moved


def generator_for(seed: int, number: int) -> torch.Generator:
    """Return the source of randomness of one slice: it has the same noise whichever others are simulated with it."""
    state = np.random.SeedSequence((seed, number)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))
