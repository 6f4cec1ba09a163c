"""Exponentially weighted variance of the outputs."""

from __future__ import annotations

from torch import Tensor

from dipmed.dip.stopping.base import Minimum, Sight, StoppingRule, Verdict
from dipmed.dip.stopping.variance import sample_pixels


class ExponentialVariance(StoppingRule):
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
        self._variance = 0.0
        self._minimum = Minimum("the variance of the outputs", patience)

    def watch(self, sight: Sight) -> Verdict | None:
        pixels = sample_pixels(sight.problem, sight.output)
        if self._mean is None:
            self._mean = pixels
            return None
        step = pixels - self._mean
        self._mean = self._mean + self.weight * step
        squared = float(step.abs().square().mean())
        self._variance = (1 - self.weight) * (self._variance + self.weight * squared)
        if sight.iteration < self.warm_up:
            return None
        return self._minimum.judge(self._variance, sight.iteration)
