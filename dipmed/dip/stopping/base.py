"""What a stopping rule is: it looks at an iterate, and says what that is worth and whether to keep it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from dipmed.dip.problem import Problem


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
