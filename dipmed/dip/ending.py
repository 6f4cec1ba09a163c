"""What ends a fit, and the image that it returns: its rules choose, within the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from dipmed.dip.recovery import Snapshot
from dipmed.dip.stopping import Panel, Sight
from dipmed.scan import StopReason

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


class Ending:
    """The choice of a fit so far.

    Parameters
    ----------
    panel
        The rules that judge the fit.
    chosen, chosen_at
        The image that is returned if nothing better comes, ``(1, set, x, y[, z])``, and its iteration.

    Attributes
    ----------
    rule
        The one that decides.
    refit_from
        The iteration since which data that were set apart are fitted as well; None while they are not.
    snapshot
        The fit as it was at the choice, where it may have to go back to it.
    """

    def __init__(self, panel: Panel, chosen: Tensor, chosen_at: int = 0) -> None:
        self.panel = panel
        self.rule = panel.deciding
        self.chosen = chosen
        self.chosen_at = chosen_at
        self.refit_from: int | None = None
        self.snapshot: Snapshot | None = None

    def judge(self, fit: Fit) -> StopReason | None:
        """Let the rules see an iterate, and say why the fit should end, if it should."""
        refitting = self.refit_from is not None
        if refitting:
            self._take(fit.candidate, fit.iteration)
        verdict = self.panel.judge(_sight(fit), refitting=refitting)
        if verdict is not None and verdict.keep:
            self._take(fit.candidate.clone(), fit.iteration)
            if fit.config.refit == "resume" and self.rule.sets_data_apart:
                self.snapshot = fit.snapshots[-1]  # rules that set data apart look when the loss is looked at
            self._refit_if_due(fit)
        if verdict is not None and verdict.stop is not None:
            return StopReason(self.rule.name, self.chosen_at, verdict.stop)
        return self._end_of_budget(fit) if fit.progress >= 1 else None

    def _take(self, image: Tensor, iteration: int) -> None:
        self.chosen, self.chosen_at = image, iteration

    def _refit_if_due(self, fit: Fit) -> None:
        """Give back what was set apart for the end of a fit that its rule has found no fault with so far."""
        goes_on = fit.config.refit == "continue" and self.rule.sets_data_apart
        if goes_on and 1 - fit.config.refit_share <= fit.progress < 1:
            self.refit_from = fit.iteration
            fit.give_back()

    def _end_of_budget(self, fit: Fit) -> StopReason:
        if self.chosen_at == 0 or self.rule.name == "budget":
            self._take(fit.candidate, fit.iteration)
        by_time = fit.iteration < fit.config.iterations
        limit = f"the time limit of {fit.config.time_limit:g} s" if by_time else f"all {fit.iteration} iterations"
        reason = f"{limit} were used"
        if self.refit_from is not None:
            returned = "the held-out locations" if self.rule.needs_held_out else "the data themselves"
            reason += f", those after {self.refit_from} with {returned}"
        return StopReason("time-limit" if by_time else self.rule.name, self.chosen_at, reason)


def _sight(fit: Fit) -> Sight:
    twin = None if fit.twin is None else fit.twin.candidate
    return Sight(fit.problem, fit.iteration, fit.output, fit.candidate, twin, fit.probe)
