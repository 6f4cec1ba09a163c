"""How many steps towards the data end a fit: two, and more where they lower its expected error, given the noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dipmed.dip.data_term import inner
from dipmed.dip.noise import Noise
from operators import LinearOperator

if TYPE_CHECKING:
    from dipmed.dip.problem import Problem

MOST = 20
"""Steps that are looked ahead; after as many an image explains next to all that any image can."""

_LEAST = 2
"""Fewer leave out what lies beyond the support that was fitted, where the maps reach further."""

_NEW_NOISE = 0.6
"""Share of the noise in the steps that a network had not fitted before."""

_REDUNDANT = 0.1
"""Share of white noise that no image explains from which on the residual tells its level."""


def end_with_data(problem: Problem, image: Tensor, steps: int | Literal["auto"]) -> tuple[Tensor, int]:
    """Take the last steps of a fit towards all measured data, as many as given or as pay; return how many as well.

    Parameters
    ----------
    image
        ``(1, set, x, y[, z])``, in the units of the fit.
    """
    n = steps_that_pay(problem, image) if steps == "auto" else steps
    return problem.towards_data(image, n), n


def steps_that_pay(problem: Problem, image: Tensor) -> int:
    """Find how many steps of `Problem.towards_data` an image is to end with.

    Each step brings detail that the network has not learned, and noise. The expected squared error of the data that an
    image predicts is ``‖r‖² + 2σ² tr P``, but for a constant, where ``r`` is the residual and ``P`` the share of a
    change of the data that the steps follow (C. M. Stein, 1981, doi:10.1214/aos/1176345632); the trace is found with
    one draw of white noise (S. Ramani et al., 2008, doi:10.1109/TIP.2008.2001404). Several coils measure more numbers
    than an image has, so that noise remains in the residual whatever the image: how much, relative to what remains of
    white noise after as many steps, is its variance.

    Parameters
    ----------
    image
        ``(1, set, x, y[, z])``, in the units of the fit.

    Returns
    -------
    int
        2 to `MOST`; 2 where noise and error cannot be told apart, as with a single coil.
    """
    white, explained = problem.white_noise_followed
    if white[-1] < _REDUNDANT * white[0]:
        return _LEAST
    A = problem.A_final
    remaining, _ = _follow(A, problem.y - A(image * problem.support)[0])
    variance = remaining[-1] / white[-1]
    risks = remaining + 2 * _NEW_NOISE * variance * explained
    return max(_LEAST, int(risks.argmin()))


def follow_white_noise(A: LinearOperator) -> tuple[Tensor, Tensor]:
    """Take steps towards one draw of white noise of unit variance; return what `_follow` does."""
    return _follow(A, Noise(A, 1.0).draw(torch.Generator().manual_seed(0))[0])


def _follow(A: LinearOperator, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Take steps; return after each number of them the energy of what remains of a residual, and ``rᴴP r``.

    Both are sums of small changes, which single precision holds, where a difference of energies would not.
    """
    first = gradient = A.adjoint(residual[None])
    remaining, explained = [float(inner(residual, residual, torch.float64))], [0.0]
    for _ in range(MOST):
        normal = A.N(gradient)
        change = inner(gradient, normal, torch.float64) - 2 * inner(gradient, gradient, torch.float64)
        remaining.append(remaining[-1] + float(change))
        explained.append(explained[-1] + float(inner(gradient, first, torch.float64)))
        gradient = gradient - normal
    return torch.tensor(remaining, dtype=torch.float64), torch.tensor(explained, dtype=torch.float64)
