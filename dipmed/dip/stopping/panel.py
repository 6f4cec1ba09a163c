"""The rules of one fit: one decides, the others keep a curve and say what they would have chosen."""

from __future__ import annotations

from collections.abc import Sequence

from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import Sight, StoppingRule, Verdict
from dipmed.dip.stopping.budget import Budget


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
        ``(iteration, value)`` of each rule's criterion.

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
            verdict = rule.watch(sight)
            if verdict is None:
                continue
            self.curves.setdefault(rule.name, []).append((sight.iteration, verdict.value))
            if verdict.keep and rule.name not in self._ended:
                self._choices[rule.name] = sight.iteration
            if verdict.stop is not None:
                self._ended.add(rule.name)
            if decides:
                decision = verdict
        return decision

    def choices(self, iteration: int, chosen_at: int) -> dict[str, int]:
        """The iteration that each rule would have returned, of a fit that ended at ``iteration``.

        A rule that would have stopped earlier keeps the choice of that time; one that has found none takes the last.
        """
        found = {rule.name: self._choices.get(rule.name, iteration) for rule in self.rules}
        if Budget.name in found:
            found[Budget.name] = iteration
        return {**found, self.deciding.name: chosen_at}
