"""One job to one reconstruction: it depends on the job and the settings alone, so that any process may run it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from dipmed.dip import Observer, ProgressCallback
from dipmed.jobs import Job
from dipmed.methods import find_method, make_reconstructor
from dipmed.prepare import ReconSettings
from dipmed.scan import Reconstruction, StopReason
from operators import Frames, LinearOperator, MRIOperator

DIRECT = {"mri": "zero-filled", "ct": "fbp"}
"""The method of images that an interruption left undone."""


def run_job(
    job: Job,
    settings: ReconSettings,
    *,
    progress: ProgressCallback | None = None,
    observer: Observer | None = None,
) -> Reconstruction:
    """Reconstruct one image, or all frames of a series, by the method of the settings.

    Parameters
    ----------
    progress, observer
        Of a fit, see `dipmed.dip.DeepImagePrior`.
    """
    if sees_nothing(job.A):
        return _empty(job, settings.method)
    reconstructor = make_reconstructor(
        find_method(settings.method),
        settings.fit_config(job.modality, job.ndim),
        options=_options(job, settings),
        noise_variance=job.noise_variance,
        A_final=job.A_final,
        ray_weights=job.ray_weights,
        progress=progress,
        observer=observer,
        uncertainty=settings.uncertainty,
    )
    return reconstructor(job.y, job.A)


def run_direct(job: Job, settings: ReconSettings) -> Reconstruction:
    """Make the image that takes no time, for jobs that an interruption left undone."""
    if sees_nothing(job.A):
        return _empty(job, settings.method)
    method = find_method(DIRECT[job.modality])
    return make_reconstructor(method, settings.fit_config(job.modality, job.ndim))(job.y, job.A)


def sees_nothing(A: LinearOperator) -> bool:
    """Whether the slice holds nothing but air, so that there are no maps."""
    operators = A.operators if isinstance(A, Frames) else (A,)
    return not any(bool(one.maps.any()) if isinstance(one, MRIOperator) else True for one in operators)


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
    """The image of a slice that holds nothing but air."""
    image = torch.zeros(job.A.domain.shape, dtype=job.y.dtype)
    stop = StopReason("direct", 0, "no coil saw anything but noise")
    return Reconstruction(image, method, stop, 0, 0.0, std=image[:1].abs())
