"""Fit the data down to their noise and no further."""

from __future__ import annotations

from torch import Tensor

from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import StoppingRule, Verdict
from dipmed.scan import DipmedError


class Discrepancy(StoppingRule):
    """Stops when the data are fitted down to their noise (Morozov's discrepancy principle).

    Parameters
    ----------
    factor
        Stop at ``‖Ax − y‖² ≤ factor · samples · noise variance``.
    """

    name = "discrepancy"
    interval = 5

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor

    def watch(self, problem: Problem, iteration: int, output: Tensor, average: Tensor) -> Verdict | None:
        if problem.noise_energy is None:
            raise DipmedError(
                "the discrepancy rule needs the noise level, and this scan has no noise measurement; "
                "choose another rule, e.g. --stop held-out"
            )
        ratio = problem.data_error(average) / problem.noise_energy
        stop = f"the data error fell to {ratio:.3g} times the noise" if ratio <= self.factor else None
        return Verdict(ratio, keep=True, stop=stop)
