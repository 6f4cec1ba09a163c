"""Go on to the last iteration."""

from __future__ import annotations

from dipmed.dip.stopping.base import Sight, StoppingRule, Verdict


class Budget(StoppingRule):
    """Never stops a fit before its last iteration, and keeps that one."""

    name = "budget"
    interval = 10

    def watch(self, sight: Sight) -> Verdict | None:
        problem = sight.problem
        return Verdict(problem.data_error(sight.average) / float(problem.y.abs().square().sum()), keep=True)


class Resumed(StoppingRule):
    """Ends a fit that goes on with all data after some iterations, and keeps the one that explains these best.

    So few iterations fit little more noise, but what the fit has not seen before can upset it.

    Parameters
    ----------
    last
        The iteration that ends it.
    error
        Of all data, squared, at the iterate from which the fit goes on.
    """

    name = "refit"
    interval = 10

    def __init__(self, last: int, error: float) -> None:
        self.last = last
        self._least = error

    def watch(self, sight: Sight) -> Verdict | None:
        error = sight.problem.data_error(sight.average)
        keep = error <= self._least
        self._least = min(self._least, error)
        stop = "fitted on from there to all data" if sight.iteration >= self.last else None
        return Verdict(error, keep, stop)


class Until(StoppingRule):
    """Ends a fit after a number of iterations that another fit has found."""

    name = "refit"

    def __init__(self, last: int) -> None:
        self.last = last

    def watch(self, sight: Sight) -> Verdict | None:
        stop = f"fitted again from the start to all data for {self.last} iterations"
        return Verdict(sight.iteration / self.last, keep=True, stop=stop if sight.iteration >= self.last else None)
