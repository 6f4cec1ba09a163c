"""Predict measured locations that the fit does not see."""

from __future__ import annotations

from dipmed.dip.stopping.base import Minimum, Sight, StoppingRule, Verdict


class HeldOut(StoppingRule):
    """Keeps the iterate that best predicts the measured locations that the fit did not see.

    All coils of a location are held out together, because neighbouring coils see nearly the same
    (self-validation as in B. Yaman et al., 2022, arXiv:2102.07737, applied to deep image priors).

    Parameters
    ----------
    patience
        Iterations without a new minimum after which the fit stops, and half of all iterations so far at least.
    tolerance
        An iterate whose error is this close to the minimum, relatively, is kept in place of an earlier one, so that
        noise in a flat curve does not cost the last iterations.
    """

    name = "held-out"
    interval = 10
    needs_held_out = True

    def __init__(self, patience: int = 200, tolerance: float = 0.01) -> None:
        self._minimum = Minimum("the held-out error", patience, tolerance, share=0.5)

    def watch(self, sight: Sight) -> Verdict | None:
        return self._minimum.judge(sight.problem.held_out_error(sight.average), sight.iteration)
