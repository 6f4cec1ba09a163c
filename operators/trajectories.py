"""Trajectories through k-space, and the weights that make up for their density."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.errors import DipmedError
from operators.nufft import NonUniformFourier

GOLDEN_ANGLE = math.pi * (math.sqrt(5) - 1) / 2
"""Turn between spokes, radians, after which any number of them covers the disc evenly (doi:10.1109/TMI.2006.885337)."""


def radial(matrix: tuple[int, int], n_spokes: int, n_samples: int | None = None, *, golden: bool = False) -> Tensor:
    """Return spokes through the centre, in cycles per field of view, ``(spoke, sample, 2)``.

    A spoke of angle φ runs from ``-(cos φ, sin φ)`` to the opposite end, its centre at sample ``n // 2``.

    Parameters
    ----------
    matrix
        Of the image, ``(x, y)``.
    n_spokes
        Number of spokes.
    n_samples
        Of each spoke; by default twice the larger side, which reads a field of view twice as wide.
    golden
        Turn by the golden angle from spoke to spoke; otherwise by equal parts of half a turn.

    Raises
    ------
    DipmedError
        When a number is not positive.
    """
    n_samples = 2 * max(matrix) if n_samples is None else n_samples
    _check_counts(spokes=n_spokes, samples=n_samples)
    angles = torch.arange(n_spokes, dtype=torch.float64) * (GOLDEN_ANGLE if golden else math.pi / n_spokes)
    along = (torch.arange(n_samples, dtype=torch.float64) - n_samples // 2) / n_samples
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    return along[:, None] * directions[:, None, :] * torch.tensor(matrix, dtype=torch.float64)


def spiral(
    matrix: tuple[int, int], n_arms: int, n_samples: int, *, n_turns: float | None = None, exponent: float = 1.0
) -> Tensor:
    """Return spiral arms from the centre outwards, in cycles per field of view, ``(arm, sample, 2)``.

    The radius grows as ``t ** exponent`` and the angle as ``n_turns`` turns over ``0 <= t < 1``. This is a shape, not
    a design within the limits of a gradient system.

    Parameters
    ----------
    matrix
        Of the image, ``(x, y)``.
    n_arms, n_samples
        Number of arms, turned by equal parts of a turn, and of samples of each.
    n_turns
        Of one arm; by default as many as leave arms one cycle per field of view apart, where the exponent is 1.
    exponent
        Above 1 the centre is sampled more densely.

    Raises
    ------
    DipmedError
        When a number is not positive.
    """
    n_turns = max(matrix) / (2 * n_arms) if n_turns is None else n_turns
    _check_counts(arms=n_arms, samples=n_samples, turns=n_turns, exponent=exponent)
    t = torch.arange(n_samples, dtype=torch.float64) / n_samples
    starts = torch.arange(n_arms, dtype=torch.float64) / n_arms
    angles = 2 * math.pi * (n_turns * t + starts[:, None])
    radius = t**exponent / 2
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    return radius[:, None] * directions * torch.tensor(matrix, dtype=torch.float64)


def density_compensation(
    trajectory: Tensor, matrix: tuple[int, ...], *, iterations: int = 20, backend: str | None = None
) -> Tensor:
    """Return weights w with which ``Aᴴ diag(w) A`` comes near the identity, real ``(sample,)``; 1 on a Cartesian grid.

    The weights are divided again and again by what they become when each sample is spread by the kernel of the field
    of view (J. G. Pipe, P. Menon, 1999, doi:10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V). The
    kernel here is the square of the Dirichlet kernel, which is never negative.

    Parameters
    ----------
    trajectory
        Positions in cycles per field of view, ``(sample, dimension)``.
    matrix
        Of the image, ``(x, y[, z])``.
    iterations
        After 20 the weights of radial and spiral trajectories change by less than a percent.
    backend
        See `NonUniformFourier`.
    """
    doubled = tuple(2 * n for n in matrix)
    spread = NonUniformFourier((1, *doubled), 2 * trajectory.double(), backend)
    window = torch.ones((), dtype=torch.float64)
    for axis, n in enumerate(matrix):
        triangle = 2 * (1 - (torch.arange(2 * n, dtype=torch.float64) - n).abs() / n)
        window = window * triangle.reshape([-1 if a == axis else 1 for a in range(len(matrix))])
    window = window.to(trajectory.device)
    weights = torch.ones(len(trajectory), dtype=torch.complex128, device=trajectory.device)
    for _ in range(iterations):
        spread_weights = spread(window * spread.adjoint(weights[None]))[0].real
        weights = weights / spread_weights.clamp(min=torch.finfo(torch.float32).eps)
    return weights.real.float()


def _check_counts(**counts: float) -> None:
    for name, count in counts.items():
        if not (math.isfinite(count) and count > 0):
            raise DipmedError(f"a trajectory needs a positive number of {name}, got {count}")
