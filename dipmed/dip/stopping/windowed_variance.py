"""Variance over a window of outputs."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from dipmed.dip.stopping.base import Minimum, Sight, SteadyRule, Verdict
from dipmed.dip.stopping.variance import PixelSample


class WindowedVariance(SteadyRule):
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
        self._outputs: deque[Tensor] = deque(maxlen=window)
        self._pixels = PixelSample()
        self._minimum = Minimum("the variance of the outputs", patience)

    def measure(self, sight: Sight) -> Tensor | None:
        self._outputs.append(self._pixels.of(sight.problem, sight.output))
        if len(self._outputs) < self.window:
            return None
        return torch.stack(tuple(self._outputs)).var(dim=0, correction=0).mean()

    def judge(self, value: float, iteration: int) -> Verdict:
        return self._minimum.judge(value, iteration)
