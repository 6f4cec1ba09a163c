"""CT of volumes without a matrix: line integrals through voxels and their exact adjoint."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.ct_cone import VolumeBeam
from operators.ct_coverage import sees
from operators.ct_geometry import Array, Grid
from operators.errors import DipmedError, ShapeError

_COPIES = 4
"""Volumes and sets of projections that the least of reconstructions holds at a time."""


@dataclass(frozen=True)
class Rays:
    """The rays of all views, in voxels counted from the middle of the first one.

    Parameters
    ----------
    sources
        Where the source of each view stands, or the direction of its rays, ``(view, 3)``.
    cells
        The cells of the first row, ``(view, column, 3)``.
    row_steps
        From one row to the next, ``(view, 3)``.
    parallel
        Whether ``sources`` are directions.
    n_rows
        Number of rows.
    spacing_mm
        Size of a voxel.
    """

    sources: Array
    cells: Array
    row_steps: Array
    parallel: bool
    n_rows: int
    spacing_mm: Array


def rays_in_voxels(grid: Grid, beam: VolumeBeam) -> Rays:
    """Return the rays of a beam as a volume's voxels count."""
    n_views, n_rows, n_columns = beam.shape
    spacing = np.array(grid.spacing_mm)
    first = np.array([grid.coordinates(axis)[0] for axis in range(3)])
    columns = np.arange(float(n_columns))
    cells = np.stack([beam.cells(view, np.array([0.0, 1.0]), columns) for view in range(n_views)])
    sources = np.stack([beam.source(view) for view in range(n_views)])
    return Rays(
        sources=sources / spacing if beam.is_parallel else (sources - first) / spacing,
        cells=np.ascontiguousarray((cells[:, 0] - first) / spacing),
        row_steps=(cells[:, 1, 0] - cells[:, 0, 0]) / spacing,
        parallel=beam.is_parallel,
        n_rows=n_rows,
        spacing_mm=spacing,
    )


class VolumeProjector(LinearOperator):
    """Line integrals through a volume: ``(1, x, y, z)`` in 1/mm becomes projections ``(1, view, row, column)``.

    The weights are those of `SliceProjector` in three dimensions: in each plane of the axis that a ray crosses most
    steeply, linear between the four voxels around it (P. M. Joseph, 1982, doi:10.1109/TMI.1982.4307572). They are
    computed anew at each call, in the same way for the forward and the adjoint, which is therefore exact. On the CPU
    numba compiles the work, and the same input gives the same bits whatever the number of threads; on CUDA Triton does,
    and the adjoint sums in an order that changes.

    Parameters
    ----------
    grid
        Voxels of the volume.
    beam
        How the rays run.
    memory_gib
        Most memory that a reconstruction may take; by default what the machine has.

    Raises
    ------
    ShapeError
        When the grid is a slice.
    DipmedError
        When no ray meets the grid, a source stands inside it, or a reconstruction would not fit; the message has an
        estimate.
    """

    traceable = False

    def __init__(self, grid: Grid, beam: VolumeBeam, *, memory_gib: float | None = None) -> None:
        if len(grid.shape) != 3:
            raise ShapeError(f"a volume has three axes, the grid is {grid.shape}")
        super().__init__(Space((1, *grid.shape), is_complex=False), Space((1, *beam.shape), is_complex=False))
        _check_memory(self, memory_gib)
        self.grid = grid
        self.beam = beam
        rays = rays_in_voxels(grid, beam)
        if not beam.is_parallel:
            _check_sources(grid, rays.sources)
        if not sees(beam, grid):
            raise DipmedError(f"no ray meets the {grid}; check offsets and distances")
        # says on which device the operator is, and moves with it
        self.register_buffer("_place", torch.zeros(0), persistent=False)

    def _forward(self, x: Tensor) -> Tensor:
        return self._march(x, self.domain, self.range, adjoint=False)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._march(y, self.range, self.domain, adjoint=True)

    def _march(self, x: Tensor, source: Space, target: Space, *, adjoint: bool) -> Tensor:
        batch = x.shape[: x.ndim - 4]
        flat = x.detach().reshape(-1, *source.shape[1:]).contiguous()
        done = self._kernels[x.device.type].adjoint(flat) if adjoint else self._kernels[x.device.type].forward(flat)
        return done.reshape(batch + target.shape)

    @cached_property
    def _kernels(self) -> _Kernels:
        return _Kernels(rays_in_voxels(self.grid, self.beam), self.grid.shape)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kernels"}


class _Kernels:
    """The compiled code for each kind of device, made when it is first asked for."""

    def __init__(self, rays: Rays, shape: tuple[int, ...]) -> None:
        self._arguments = rays, shape
        self._made: dict[str, Any] = {}

    def __getitem__(self, device: str) -> Any:
        if device not in self._made:
            self._made[device] = self._make(device)
        return self._made[device]

    def _make(self, device: str) -> Any:
        try:
            if device == "cpu":
                from operators.march_numba import March

                return March(*self._arguments)
            if device == "cuda":
                from operators.march_triton import TritonMarch

                return TritonMarch(*self._arguments)
        except ImportError as error:
            raise DipmedError(
                f"volumes are projected on {device} by {error.name}, which is not installed: pip install {error.name}"
            ) from error
        raise DipmedError(f"volumes are projected on cpu and cuda, got a tensor on {device}; move it with .to('cpu')")


def _check_memory(A: VolumeProjector, memory_gib: float | None) -> None:
    allowed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if memory_gib is None else memory_gib
    needed = 4 * _COPIES * (A.domain.size + A.range.size) / 2**30
    if needed > allowed:
        raise DipmedError(
            f"{_sizes(A.range.shape)} projections of {_sizes(A.domain.shape)} voxels need {needed:.1f} GiB at "
            f"least, and there are {allowed:.1f}; take fewer views (--views), coarser voxels (--matrix), or more memory"
        )


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:]))


def _check_sources(grid: Grid, sources: Array) -> None:
    """Refuse a source within the outer faces of the voxels."""
    inside = ((sources > -0.5) & (sources < np.array(grid.shape) - 0.5)).all(axis=1)
    if inside.any():
        raise DipmedError(
            f"the source of view {int(inside.argmax())} stands inside the volume; check the distances, or take a "
            "smaller volume"
        )
