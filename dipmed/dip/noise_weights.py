"""What smooths the image counts more where the data hold more noise than those that presets were chosen on."""

from __future__ import annotations

import torch

from dipmed.config import FitConfig
from dipmed.dip.noise import Noise, estimate_noise
from dipmed.dip.problem import Problem
from dipmed.scan import DipmedError
from operators import FilteredProjector, MRIOperator, Slices

_OUTPUT = {("mri", 2): 2.4, ("mri", 3): 2.4, ("ct", 2): 24.0, ("ct", 3): 12.0}
"""Weight of the output's total variation over the share of noise in the energy of the data, by dimensions."""

_INPUT = {("mri", 2): 0.24, ("mri", 3): 0.24, ("ct", 2): 1.6, ("ct", 3): 0.8}
"""Weight of the input's sparsity over the standard deviation of the noise in the image of the adjoint."""

_OF_INPUT = {"wavelet": "wavelet_threshold", "tv": "variation_weight"}

FOLLOWING = frozenset({"tv_weight", *_OF_INPUT.values()})
"""Weights that follow the noise of the data."""


def follow_noise(config: FitConfig, problem: Problem) -> tuple[FitConfig, dict[str, float], str | None]:
    """Raise the weights of the total variation and of what makes the input to what the noise of these data asks for.

    The loss of a fit is divided by the energy of the data, so that a penalty has to grow with the share of noise in it,
    as the logarithm of a prior does beside the misfit over the variance. What makes an input shrinks coefficients,
    which asks for a threshold in proportion to the standard deviation of their noise (D. Donoho, I. Johnstone, 1994,
    doi:10.1093/biomet/81.3.425). Weights never fall below those of the settings, which few data ask for
    without any noise.

    Returns
    -------
    config, raised, assumption
        The settings; the weights that were raised, by name; and one sentence that says so, where there are any.
    """
    kind = "ct" if isinstance(problem.A, FilteredProjector) else "mri", problem.adjoint_data.ndim - 1
    noise = _noise_of(problem) if config.follow_noise else None
    if noise is None or noise.is_bound:
        return config, {}, None
    share = problem.noise_gain * noise.energy / float(problem.y.abs().square().sum())
    wanted = {"tv_weight": _OUTPUT[kind] * share}
    names = [_OF_INPUT[name] for name in config.inputs if name in _OF_INPUT]
    if names:
        wanted |= dict.fromkeys(names, _INPUT[kind] * problem.noise_gain**0.5 * _deviation(problem, noise))
    raised = {name: weight for name, weight in wanted.items() if weight > getattr(config, name)}
    if not raised:
        return config, {}, None
    words = "The noise of the data asks for more smoothing than the preset has, and got it (follow_noise)."
    is_told = problem.noise is not None or noise.assumption is None
    return config.replace(**raised), raised, words if is_told else f"{words} {noise.assumption}"


def _noise_of(problem: Problem) -> Noise | None:
    """The noise as it was measured, or as far as it can be estimated."""
    if not isinstance(problem.A, FilteredProjector | MRIOperator | Slices):
        return None
    if problem.noise is not None:
        return problem.noise
    try:
        return estimate_noise(problem.A, problem.y, problem.line_integrals, problem.scale)
    except DipmedError:
        return None


def _deviation(problem: Problem, noise: Noise) -> float:
    """Standard deviation of what noise makes of the image that inputs are made of, where the operator sees anything."""
    image = problem.adjoint_for_input(*noise.draw(torch.Generator().manual_seed(0)))
    return float(image[problem.support].abs().square().mean().sqrt())
