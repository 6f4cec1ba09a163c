"""Predict a copy of the data whose noise is independent of that which is fitted."""

from __future__ import annotations

from dipmed.dip.stopping.base import Minimum, Sight, StoppingRule, Verdict


class SelfReferenced(StoppingRule):
    """Keeps the iterate that best predicts a second copy of the data, whose noise the fit has not seen.

    Two acquisitions with independent noise would tell nearly the best moment: fit one, compare with the other
    (C. Huang et al., 2026, arXiv:2605.25299, who make such copies of images in other ways). One acquisition y gives
    two such copies, ``y + τ n``, which is fitted, and ``y − n / τ``, see `dipmed.dip.copies.recorrupt`, where n is
    noise of the same covariance. That the noises are independent takes Gaussian noise and the right level; a level
    too low leaves them in common what both copies have of it, and the rule is then late.

    Parameters
    ----------
    patience
        Iterations without a new minimum after which the fit stops.
    """

    name = "self-referenced"
    interval = 10
    needs_pair = True
    needs_noise = True

    def __init__(self, patience: int = 200) -> None:
        self._minimum = Minimum("the error against the second copy", patience)

    def watch(self, sight: Sight) -> Verdict | None:
        return self._minimum.judge(sight.problem.second_copy_error(sight.average), sight.iteration)
