"""Jobs whose images are volumes: all slices of a scan, or overlapping slabs of them, each fitted by one network."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.calib.coils import CoilMaps
from dipmed.jobs import Job, jobs, n_frames, n_jobs
from dipmed.scan import DipmedError, Scan
from dipmed.settings import ReconSettings
from dipmed.slabs import Range, slab_ranges
from operators import MRIOperator, SliceProjector, Slices, StackedProjector


def stacks_of(scan: Scan, settings: ReconSettings) -> list[Range] | None:
    """Which slices of a prepared scan are one job each; None where images are taken as they were measured.

    Raises
    ------
    DipmedError
        When there is one slice alone.
    """
    if not settings.stacks_slices(scan):
        return None
    if scan.n_slices < 2:
        raise DipmedError(f"--mode {settings.mode} is for several slices, and there is one here; leave --mode out")
    size = scan.n_slices if settings.mode == "3d" or settings.slab is None else settings.slab
    return slab_ranges(scan.n_slices, size)


def n_jobs_of(scan: Scan, settings: ReconSettings) -> int:
    """How many jobs there are of a prepared scan."""
    stacks = stacks_of(scan, settings)
    return n_jobs(scan, settings) if stacks is None else len(stacks) * n_frames(scan)


def jobs_of(
    scan: Scan,
    settings: ReconSettings,
    device: torch.device,
    guides: NDArray[Any] | None = None,
    maps: Sequence[Sequence[CoilMaps]] | None = None,
    *,
    skip: Collection[tuple[int, int]] = (),
) -> Iterator[Job]:
    """Yield the jobs of a prepared scan; a stack of slices stands at the place of its first.

    Parameters are those of `dipmed.jobs.jobs`.
    """
    stacks = stacks_of(scan, settings)
    if stacks is None:
        yield from jobs(scan, settings, device, guides, maps, skip=skip)
        return
    for frame in range(n_frames(scan)):
        wanted = [(first, end) for first, end in stacks if (frame, first) not in skip]
        needed = {index for first, end in wanted for index in range(first, end)}
        others = {(f, z) for f in range(n_frames(scan)) for z in range(scan.n_slices) if f != frame or z not in needed}
        yield from _stacked(jobs(scan, settings, device, guides, maps, skip=others), wanted, _pitch(scan))


def _pitch(scan: Scan) -> float:
    """From one slice to the next, in pixels."""
    pixel, _, step = np.linalg.norm(scan.affine[:3, :3], axis=0)
    return float(step / pixel)


def _stacked(single: Iterator[Job], stacks: list[Range], pitch: float) -> Iterator[Job]:
    """Join the slices of a frame to volumes; only those are held that a volume still needs."""
    held: list[Job] = []
    left = deque(stacks)
    for job in single:
        held.append(job)
        if left and left[0][1] == job.slice + 1:
            first, _ = left.popleft()
            yield _stack([one for one in held if one.slice >= first], pitch)
            held = [one for one in held if left and one.slice >= left[0][0]]


def _stack(slices: list[Job], pitch: float) -> Job:
    """Take slices as one volume: their axis is the second of the data, and the last of the image."""
    first = slices[0]
    weights = [job.ray_weights for job in slices if job.ray_weights is not None]
    guides = [job.guide for job in slices if job.guide is not None]
    joined = replace(first, guide=torch.stack(guides, -1) if guides else None)
    if isinstance(first.A, SliceProjector):
        y = torch.stack([job.y for job in slices], 2)
        A = StackedProjector(first.A, len(slices), pitch)
        return replace(joined, y=y, A=A, ray_weights=torch.stack(weights, 1) if weights else None)
    finals = [job.A_final for job in slices if isinstance(job.A_final, MRIOperator)]
    return replace(
        joined,
        y=torch.stack([job.y for job in slices], 1),
        A=Slices([job.A for job in slices if isinstance(job.A, MRIOperator)]),
        A_final=Slices(finals) if finals else None,
    )
