"""Fit the data down to their noise and no further."""

from __future__ import annotations

from dipmed.dip.noise import Noise
from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import Sight, StoppingRule, Verdict
from dipmed.scan import DipmedError


class Discrepancy(StoppingRule):
    """Stops when the data are fitted down to their noise (Morozov's discrepancy principle).

    It wants a measured level: the estimates for other scans are too high rather than too low, and would end a fit
    early.

    Parameters
    ----------
    factor
        Stop at ``‖Ax − y‖² ≤ factor · samples · noise variance``.
    """

    name = "discrepancy"
    interval = 5

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def check(self, problem: Problem) -> None:
        _measured(problem)

    def watch(self, sight: Sight) -> Verdict | None:
        ratio = sight.problem.data_error(sight.average) / _measured(sight.problem).energy
        stop = f"the data error fell to {ratio:.3g} times the noise" if ratio <= self.factor else None
        return Verdict(ratio, keep=True, stop=stop)


def _measured(problem: Problem) -> Noise:
    if not has_measured_noise(problem):
        raise DipmedError(
            "the discrepancy rule needs the noise level, and this scan has no noise measurement; "
            "choose another rule, e.g. --stop held-out"
        )
    assert problem.noise is not None  # noqa: S101  # as was asked
    return problem.noise


def has_measured_noise(problem: Problem) -> bool:
    """Whether the noise of the data was measured, and not estimated."""
    return problem.noise is not None and problem.noise.assumption is None
