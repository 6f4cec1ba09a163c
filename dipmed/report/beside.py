"""What is shown beside a reconstruction: its disagreement with the data, and an image that takes little time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dipmed.assemble_volume import assemble_volume
from dipmed.baselines import CGSense, ZeroFilled
from dipmed.ct_baselines import FilteredBackProjection, LeastSquares, has_back_projection
from dipmed.jobs import Job
from dipmed.listener import Listener
from dipmed.places import Places, places_of
from dipmed.run_job import sees_nothing
from dipmed.scan import DivergedError, ImageVolume, Reconstruction, Scan
from dipmed.settings import ReconSettings
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


class Follower(Listener):
    """Compares each finished image with its data while they are there, and reconstructs them by another method.

    Attributes
    ----------
    prepared, settings, places
        The prepared scan, how it is reconstructed, and what its slices are called; from `begin` on.
    """

    prepared: Scan
    settings: ReconSettings
    places: Places

    def __init__(self) -> None:
        self._name = ""
        self._found: dict[int, tuple[Reconstruction, float | None]] = {}
        self._places_done: set[tuple[int, int]] = set()

    def begin(self, prepared: Scan, settings: ReconSettings, n_resumed: int) -> None:
        self.prepared, self.settings, self.places = prepared, settings, places_of(prepared, settings)

    def finished(self, job: Job, parts: Sequence[Reconstruction]) -> None:
        for (frame, y, A), part in zip(_frames(job), parts, strict=True):
            disagreement, error = _disagreement(part.image.to(y.device), y, A)
            self._name, other = _other(y, A, self.settings.method, blank=sees_nothing(job))
            compared = replace(part, image=other.cpu(), std=disagreement.cpu(), weights=None)
            self._found[self.places.number(frame, job.slice)] = compared, error
        self._places_done.add(job.place)

    def beside(self, parts: Sequence[Reconstruction]) -> Beside:
        """Return what is shown beside all parts of the result; those that a run before had finished are done now."""
        for job in jobs_of(self.prepared, self.settings, torch.device("cpu"), skip=self._places_done):
            self.finished(job, [parts[self.places.number(frame, job.slice)] for frame, *_ in _frames(job)])
        ordered = [self._found[number] for number in sorted(self._found)]
        image, disagreement, _ = assemble_volume(
            [part for part, _ in ordered],
            self.prepared,
            stacks=stacks_of(self.prepared, self.settings),
            in_hounsfield=self.settings.hounsfield,
        )
        assert disagreement is not None  # noqa: S101  # every part has one
        return Beside(self._name, image, disagreement, tuple(error for _, error in ordered))


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
