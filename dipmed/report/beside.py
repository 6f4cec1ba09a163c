"""What is shown beside a reconstruction: its disagreement with the data, and an image that takes little time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dipmed.assemble_volume import assemble_volume
from dipmed.baselines import CGSense, ZeroFilled
from dipmed.ct_baselines import FilteredBackProjection, LeastSquares, has_back_projection
from dipmed.jobs import Job
from dipmed.prepare import ReconSettings
from dipmed.recon import ScanResult
from dipmed.report.places import Places
from dipmed.run_job import sees_nothing
from dipmed.scan import DivergedError, ImageVolume, Reconstruction, Scan
from dipmed.stacks import jobs_of, stacks_of
from operators import Frames, LinearOperator, Projector, combine_sets

_STEPS = 10
"""Of conjugate gradients: they take as long as ten iterations of a fit, and are too few to amplify the noise."""


@dataclass(frozen=True)
class Beside:
    """Volumes in the place and unit of the reconstruction.

    ``name`` is the other image's, ``errors`` are ``‖Ax − y‖ / ‖y‖`` of each reconstruction, None where y is zero.
    """

    name: str
    image: ImageVolume
    disagreement: ImageVolume
    errors: tuple[float | None, ...]


def beside(scan: Scan, settings: ReconSettings, result: ScanResult, places: Places) -> Beside:
    """Compare a result with the data of the prepared scan, and reconstruct it by another method."""
    name = ""
    found: dict[int, tuple[Reconstruction, float | None]] = {}
    for job in jobs_of(scan, settings, torch.device("cpu")):
        for frame, y, A in _frames(job):
            number = places.number(frame, job.slice)
            part = result.reconstructions[number]
            disagreement, error = _disagreement(part.image.cpu(), y, A)
            name, other = _other(y, A, settings.method, blank=sees_nothing(job))
            found[number] = replace(part, image=other, std=disagreement), error
    ordered = [found[number] for number in sorted(found)]
    image, disagreement_map, _ = assemble_volume(
        [part for part, _ in ordered], scan, stacks=stacks_of(scan, settings), in_hounsfield=settings.hounsfield
    )
    assert disagreement_map is not None  # noqa: S101  # every part has one
    return Beside(name, image, disagreement_map, tuple(error for _, error in ordered))


def _frames(job: Job) -> list[tuple[int, Tensor, LinearOperator]]:
    """The frames of a job, each with its data and its operator."""
    if isinstance(job.A, Frames):
        return [(frame, job.y[:, frame], A) for frame, A in enumerate(job.A.operators)]
    return [(job.frame, job.y, job.A_final or job.A)]


def _disagreement(x: Tensor, y: Tensor, A: LinearOperator) -> tuple[Tensor, float | None]:
    """Return ``|Aᴴ(Ax − y)|`` in units of the image, and the relative error of the data.

    Projections are divided by those of ones, ``AᴴA1``: a mean over the rays through a voxel.
    """
    with torch.inference_mode():
        residual = A(x) - y
        size = float(torch.linalg.vector_norm(y))
        error = float(torch.linalg.vector_norm(residual)) / size if size else None
        back = A.adjoint(residual)
        if isinstance(A, Projector):
            back = back / A.adjoint(A(torch.ones_like(x))).clamp_min(torch.finfo(x.dtype).tiny)
        return combine_sets(back).abs(), error


def _other(y: Tensor, A: LinearOperator, method: str, *, blank: bool) -> tuple[str, Tensor]:
    """Name and image of what takes little time and is not the method itself; empty where it fails."""
    steps = f"{_STEPS} iterations"
    other: ZeroFilled | CGSense | FilteredBackProjection | LeastSquares
    if isinstance(A, Projector):
        has_fbp = method != "fbp" and has_back_projection(A.beam)
        name, other = (
            ("fbp", FilteredBackProjection()) if has_fbp else (f"cg-ls, {steps}", LeastSquares(max_iter=_STEPS))
        )
    elif method == "cg-sense":
        name, other = "zero-filled", ZeroFilled()
    else:
        name, other = f"cg-sense, {steps}", CGSense(max_iter=_STEPS)
    try:
        return name, torch.zeros(A.domain.shape, dtype=y.dtype) if blank else other(y, A).image  # type: ignore[arg-type]
    except DivergedError:
        return name, torch.zeros(A.domain.shape, dtype=y.dtype)
