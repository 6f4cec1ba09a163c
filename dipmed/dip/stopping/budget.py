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


class Until(StoppingRule):
    """Ends a fit after a number of iterations that another fit has found."""

    name = "refit"

    def __init__(self, last: int) -> None:
        self.last = last

    def watch(self, sight: Sight) -> Verdict | None:
        stop = f"fitted again from the start to all data for {self.last} iterations"
        return Verdict(sight.iteration / self.last, keep=True, stop=stop if sight.iteration >= self.last else None)
