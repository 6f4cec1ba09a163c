"""One job to one reconstruction: it depends on the job and the settings alone, so that any process may run it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.ct_baselines import has_back_projection
from dipmed.dip import DeepImagePrior, Observer, ProgressCallback
from dipmed.jobs import Job
from dipmed.methods import find_method, make_reconstructor
from dipmed.scan import DipmedError, DivergedError, Reconstruction, StopReason
from dipmed.settings import ReconSettings
from operators import Frames, LinearOperator, MRIOperator, Projector, Series

DIRECT = {"mri": "zero-filled", "ct": "fbp"}
"""The method of images that an interruption left undone."""

FULL = (
    "the GPU's memory is full; compress to fewer coils with --coils N, take a smaller network with --set "
    "network.channels=…, or use --device cpu"
)

_NO_SIGNAL = StopReason("direct", 0, "no coil saw anything but noise")
_NO_SAMPLE = StopReason("direct", 0, "all its samples are zero")

_OTHER_SEED = 1000
"""Added to the seed of a fit that diverged; those next to it are the seeds of an ensemble."""


def run_job(
    job: Job,
    settings: ReconSettings,
    *,
    progress: ProgressCallback | None = None,
    observer: Observer | None = None,
    start: Tensor | None = None,
) -> Reconstruction:
    """Reconstruct one image, or all frames of a series, by the method of the settings.

    Parameters
    ----------
    progress, observer
        Of a fit, see `dipmed.dip.DeepImagePrior`.
    start
        Weights of the neighbour's fit to start from; None for fresh ones.
    """
    if sees_nothing(job):
        return _empty(job, settings.method)
    if find_method(settings.method).is_fit:
        fit = make_fit(job, settings, progress=progress, observer=observer, start=start)
        return as_status(fit(job.y, job.A))
    return make_reconstructor(find_method(settings.method), FitConfig())(job.y, job.A)


def make_fit(
    job: Job,
    settings: ReconSettings,
    *,
    progress: ProgressCallback | None = None,
    observer: Observer | None = None,
    start: Tensor | None = None,
) -> DeepImagePrior:
    """Make the fit of a job, by the method of the settings; parameters are those of `run_job`."""
    config = settings.fit_config(job.modality, job.ndim)
    fit = make_reconstructor(
        find_method(settings.method),
        config if start is None else config.warmed(),
        options=_options(job, settings),
        noise_variance=job.noise_variance,
        A_final=job.A_final,
        ray_weights=job.ray_weights,
        progress=progress,
        observer=observer,
        uncertainty=settings.uncertainty,
        start=start,
        keep_weights=settings.warm_start,
    )
    assert isinstance(fit, DeepImagePrior)  # noqa: S101  # whoever asks for one has chosen such a method
    return fit


def as_status(part: Reconstruction) -> Reconstruction:
    """Mark an image whose fit was interrupted."""
    return replace(part, status="interrupted") if part.stop.rule == "interrupted" else part


def run_direct(job: Job, settings: ReconSettings) -> Reconstruction:
    """Make the image that takes no time, of a job that an interruption left undone."""
    if sees_nothing(job):
        return _empty(job, settings.method)
    method = find_method(DIRECT[job.modality])
    return replace(make_reconstructor(method, FitConfig())(job.y, job.A), status="interrupted")


def run_or_fill(
    job: Job,
    settings: ReconSettings,
    *,
    progress: ProgressCallback | None = None,
    observer: Observer | None = None,
    start: Tensor | None = None,
) -> Reconstruction:
    """Run a job so that one bad slice does not cost the volume; its image says what went wrong.

    A fit that diverges is tried again with another seed. If it diverges again, the image is that of ``cg-sense``, or of
    projections that of ``fbp``, or of ``sirt`` where there is no back-projection of such rays.

    Raises
    ------
    DivergedError
        When that diverges too.
    DipmedError
        When the GPU's memory is full.
    """
    try:
        return _run_or_fill(job, settings, progress, observer, start)
    except torch.cuda.OutOfMemoryError as error:
        raise DipmedError(FULL) from error


def _run_or_fill(
    job: Job,
    settings: ReconSettings,
    progress: ProgressCallback | None,
    observer: Observer | None,
    start: Tensor | None,
) -> Reconstruction:
    try:
        return run_job(job, settings, progress=progress, observer=observer, start=start)
    except DivergedError as error:
        return rescue(job, settings, error, progress=progress, observer=observer)


def rescue(
    job: Job,
    settings: ReconSettings,
    error: DivergedError,
    *,
    progress: ProgressCallback | None = None,
    observer: Observer | None = None,
) -> Reconstruction:
    """Make the image of a job whose fit diverged with ``error``, see `run_or_fill`."""
    if not find_method(settings.method).is_fit:
        return _fill(job, error)
    seed = settings.fit_config(job.modality, job.ndim).seed + _OTHER_SEED
    other = replace(settings, changes={**settings.changes, "seed": seed})
    try:
        part = run_job(job, other, progress=progress, observer=observer)
    except DivergedError as second:
        return _fill(job, second)
    if part.status == "interrupted":
        return part
    return replace(part, status="retried", trouble=f"with seed {seed}, after {error}")


def _fill(job: Job, error: DivergedError) -> Reconstruction:
    name = "cg-sense"
    if isinstance(job.A, Projector):
        name = "fbp" if has_back_projection(job.A.beam) else "sirt"
    part = make_reconstructor(find_method(name), FitConfig())(job.y, job.A)
    return replace(part, status="filled", trouble=f"by {name}, because {error}")


def sees_nothing(job: Job) -> bool:
    """Whether the slice holds nothing but air, so that there are no maps, or no sample that is not zero."""
    operators = job.A.operators if isinstance(job.A, Series) else (job.A,)
    has_maps = any(bool(one.maps.any()) if isinstance(one, MRIOperator) else True for one in operators)
    return not has_maps or not bool(job.y.any())


def by_frame(part: Reconstruction, A: LinearOperator) -> list[Reconstruction]:
    """Take the result of a series apart; each frame has its share of the time."""
    if not isinstance(A, Frames):
        return [part]
    return [replace(part, image=image, seconds=part.seconds / len(A.operators)) for image in A.images_of(part.image)]


def _options(job: Job, settings: ReconSettings) -> dict[str, Any]:
    """Options of the method for one image, with the similar image where the method takes one."""
    options = settings.fit_options()
    if job.guide is not None and find_method(settings.method).takes_guide:
        options["guide"] = job.guide
    return options


def _empty(job: Job, method: str) -> Reconstruction:
    """The image of a slice that holds nothing but air, or nothing at all."""
    image = torch.zeros(job.A.domain.shape, dtype=job.y.dtype)
    empty = Reconstruction(image, method, _NO_SIGNAL, 0, 0.0, std=image[:1].abs())
    if bool(job.y.any()):
        return empty
    return replace(empty, stop=_NO_SAMPLE, status="filled", trouble=f"with zeros, because {_NO_SAMPLE.reason}")
