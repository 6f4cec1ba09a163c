"""Degrees of freedom of any fit, by running it again beside itself with data that are a little different."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor

from dipmed.scan import DipmedError
from dipmed.theory.stacked import Stacked
from operators import LinearOperator

Fit = Callable[[Tensor], Iterable[Tensor]]
"""Takes data and gives images ``(1, x, y[, z])``, from the same weights and the same randomness at each call."""


@dataclass(frozen=True)
class FreedomCurve:
    """Degrees of freedom along a fit.

    Parameters
    ----------
    probes
        Estimate of each probe at each image of the fit, ``(probe, image)``.
    """

    probes: Tensor

    @property
    def mean(self) -> Tensor:
        """The estimate at each image, ``(image,)``."""
        return self.probes.mean(0)

    @property
    def standard_error(self) -> Tensor:
        """Of `mean`, from the scatter of the probes; NaN for a single one."""
        if len(self.probes) == 1:
            return torch.full_like(self.mean, math.nan)
        return self.probes.std(0) / math.sqrt(len(self.probes))


def degrees_of_freedom(
    fit: Fit,
    y: Tensor,
    A: LinearOperator,
    sigma: float,
    *,
    n_probes: int = 2,
    probe_size: float = 0.1,
    generator: torch.Generator,
) -> FreedomCurve:
    """Estimate the divergence of fitted data by the data, ``bᵀ(A x_t(y + δb) − A x_t(y)) / δ`` with normal b.

    Fits that are iterators go in lock-step: no more than one image of each is kept. The variance of one probe is about
    ``2 Σ (1 − g)²`` of the linear model, at most twice what it estimates.

    Parameters
    ----------
    fit
        The fit, e.g. ``lambda y: islice(gradient_descent(model, y, rate), 100)``. Random numbers must be the same at
        each call.
    y
        Data, one element of the operator's range.
    A
        The operator.
    sigma
        Standard deviation of the noise of one sample, ``E|n|² = sigma²``.
    n_probes
        Fits beside the one of ``y``.
    probe_size
        δ in deviations of the noise: small for a divergence, and well above what the fit's own rounding moves. The
        larger the steps of a fit, the more it amplifies any difference: those of Muon need about 1.
    generator
        Source of b.

    Raises
    ------
    ShapeError
        When ``y`` is not of the operator's range.
    DipmedError
        When a number is out of its bounds, or fits of different data have different lengths.

    References
    ----------
    S. Ramani, T. Blu, M. Unser, "Monte-Carlo SURE", IEEE TIP 2008, doi:10.1109/TIP.2008.2001404.
    """
    if n_probes < 1 or not 0 < probe_size < math.inf:
        raise DipmedError(f"at least one probe of a positive size is needed, got {n_probes} of {probe_size}")
    stacked = Stacked(A)
    A.range.check(y, "the fit")
    delta = probe_size * stacked.deviation(sigma)
    probes = torch.randn((n_probes, stacked.m), dtype=torch.float64, generator=generator, device=generator.device)
    probes = probes.to(y.device)
    moved = y + delta * stacked.data(probes).to(y.dtype)
    estimates = []
    for images in zip_longest(fit(y), *map(fit, moved)):
        if any(image is None for image in images):
            raise DipmedError("fits of the data and of the probes gave different numbers of images")
        fitted = stacked.forward(torch.stack([stacked.vector(image) for image in images]))
        estimates.append(((fitted[1:] - fitted[0]) * probes).sum(1) / delta)
    if not estimates:
        raise DipmedError("the fit gave no image")
    return FreedomCurve(torch.stack(estimates, 1))
