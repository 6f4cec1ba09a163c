"""Exponentially weighted variance of the outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from dipmed.dip.stopping.base import Minimum, Sight, SteadyRule, Verdict
from dipmed.dip.stopping.variance import PixelSample


class ExponentialVariance(SteadyRule):
    """Keeps the output where an exponentially weighted variance of the outputs is smallest (ES-EMV).

    H. Wang et al., "Early stopping for deep image prior", TMLR 2023, arXiv:2112.06074, without its clipping of
    outputs to [0, 1], which complex images do not fit.

    Parameters
    ----------
    weight
        Of the newest output.
    warm_up
        First iterations, which are not judged.
    patience
        Iterations without a new minimum after which the fit stops.
    """

    name = "exponential-variance"
    needs_constant_rate = True

    def __init__(self, weight: float = 0.1, warm_up: int = 100, patience: int = 1000) -> None:
        self.weight = weight
        self.warm_up = warm_up
        self._mean: Tensor | None = None
        self._variance: Tensor | None = None
        self._pixels = PixelSample()
        self._minimum = Minimum("the variance of the outputs", patience)

    def measure(self, sight: Sight) -> Tensor | None:
        pixels = self._pixels.of(sight.problem, sight.output)
        if self._mean is None:
            self._mean = pixels
            return None
        step = pixels - self._mean
        self._mean = self._mean + self.weight * step
        squared = step.abs().square().mean().double()
        before = torch.zeros_like(squared) if self._variance is None else self._variance
        self._variance = (1 - self.weight) * (before + self.weight * squared)
        return None if sight.iteration < self.warm_up else self._variance

    def judge(self, value: float, iteration: int) -> Verdict:
        return self._minimum.judge(value, iteration)
