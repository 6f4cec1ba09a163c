"""The rules of one fit: one decides, the others keep a curve and say what they would have chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import Sight, SteadyRule, StoppingRule, Verdict
from dipmed.dip.stopping.budget import Budget

_LOOK_INTERVAL = 10
"""Iterations between looks at the criteria of rules that only watch."""


class Panel:
    """The rules of one fit.

    Parameters
    ----------
    rules
        The one that decides, then those that watch.
    problem
        Whose data they judge by.

    Attributes
    ----------
    curves
        ``(iteration, value)`` of each rule's criterion; of rules that only watch, up to the last `settle`.

    Raises
    ------
    DipmedError
        When a rule needs what these data do not have.
    """

    def __init__(self, rules: Sequence[StoppingRule], problem: Problem) -> None:
        self.deciding = rules[0]
        self.rules = tuple(rules)
        self.curves: dict[str, list[tuple[int, float]]] = {self.deciding.name: []}
        self._choices: dict[str, int] = {}
        self._ended: set[str] = set()
        self._waiting: list[tuple[SteadyRule, int, Tensor]] = []
        for rule in rules:
            rule.check(problem)

    def judge(self, sight: Sight, *, refitting: bool) -> Verdict | None:
        """Show all rules an iterate; return what the deciding one says, None where it says nothing.

        While all data are fitted again, ``refitting``, there is nothing to decide, and nothing is set apart any more.
        """
        decision = None
        for rule in self.rules:
            decides = rule is self.deciding
            if sight.iteration % rule.interval or (refitting and (decides or rule.sets_data_apart)):
                continue
            if isinstance(rule, SteadyRule) and not decides:
                value = rule.measure(sight)
                if value is not None:
                    self._waiting.append((rule, sight.iteration, value))
                continue
            verdict = rule.watch(sight)
            if verdict is None:
                continue
            self._note(rule, sight.iteration, verdict)
            if decides:
                decision = verdict
        if sight.iteration % _LOOK_INTERVAL == 0:
            self.settle()
        return decision

    def settle(self) -> None:
        """Look at all criteria that still lie on the device, by waiting for it once."""
        if not self._waiting:
            return
        values = torch.stack([value for _, _, value in self._waiting]).tolist()
        for (rule, iteration, _), value in zip(self._waiting, values, strict=True):
            self._note(rule, iteration, rule.judge(value, iteration))
        self._waiting.clear()

    def _note(self, rule: StoppingRule, iteration: int, verdict: Verdict) -> None:
        self.curves.setdefault(rule.name, []).append((iteration, verdict.value))
        if verdict.keep and rule.name not in self._ended:
            self._choices[rule.name] = iteration
        if verdict.stop is not None:
            self._ended.add(rule.name)

    def choices(self, iteration: int, chosen_at: int) -> dict[str, int]:
        """The iteration that each rule would have returned, of a fit that ended at ``iteration``.

        A rule that would have stopped earlier keeps the choice of that time; one that has found none takes the last.
        """
        self.settle()
        found = {rule.name: self._choices.get(rule.name, iteration) for rule in self.rules}
        if Budget.name in found:
            found[Budget.name] = iteration
        return {**found, self.deciding.name: chosen_at}
