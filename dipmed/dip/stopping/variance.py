"""What both rules share that look at how much the outputs still vary.

Their minimum is that of a fit at a constant rate. Where another rule decides and rates decay, outputs vary less and
less by that alone: the curve then falls to the end, or nearly so, and what these rules choose is faked by the decay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dipmed.dip.problem import Problem


class PixelSample:
    """Every fourth pixel along each axis inside the support, whose places are found once."""

    def __init__(self) -> None:
        self._places: Tensor | None = None

    def of(self, problem: Problem, output: Tensor) -> Tensor:
        """Take them from an output of this fit, ``(1, set, x, y[, z])``, flat."""
        if self._places is None:
            steps = (slice(None), *(slice(None, None, 4) for _ in problem.support.shape[1:]))
            sampled = torch.zeros_like(problem.support)
            sampled[steps] = problem.support[steps]
            self._places = torch.nonzero(sampled.flatten()).flatten()
        return output.flatten()[self._places]
