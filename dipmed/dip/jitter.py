"""How much noise the network's input has at each step."""

from __future__ import annotations

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.problem import Problem
from dipmed.solvers import along_axes, total_variation_image
from operators import FilteredProjector

_FALLING = 0.7
"""Share of the fit in which it falls; the rest of it is fitted at the last level."""

_FIRST = 1.0
"""The level that a fit begins with where its input is off; half of the peak of an image."""

_OFF = 1.7
"""Error of predicted views over that of fitted ones from which on an input is off."""

_EVERY = 6
"""Of as many views one is predicted."""

_ROUNDS = 15
"""Of alternating directions: a quarter of those of the input, which tell as much."""


def jitter_level(first: float, last: float, progress: float) -> float:
    """Return the standard deviation of the noise on the input, in the units of the fit.

    It falls by the same factor at each step, from ``first`` to ``last``. An input image of few data is wrong in places
    that look like detail. Under much noise the network sees no more of it than what is coarse, and has to find the rest
    in the data; detail of the input counts as the noise leaves it. So settle, in stages, the images of self-diffusion
    (G. Luo et al., 2025, arXiv:2510.21417), which begin with nothing but noise.

    Parameters
    ----------
    progress
        How far the fit is, 0 to 1.
    """
    if first == 0 or last == 0:
        return last
    left = max(0.0, 1 - progress / _FALLING)
    return float(last * (first / last) ** left)


def first_level(config: FitConfig, problem: Problem) -> float:
    """Return the level that a fit begins with: the one of the settings, or what the data ask for.

    ``"auto"`` asks how far the image of total variation is off, of the fitted views but every sixth. Where it predicts
    those as well as the ones that it was made of, what it shows is what they measured, and the network may take it;
    where it does not, the fit begins under much noise. The noise of the data, and what the model does not explain, are
    in both errors.

    Returns
    -------
    float
        0 for no more noise than at the end, as for ``"auto"`` of other data than projections, or of another input.
    """
    if config.first_jitter != "auto":
        return config.first_jitter
    A, lines = problem.input_operator, problem.lines_fit
    if "tv" not in config.inputs or lines is None or not isinstance(A, FilteredProjector):
        return 0.0
    return _FIRST if _how_far_off(A, lines, config.variation_weight) >= _OFF else 0.0


def _how_far_off(A: FilteredProjector, lines: Tensor, lam: float) -> float:
    """Error of an image in views that were left out of it, over that in those that it was made of."""
    views = torch.nonzero(A.mask.flatten()).flatten()
    predicted = views[_EVERY // 2 :: _EVERY]
    if len(predicted) < 2:
        return torch.inf
    mask = A.mask.clone()
    mask[predicted] = False
    fewer = A.with_mask(mask)
    adjoint_data = fewer.adjoint(fewer.weigh(lines))
    image, _ = total_variation_image(fewer, adjoint_data, lam, weights=along_axes(A), max_iter=_ROUNDS)
    errors = (A(image[None])[0] - A.weigh(lines)).square().transpose(0, 1).flatten(1).mean(1)
    return float((errors[predicted].mean() / errors[mask.flatten()].mean()).sqrt())
