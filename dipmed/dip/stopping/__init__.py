"""Rules that choose the iterate of a fit from the scan alone.

Every rule sees the same three things and keeps a curve. One rule decides; the others only watch. The iteration
budget, the time limit and an interruption end any fit, and then the deciding rule still says which iterate it chose.
"""

from __future__ import annotations

from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import StoppingRule, Verdict
from dipmed.dip.stopping.budget import Budget
from dipmed.dip.stopping.discrepancy import Discrepancy
from dipmed.dip.stopping.exponential_variance import ExponentialVariance
from dipmed.dip.stopping.held_out import HeldOut
from dipmed.dip.stopping.windowed_variance import WindowedVariance
from dipmed.scan import DipmedError

RULES: dict[str, type[StoppingRule]] = {
    rule.name: rule for rule in (HeldOut, WindowedVariance, ExponentialVariance, Discrepancy, Budget)
}


def find_rule(name: str) -> type[StoppingRule]:
    """Look a rule up.

    Raises
    ------
    DipmedError
        When there is none of that name.
    """
    if name not in RULES:
        raise DipmedError(f"unknown stopping rule {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name]


def watching_rules(deciding: StoppingRule, problem: Problem) -> list[StoppingRule]:
    """The cheap rules that keep a curve beside the deciding one."""
    rules: list[StoppingRule] = [ExponentialVariance()]
    if problem.noise_energy is not None:
        rules.append(Discrepancy())
    return [rule for rule in rules if rule.name != deciding.name]


__all__ = [
    "RULES",
    "Budget",
    "Discrepancy",
    "ExponentialVariance",
    "HeldOut",
    "StoppingRule",
    "Verdict",
    "WindowedVariance",
    "find_rule",
    "watching_rules",
]
