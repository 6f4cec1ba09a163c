import pytest
import torch

from dipmed.dip.problem import make_problem
from dipmed.dip.stopping import RULES, Sight, find_rule, make_rules
from dipmed.dip.stopping.budget import Budget, Until
from dipmed.dip.stopping.discrepancy import Discrepancy
from dipmed.dip.stopping.exponential_variance import ExponentialVariance
from dipmed.dip.stopping.held_out import HeldOut
from dipmed.dip.stopping.windowed_variance import WindowedVariance
from dipmed.scan import DipmedError


@pytest.fixture
def problem(small_scan):
    y, A, _, variance = small_scan
    return make_problem(
        y, A, kspace_exponent=0, held_out=0.1, noise_variance=variance, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture
def truth(small_scan, problem):
    return small_scan[2][None] * problem.scale


def noise_like(image, seed):
    return torch.randn(image.shape, dtype=image.dtype, generator=torch.Generator().manual_seed(seed))


def test_held_out_keeps_the_iterate_nearest_to_the_truth(problem, truth):
    rule = HeldOut(patience=30)
    distances = [1.0, 0.5, 0.2, 0.05, 0.2, 0.5, 1.0, 1.0]
    verdicts = [
        rule.watch(Sight(problem, 10 * i, None, truth + d * noise_like(truth, 1)))
        for i, d in enumerate(distances, start=1)
    ]
    assert [v.keep for v in verdicts] == [True, True, True, True, False, False, False, False]
    # half of all iterations is more than its patience
    assert [v.stop is None for v in verdicts] == [True] * 7 + [False]
    assert "40 iterations" in verdicts[-1].stop


def test_held_out_is_patient_with_a_short_fit(problem, truth):
    rule = HeldOut(patience=60)
    verdicts = [rule.watch(Sight(problem, 10 * i, None, d * truth)) for i, d in enumerate([1, *[3] * 6], start=1)]
    assert [v.stop is None for v in verdicts] == [True] * 6 + [False]


def test_held_out_prefers_a_later_iterate_of_nearly_equal_error(problem, truth):
    rule = HeldOut(tolerance=0.05)
    assert rule.watch(Sight(problem, 10, None, 0.5 * truth)).keep
    assert rule.watch(Sight(problem, 20, None, 0.499 * truth)).keep
    assert not rule.watch(Sight(problem, 30, None, 0.3 * truth)).keep


@pytest.mark.parametrize("make", [lambda: WindowedVariance(5, patience=10), lambda: ExponentialVariance(0.5, 5, 10)])
def test_variance_rules_keep_the_calm_before_the_storm(problem, truth, make):
    rule = make()
    kept, stopped = None, None
    for iteration in range(1, 80):
        spread = abs(iteration - 40) / 40 + 0.01
        verdict = rule.watch(Sight(problem, iteration, truth + spread * noise_like(truth, iteration), None))
        if verdict is None:
            continue
        if verdict.keep:
            kept = iteration
        if verdict.stop:
            stopped = iteration
            break
    assert kept == pytest.approx(41, abs=4)
    assert stopped == kept + 10


def test_windowed_variance_is_that_of_the_window(problem, truth):
    rule = WindowedVariance(window=4)
    outputs = [truth + noise_like(truth, seed) for seed in range(6)]
    for iteration, output in enumerate(outputs, start=1):
        verdict = rule.watch(Sight(problem, iteration, output, None))
    window = torch.stack(outputs[-4:])[:, 0, 0, ::4, ::4]
    expected = (window - window.mean(0)).abs().square().mean()
    assert verdict.value == pytest.approx(float(expected), rel=1e-4)


def test_discrepancy_stops_at_the_noise_level(problem, truth):
    rule = Discrepancy()
    far = rule.watch(Sight(problem, 5, None, 0.9 * truth))
    assert far.stop is None
    assert far.value > 1
    near = rule.watch(Sight(problem, 10, None, problem.towards_data(truth, 1)))
    assert near.value < 1
    assert "noise" in near.stop
    at_truth = rule.watch(Sight(problem, 15, None, truth))
    assert at_truth.value == pytest.approx(1, abs=0.15)


def test_discrepancy_needs_the_noise_level(small_scan):
    y, A, _, _ = small_scan
    without = make_problem(
        y, A, kspace_exponent=0, held_out=None, noise_variance=None, generator=torch.Generator().manual_seed(0)
    )
    with pytest.raises(DipmedError, match="noise measurement"):
        Discrepancy().check(without)


def test_budget_keeps_the_last(problem, truth):
    rule = Budget()
    verdicts = [rule.watch(Sight(problem, i, truth, truth * i)) for i in range(1, 5)]
    assert all(verdict.keep and verdict.stop is None for verdict in verdicts)


def test_a_number_of_iterations_ends_a_fit(problem, truth):
    rule = Until(3)
    assert rule.watch(Sight(problem, 2, truth, truth)).stop is None
    assert "3 iterations" in rule.watch(Sight(problem, 3, truth, truth)).stop


def test_rules_are_found_by_name():
    assert find_rule("held-out") is HeldOut
    assert all(rule.name == name for name, rule in RULES.items())
    with pytest.raises(DipmedError, match=r"unknown stopping rule 'nope'.*held-out"):
        find_rule("nope")


def test_cheap_rules_watch_where_none_are_named():
    def names(*arguments, **options):
        return [rule.name for rule in make_rules(*arguments, **options)]

    assert names("held-out", None, noise_is_measured=False) == ["held-out", "exponential-variance"]
    assert names("discrepancy", None, noise_is_measured=True) == ["discrepancy", "exponential-variance"]
    assert names("sure", ("budget", "sure"), noise_is_measured=True) == ["sure", "budget"]
    assert names("budget", (), noise_is_measured=True) == ["budget"]
