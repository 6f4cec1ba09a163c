"""Predict measured locations that the fit does not see."""

from __future__ import annotations

from torch import Tensor

from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import StoppingRule, Verdict


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
