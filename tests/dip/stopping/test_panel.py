"""One rule decides, the others say what they would have chosen."""

import pytest

from dipmed.dip.stopping import Panel, Sight, StoppingRule, Verdict
from dipmed.dip.stopping.budget import Budget
from dipmed.dip.stopping.held_out import HeldOut
from dipmed.dip.stopping.self_referenced import SelfReferenced
from dipmed.scan import DipmedError


class Scripted(StoppingRule):
    """Keeps and stops at given iterations."""

    def __init__(self, name, keeps, stops=(), apart=False):
        self.name = name
        self.keeps = keeps
        self.stops = stops
        self.needs_held_out = apart

    def watch(self, sight):
        stop = "enough" if sight.iteration in self.stops else None
        return Verdict(float(sight.iteration), sight.iteration in self.keeps, stop)


def judged(panel, iterations, refitting_from=None):
    return [
        panel.judge(Sight(None, i, None, None), refitting=refitting_from is not None and i >= refitting_from)
        for i in iterations
    ]


def test_each_rule_keeps_the_choice_of_its_own_end():
    panel = Panel([Scripted("first", {2}, {5}), Scripted("other", {1, 3, 4}, {3}), Scripted("none", ())], None)
    verdicts = judged(panel, range(1, 6))
    assert [verdict.stop for verdict in verdicts] == [None] * 4 + ["enough"]
    assert panel.choices(5, 2) == {"first": 2, "other": 3, "none": 5}
    assert [i for i, _ in panel.curves["other"]] == [1, 2, 3, 4, 5]


def test_a_refit_is_not_judged_by_what_it_sees():
    panel = Panel([Scripted("first", {1}, apart=True), Scripted("apart", {2, 4}, apart=True), Scripted("b", {4})], None)
    verdicts = judged(panel, range(1, 5), refitting_from=3)
    assert verdicts[2:] == [None, None]
    assert panel.choices(4, 4) == {"first": 4, "apart": 2, "b": 4}


def test_the_budget_would_have_taken_the_last(problem_of):
    problem, truth = problem_of("image")
    panel = Panel([Scripted("first", {10}), Budget()], problem)
    panel.judge(Sight(problem, 10, truth, truth), refitting=False)
    assert panel.choices(13, 10)["budget"] == 13


def test_what_was_not_set_apart_cannot_be_judged_by(problem_of):
    problem, truth = problem_of("image")
    with pytest.raises(DipmedError, match="no locations were held out"):
        HeldOut().watch(Sight(problem, 10, truth, truth))
    with pytest.raises(DipmedError, match="no copy"):
        SelfReferenced().watch(Sight(problem, 10, truth, truth))


def test_a_rule_without_its_noise_level_is_refused(small_scan):
    import torch

    from dipmed.dip.problem import make_problem

    y, A, _, _ = small_scan
    problem = make_problem(
        y, A, kspace_exponent=0, held_out=None, noise_variance=None, generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(DipmedError, match="needs the noise level"):
        Panel([SelfReferenced()], problem)
