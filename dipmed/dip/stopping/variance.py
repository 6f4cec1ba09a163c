"""What both rules share that look at how much the outputs still vary."""

from __future__ import annotations

from torch import Tensor

from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import Verdict


def sample_pixels(problem: Problem, output: Tensor) -> Tensor:
    """Every fourth pixel along each axis inside the support, flat."""
    steps = (slice(None), *(slice(None, None, 4) for _ in problem.support.shape[1:]))
    return output[0][steps][problem.support[steps]]


def variance_verdict(variance: float, best: float, since: int, patience: int) -> Verdict:
    """Keep a new minimum; stop when none has come for ``patience`` iterations, ``since`` of which have passed."""
    stop = None
    if since >= patience:
        stop = f"the variance of the outputs has not fallen below {best:.3g} for {patience} iterations"
    return Verdict(variance, keep=since == 0, stop=stop)
