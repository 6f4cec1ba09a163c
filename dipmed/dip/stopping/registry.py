"""The rules by name."""

from __future__ import annotations

from collections.abc import Sequence

from dipmed.config import FitConfig
from dipmed.dip.stopping.base import StoppingRule
from dipmed.dip.stopping.budget import Budget
from dipmed.dip.stopping.discrepancy import Discrepancy
from dipmed.dip.stopping.exponential_variance import ExponentialVariance
from dipmed.dip.stopping.held_out import HeldOut
from dipmed.dip.stopping.self_referenced import SelfReferenced
from dipmed.dip.stopping.spectral_band import SpectralBand
from dipmed.dip.stopping.sure import Sure
from dipmed.dip.stopping.windowed_variance import WindowedVariance
from dipmed.scan import DipmedError

RULES: dict[str, type[StoppingRule]] = {
    rule.name: rule
    for rule in (
        HeldOut,
        SelfReferenced,
        WindowedVariance,
        ExponentialVariance,
        SpectralBand,
        Sure,
        Discrepancy,
        Budget,
    )
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


def make_rules(stop: str, watch: Sequence[str] | None, *, noise_is_measured: bool) -> tuple[StoppingRule, ...]:
    """Make the rule that decides and, after it, those that watch; without names, those that cost next to nothing."""
    if watch is None:
        watch = (ExponentialVariance.name, *((Discrepancy.name,) if noise_is_measured else ()))
    return tuple(find_rule(name)() for name in dict.fromkeys((stop, *watch)))


def n_fits(config: FitConfig) -> int:
    """How many fits run beside each other for the rules that were chosen by name: 2 where one needs a twin."""
    return 1 + any(find_rule(name).needs_twin for name in (config.stop, *(config.watch or ())))
