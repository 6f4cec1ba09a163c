"""Copies of a problem with other noise, by which rules judge a fit: a pair to fit and to check, a twin to compare."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dipmed.dip.data_term import ResidualTerm, make_data_term
from dipmed.dip.noise import Noise
from dipmed.dip.phase import SmoothPhase
from dipmed.dip.problem import Problem, phase_penalty
from dipmed.scan import DipmedError

PAIR_SHARE = 0.5
"""Of its standard deviation, the noise added to the data that are fitted; twice it is what the others then lose."""

PROBE_STEP = 0.1
"""Noise of the twin's data, relative to that of the data."""


@dataclass(frozen=True)
class Probe:
    """A problem whose data are those of another one plus ``step`` times ``noise``.

    ``noise`` has the covariance of the noise of the data, ``(coil, x, y[, z])`` or as the operator's range.
    """

    problem: Problem
    noise: Tensor
    step: float


def recorrupt(problem: Problem, generator: torch.Generator, share: float = PAIR_SHARE) -> Problem:
    """Fit ``y + τ n`` and keep ``y − n / τ`` to judge the fit by, where n is noise like that of y.

    The noise e of y and n are independent and have one covariance Σ, so that
    ``E (e + τ n)(e − n / τ)ᴴ = Σ − Σ = 0``: for Gaussian noise the two copies are independent, with the noise of 1 + τ²
    and 1 + 1/τ² such data (T. Pang et al., "Recorrupted-to-recorrupted", CVPR 2021; N. Oliveira et al., 2021,
    arXiv:2111.09447). What the fit sees besides, input images and the smooth phase, is of the first copy too.

    Parameters
    ----------
    share
        τ.
    """
    noise, lines = _noise_of(problem).draw(generator)
    y_fit = problem.y_fit + share * _fitted(problem, noise)
    check = problem.y_fit - _fitted(problem, noise) / share
    return replace(
        problem,
        y_fit=y_fit,
        lines_fit=_add(problem.lines_fit, lines, share),
        data_term=make_data_term(problem.A_fit, y_fit, problem.weights, problem.data_loss),
        smooth_phase=_same_penalty(problem, y_fit),
        second_copy_term=ResidualTerm(problem.A_fit, check),
        noise_gain=1 + share**2,
    )


def perturb(problem: Problem, generator: torch.Generator, step: float = PROBE_STEP) -> Probe:
    """Make the problem of a twin, with a little more noise in everything that the fit is made from."""
    noise, lines = _noise_of(problem).draw(generator)
    y = problem.y + step * noise
    y_fit = problem.y_fit + step * _fitted(problem, noise)
    adjoint_data = problem.A.adjoint(y)
    has_own_end = problem.A_final is not problem.A
    twin = replace(
        problem,
        y=y,
        adjoint_data=adjoint_data,
        y_fit=y_fit,
        line_integrals=_add(problem.line_integrals, lines, step),
        lines_fit=_add(problem.lines_fit, lines, step),
        final_data=problem.A_final.adjoint(y) if has_own_end else adjoint_data,
        data_term=make_data_term(problem.A_fit, y_fit, problem.weights, problem.data_loss),
        measured_term=make_data_term(problem.A, y),
        smooth_phase=_same_penalty(problem, y_fit),
    )
    return Probe(twin, noise, step)


def _noise_of(problem: Problem) -> Noise:
    if problem.noise is None:
        raise DipmedError("the noise of the data has neither been measured nor estimated")
    return problem.noise


def _fitted(problem: Problem, data: Tensor) -> Tensor:
    return data if problem.held_out_mask is None else data * ~problem.held_out_mask


def _add(lines: Tensor | None, noise: Tensor | None, factor: float) -> Tensor | None:
    return lines if lines is None or noise is None else lines + factor * noise


def _same_penalty(problem: Problem, y_fit: Tensor) -> SmoothPhase | None:
    old = problem.smooth_phase
    return None if old is None else phase_penalty(problem.A_fit, y_fit, old.weight)
