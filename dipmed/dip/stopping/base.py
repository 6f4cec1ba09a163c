"""What a stopping rule is: it looks at an iterate, and says what that is worth and whether to keep it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from dipmed.dip.copies import Probe
from dipmed.dip.problem import Problem
from dipmed.scan import DipmedError


@dataclass(frozen=True)
class Sight:
    """What rules see of a fit after an iteration.

    Parameters
    ----------
    problem
        The data and the operator, with what was set apart of them.
    iteration
        Counted from 1.
    output, average
        The last image and the running average of images, ``(1, set, x, y[, z])``.
    twin
        The twin's average, where a rule needs a twin.
    probe
        The noise that the twin's data have in addition.
    """

    problem: Problem
    iteration: int
    output: Tensor
    average: Tensor
    twin: Tensor | None = None
    probe: Probe | None = None


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
    needs_pair
        Whether the fit has to see a copy of the data with more noise, and leave another one to this rule.
    needs_noise
        Whether the noise level has to be known, measured or estimated.
    needs_twin
        Whether a second fit has to run beside, of data with a little more noise.
    needs_constant_rate
        Whether a decaying learning rate fakes this rule's criterion; it does not decay where such a rule decides.
    """

    name: str
    interval: int = 1
    needs_held_out: bool = False
    needs_pair: bool = False
    needs_noise: bool = False
    needs_twin: bool = False
    needs_constant_rate: bool = False

    @property
    def sets_data_apart(self) -> bool:
        """Whether the fit sees less than was measured, for this rule's sake."""
        return self.needs_held_out or self.needs_pair

    def check(self, problem: Problem) -> None:
        """Raise `DipmedError` when these data do not have what the rule needs."""
        if self.needs_noise and problem.noise is None:
            raise DipmedError(f"{self.name} needs the noise level; choose another rule with --stop")

    @abstractmethod
    def watch(self, sight: Sight) -> Verdict | None:
        """Look at an iterate; None while warming up."""


class SteadyRule(StoppingRule):
    """Looks at every iterate: its criterion stays on the device until somebody asks, so that no step waits for it."""

    @abstractmethod
    def measure(self, sight: Sight) -> Tensor | None:
        """Return the criterion, a scalar; None while warming up."""

    @abstractmethod
    def judge(self, value: float, iteration: int) -> Verdict:
        """Say what the criterion of an iteration is worth; iterations come in their order."""

    def watch(self, sight: Sight) -> Verdict | None:
        value = self.measure(sight)
        return None if value is None else self.judge(float(value), sight.iteration)


class Minimum:
    """Keeps what is near the smallest value so far, and stops when none has come for a while.

    Parameters
    ----------
    what
        The criterion, in a few words.
    patience
        Iterations without a new minimum after which to stop.
    tolerance
        A value this close to the minimum, relatively, is kept in place of an earlier one.
    share
        Of the iterations so far, how many have to go by without a new minimum, if that is more than ``patience``: a
        step that spoils a long fit is made good for as slowly as all else goes there.
    """

    def __init__(self, what: str, patience: int, tolerance: float = 0.0, share: float = 0.0) -> None:
        self.what = what
        self.patience = patience
        self.tolerance = tolerance
        self.share = share
        self._best = float("inf")
        self._kept_at = 0

    def judge(self, value: float, iteration: int) -> Verdict:
        """Compare the value at an iteration with those before."""
        keep = value <= self._best * (1 + self.tolerance)
        self._best = min(self._best, value)
        if keep:
            self._kept_at = iteration
        stop = None
        in_vain = iteration - self._kept_at
        if in_vain >= max(self.patience, self.share * iteration):
            stop = f"{self.what} has not come near its minimum {self._best:.4g} for {in_vain} iterations"
        return Verdict(value, keep, stop)
