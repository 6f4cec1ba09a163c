"""How much noise the network's input has at each step."""

from __future__ import annotations

from dipmed.config import FitConfig

_FALLING = 0.7
"""Share of the fit in which it falls; the rest of it is fitted at the last level."""


def jitter_level(config: FitConfig, progress: float) -> float:
    """Return the standard deviation of the noise on the input, in the units of the fit.

    It falls by the same factor at each step, from ``first_jitter`` to ``input_jitter``. An input image of few data is
    wrong in places that look like detail. Under much noise the network sees no more of it than what is coarse, and has
    to find the rest in the data; detail of the input counts as the noise leaves it. So settle, in stages, the images of
    self-diffusion (G. Luo et al., 2025, arXiv:2510.21417), which begin with nothing but noise.

    Parameters
    ----------
    progress
        How far the fit is, 0 to 1.
    """
    first, last = config.first_jitter, config.input_jitter
    if first == 0 or last == 0:
        return last
    left = max(0.0, 1 - progress / _FALLING)
    return float(last * (first / last) ** left)
