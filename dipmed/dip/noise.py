"""The noise of measured data: its level, measured or estimated, and draws that have its covariance."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dipmed.calib.noise import outermost_noise_level
from dipmed.calib.ray_noise import ray_noise_level
from dipmed.scan import DipmedError
from operators import CartesianMRI, FilteredProjector, ImageMask, LinearOperator, NonCartesianMRI, Series

_GAUSSIAN_MEDIAN = 0.6745
"""Median of the magnitude of a standard normal number."""

_DRAWS = 4
"""Averaged for the energy of filtered noise."""


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of the data, white before the operator weights and filters them.

    Parameters
    ----------
    A
        Whose data they are: noise lies at its sampled locations alone; samples along a trajectory are weighted, line
        integrals are weighted and filtered. Where rays have weights, the noise of a line integral is the level over
        the weight, as that of counted photons is to first order.
    level
        Standard deviation of one number before that, in scaled units; complex ones have half its square in each part.
    assumption
        How the level was estimated, one sentence; None when it was measured.
    is_bound
        Whether there may be much less noise, because it could not be told from detail.
    """

    A: LinearOperator
    level: float
    assumption: str | None = None
    is_bound: bool = False

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draw noise of the data, one element of the range, and the line integrals behind it, if there are any."""
        A = self.A
        if isinstance(A, Series):
            return torch.stack([Noise(frame, self.level).draw(generator)[0] for frame in A.operators], 1), None
        raw = self.level * A.range.randn(generator=generator, device=A.device)
        if isinstance(A, FilteredProjector):
            if A.ray_weights is not None:
                raw = raw * torch.where(A.ray_weights > 0, 1 / A.ray_weights, 0).to(raw.dtype)
            return A.weigh(raw), raw
        if isinstance(A, NonCartesianMRI):
            return A.weigh(raw), None
        return raw * A.mask if isinstance(A, CartesianMRI | ImageMask) else raw, None

    @cached_property
    def energy(self) -> float:
        """Expected sum of squares of the noise of all data."""
        A = self.A
        if isinstance(A, FilteredProjector):
            generator = torch.Generator().manual_seed(0)
            return sum(float(self.draw(generator)[0].square().sum()) for _ in range(_DRAWS)) / _DRAWS
        if isinstance(A, Series):
            return sum(Noise(frame, self.level).energy for frame in A.operators)
        if isinstance(A, NonCartesianMRI):
            numbers = float(A.weights.sum()) * A.range.shape[0]
        elif isinstance(A, CartesianMRI | ImageMask):
            numbers = float(A.mask.sum()) * A.range.shape[0]
        else:
            numbers = float(A.range.size)
        return self.level**2 * numbers


def estimate_noise(A: LinearOperator, y: Tensor, line_integrals: Tensor | None, scale: float = 1.0) -> Noise:
    """Estimate the noise level of data that have no noise measurement.

    All estimates are medians, which the few places that have structure move little, and upwards (D. Donoho,
    I. Johnstone, 1994, doi:10.1093/biomet/81.3.425). Of k-space, the median of ``|y|²`` over the outermost samples, see
    `dipmed.calib.noise`. Of line integrals, fourth differences along the columns, see `dipmed.calib.ray_noise`. Of
    images, the finest diagonal Haar coefficients of the voxels that are known.

    Parameters
    ----------
    scale
        What data and line integrals were multiplied by.

    Raises
    ------
    DipmedError
        When there is no estimator for such data, or they show no noise at all.
    """
    if isinstance(A, CartesianMRI | NonCartesianMRI):
        return Noise(A, _of_kspace(A, y), "The noise level was estimated from the outermost samples of k-space.")
    if isinstance(A, Series):
        levels = [_of_kspace(one, data) for one, data in zip(A.operators, A.data_of(y), strict=True)]
        level = statistics.median(levels)
        return Noise(A, level, "The noise level was estimated from the outermost samples of k-space, image by image.")
    if isinstance(A, FilteredProjector) and line_integrals is not None:
        level, is_told = ray_noise_level((line_integrals / scale).cpu().numpy())
        level *= scale
        if A.ray_weights is not None:
            level /= float(A.ray_weights[A.ray_weights > 0].double().pow(-2).mean().sqrt())
        words = "The noise level was estimated from the rays that meet least of the object."
        return Noise(A, level, words, is_bound=not is_told)
    if isinstance(A, ImageMask):
        return Noise(A, _of_image(A, y), "The noise level was estimated from the differences of neighbouring voxels.")
    raise DipmedError(f"the noise level of {A!r} cannot be estimated; give it, or choose another rule with --stop")


def _of_kspace(A: CartesianMRI | NonCartesianMRI, y: Tensor) -> float:
    """Level of one sample, unweighted."""
    squared = torch.zeros((), device=y.device)
    sizes = A.mask.shape if isinstance(A, CartesianMRI) else A.domain.shape[1:]
    for along, n in zip(A.positions, sizes, strict=True):
        squared = squared + (along / n).square()
    samples = y[:, A.mask]
    if isinstance(A, NonCartesianMRI):
        samples = samples / A.weights[A.mask].sqrt()
    return outermost_noise_level(samples.cpu().numpy(), squared.expand(A.mask.shape)[A.mask].cpu().numpy())


def _of_image(A: ImageMask, image: Tensor) -> float:
    """Level of one voxel, from blocks of two by two along the first two axes that are known in full."""
    n_x, n_y = (n - n % 2 for n in image.shape[1:3])
    image, known = image[0, :n_x, :n_y], A.mask[:n_x, :n_y]
    corners = [(slice(i, None, 2), slice(j, None, 2)) for i in (0, 1) for j in (0, 1)]
    a, b, c, d = (image[corner] for corner in corners)
    whole = torch.stack([known[corner] for corner in corners]).all(dim=0)
    if not bool(whole.any()):
        raise DipmedError(
            "no block of voxels is known in full, so that their noise cannot be estimated; give its level"
        )
    return _by_median(((a - b - c + d) / 2)[whole])


def _by_median(values: Tensor) -> float:
    """Standard deviation of Gaussian numbers about zero, from the median of their magnitudes."""
    if values.is_complex():
        level = math.sqrt(float(values.abs().square().median()) / math.log(2))
    else:
        level = float(values.abs().median()) / _GAUSSIAN_MEDIAN
    if level == 0:
        raise DipmedError("the data show no noise at all; give its level, or choose another rule with --stop")
    return level
