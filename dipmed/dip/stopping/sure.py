"""Stein's unbiased estimate of the error of the fitted data, by a second fit."""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from dipmed.dip.noise import Noise
from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import Minimum, Sight, StoppingRule, Verdict


class Sure(StoppingRule):
    """Keeps the iterate of the smallest estimated error of its data, ``E ‖A x_t − A x‖²``.

    With noise of covariance Σ, its estimate is ``‖A x_t(y) − y‖² + 2 tr(J Σ) − tr Σ``, where J is the derivative of
    ``A x_t(y)`` by y (C. Stein, 1981, doi:10.1214/aos/1176345632). The trace comes from a twin, a fit with the same
    seeds in the same steps to ``y + δ n``, where n is a draw of the noise and δ is 0.1:
    ``Re nᴴ A(x_t(y + δ n) − x_t(y)) / δ`` (S. Ramani, T. Blu, M. Unser, 2008, doi:10.1109/TIP.2008.2001404). With white
    noise it is the variance times the degrees of freedom. The twin doubles time and memory of a fit.

    The error of the data is not that of the image: what A hardly sees counts hardly, though the image may be wrong
    there. Where A is ill-conditioned the rule is therefore late.

    Parameters
    ----------
    patience
        Iterations without a new minimum after which the fit stops.
    """

    name = "sure"
    interval = 10
    needs_noise = True
    needs_twin = True

    def __init__(self, patience: int = 200) -> None:
        self._minimum = Minimum("the estimated error of the fitted data", patience)
        self._noise: Noise | None = None

    def watch(self, sight: Sight) -> Verdict | None:
        problem = sight.problem
        noise = self._fitted_noise(problem)
        residual = float((problem.A_fit(sight.average) - problem.y_fit).abs().square().sum())
        error = residual + problem.noise_gain * (2 * _trace(sight) - noise.energy)
        value = error / float(problem.y_fit.abs().square().sum())
        # a twin that diverged alone says nothing
        return self._minimum.judge(value, sight.iteration) if math.isfinite(value) else None

    def _fitted_noise(self, problem: Problem) -> Noise:
        """Noise of the data that are fitted, kept as long as they are the same."""
        assert problem.noise is not None  # noqa: S101  # the rule needs it
        if self._noise is None or self._noise.A is not problem.A_fit:
            self._noise = replace(problem.noise, A=problem.A_fit)
        return self._noise


def _trace(sight: Sight) -> float:
    """Estimate ``tr(J Σ)`` for the noise of the measured data."""
    assert sight.twin is not None and sight.probe is not None  # noqa: S101, PT018  # the rule needs them
    change: Tensor = sight.problem.A_fit(sight.twin - sight.average)[0]
    return float((sight.probe.noise.conj() * change).real.sum()) / sight.probe.step
