"""Rules that choose the iterate of a fit from the scan alone.

Every rule sees the same three things and keeps a curve. One rule decides; the others only watch. The iteration
budget, the time limit and an interruption end any fit, and then the deciding rule still says which iterate it chose.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from dipmed.dip.problem import Problem
from dipmed.scan import DipmedError


@dataclass(frozen=True)
class Verdict:
    """What a rule says after an iteration: its criterion, whether to keep this iterate, and why to stop, if so."""

    value: float
    keep: bool
    stop: str | None = None


class StoppingRule(ABC):
    """Watches a fit; subclasses say what of it.

    Attributes
    ----------
    name
        As on the command line.
    interval
        How many iterations lie between two calls of `watch`.
    needs_held_out
        Whether the fit has to leave measured locations out.
    needs_constant_rate
        Whether a decaying learning rate would fake this rule's criterion.
    """

    name: str
    interval: int = 1
    needs_held_out: bool = False
    needs_constant_rate: bool = False

    @abstractmethod
    def watch(self, problem: Problem, iteration: int, output: Tensor, average: Tensor) -> Verdict | None:
        """Look at the output and at the running average, both ``(1, 1, x, y[, z])``; None while warming up."""


class Budget(StoppingRule):
    """Never stops a fit before its last iteration, and keeps that one."""

    name = "budget"
    interval = 10

    def watch(self, problem: Problem, iteration: int, output: Tensor, average: Tensor) -> Verdict | None:
        return Verdict(problem.data_error(average) / float(problem.y.abs().square().sum()), keep=True)


class HeldOut(StoppingRule):
    """Keeps the iterate that best predicts the measured locations that the fit did not see.

    All coils of a location are held out together, because neighbouring coils see nearly the same
    (self-validation as in B. Yaman et al., 2022, arXiv:2102.07737, applied to deep image priors).

    Parameters
    ----------
    patience
        Iterations without a new minimum after which the fit stops.
    tolerance
        An iterate whose error is this close to the minimum, relatively, is kept in place of an earlier one, so that
        noise in a flat curve does not cost the last iterations.
    """

    name = "held-out"
    interval = 10
    needs_held_out = True

    def __init__(self, patience: int = 200, tolerance: float = 0.01) -> None:
        self.patience = patience
        self.tolerance = tolerance
        self._best = float("inf")
        self._kept_at = 0

    def watch(self, problem: Problem, iteration: int, output: Tensor, average: Tensor) -> Verdict | None:
        error = problem.held_out_error(average)
        keep = error <= self._best * (1 + self.tolerance)
        self._best = min(self._best, error)
        if keep:
            self._kept_at = iteration
        stop = None
        if iteration - self._kept_at >= self.patience:
            stop = f"the held-out error has not come near its minimum {self._best:.4g} for {self.patience} iterations"
        return Verdict(error, keep, stop)


class WindowedVariance(StoppingRule):
    """Keeps the output where the variance over a window of outputs is smallest (ES-WMV).

    H. Wang et al., "Early stopping for deep image prior", TMLR 2023, arXiv:2112.06074. Pixels are taken every
    fourth along each axis, inside the support, to keep the window small.

    Parameters
    ----------
    window
        Outputs in the window.
    patience
        Iterations without a new minimum after which the fit stops.
    """

    name = "windowed-variance"
    needs_constant_rate = True

    def __init__(self, window: int = 100, patience: int = 1000) -> None:
        self.window = window
        self.patience = patience
        self._outputs: deque[Tensor] = deque(maxlen=window)
        self._best = float("inf")
        self._kept_at = 0

    def watch(self, problem: Problem, iteration: int, output: Tensor, average: Tensor) -> Verdict | None:
        self._outputs.append(_sample_pixels(problem, output))
        if len(self._outputs) < self.window:
            return None
        variance = float(torch.stack(tuple(self._outputs)).var(dim=0, correction=0).mean())
        if variance < self._best:
            self._best, self._kept_at = variance, iteration
        return _variance_verdict(variance, self._best, iteration - self._kept_at, self.patience)


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
        self.patience = patience
        self._mean: Tensor | None = None
        self._variance = 0.0
        self._best = float("inf")
        self._kept_at = 0

    def watch(self, problem: Problem, iteration: int, output: Tensor, average: Tensor) -> Verdict | None:
        pixels = _sample_pixels(problem, output)
        if self._mean is None:
            self._mean = pixels
            return None
        step = pixels - self._mean
        self._mean = self._mean + self.weight * step
        squared = float(step.abs().square().mean())
        self._variance = (1 - self.weight) * (self._variance + self.weight * squared)
        if iteration < self.warm_up:
            return None
        if self._variance < self._best:
            self._best, self._kept_at = self._variance, iteration
        return _variance_verdict(self._variance, self._best, iteration - self._kept_at, self.patience)


class Discrepancy(StoppingRule):
    """Stops when the data are fitted down to their noise (Morozov's discrepancy principle).

    Parameters
    ----------
    factor
        Stop at ``‖Ax − y‖² ≤ factor · samples · noise variance``.
    """

    name = "discrepancy"
    interval = 5

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def watch(self, problem: Problem, iteration: int, output: Tensor, average: Tensor) -> Verdict | None:
        if problem.noise_energy is None:
            raise DipmedError(
                "the discrepancy rule needs the noise level, and this scan has no noise measurement; "
                "choose another rule, e.g. --stop held-out"
            )
        ratio = problem.data_error(average) / problem.noise_energy
        stop = f"the data error fell to {ratio:.3g} times the noise" if ratio <= self.factor else None
        return Verdict(ratio, keep=True, stop=stop)


RULES: dict[str, type[StoppingRule]] = {
    rule.name: rule for rule in (HeldOut, WindowedVariance, ExponentialVariance, Discrepancy, Budget)
}


def find_rule(name: str) -> type[StoppingRule]:
    """Look a rule up.

    Raises
    ------
    DipmedError
        When there is none of that name.
    """
    if name not in RULES:
        raise DipmedError(f"unknown stopping rule {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name]


def watching_rules(deciding: StoppingRule, problem: Problem) -> list[StoppingRule]:
    """The cheap rules that keep a curve beside the deciding one."""
    rules: list[StoppingRule] = [ExponentialVariance()]
    if problem.noise_energy is not None:
        rules.append(Discrepancy())
    return [rule for rule in rules if rule.name != deciding.name]


def _sample_pixels(problem: Problem, output: Tensor) -> Tensor:
    """Every fourth pixel along each axis inside the support, flat."""
    steps = (slice(None), *(slice(None, None, 4) for _ in problem.support.shape[1:]))
    return output[0][steps][problem.support[steps]]


def _variance_verdict(variance: float, best: float, since: int, patience: int) -> Verdict:
    stop = None
    if since >= patience:
        stop = f"the variance of the outputs has not fallen below {best:.3g} for {patience} iterations"
    return Verdict(variance, keep=since == 0, stop=stop)
