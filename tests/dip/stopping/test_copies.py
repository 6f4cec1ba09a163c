"""The copies of the data are what the rules take them for: a pair of independent noise, and a twin."""

import pytest
import torch

from dipmed.dip.copies import perturb, recorrupt


def generator():
    return torch.Generator().manual_seed(11)


def noises(problem, pair, truth, share):
    """Noise of both copies, as it lies in the data."""
    clean = problem.A_fit(truth)[0]
    added = (pair.y_fit - problem.y_fit) / share
    return pair.y_fit - clean, problem.y_fit - added / share - clean


def correlation(a, b):
    return float((a.conj() * b).real.sum() / (a.abs().square().sum() * b.abs().square().sum()).sqrt())


def test_the_pair_has_independent_noise(problem_of, kind):
    share = 0.5
    cross, first, second = [], [], []
    for seed in range(8):
        problem, truth = problem_of(kind, seed=seed)
        pair = recorrupt(problem, torch.Generator().manual_seed(100 + seed), share)
        a, b = noises(problem, pair, truth, share)
        cross.append(correlation(a, b))
        first.append(float(a.abs().square().sum()) / problem.noise.energy)
        second.append(float(b.abs().square().sum()) / problem.noise.energy)
    # each of about a thousand numbers or more, so that chance gives 0.03 or less, and 0.01 on average
    assert sum(cross) / 8 == pytest.approx(0, abs=0.04)
    assert sum(first) / 8 == pytest.approx(1 + share**2, rel=0.06)
    assert sum(second) / 8 == pytest.approx(1 + share**-2, rel=0.06)
    assert pair.noise_gain == pytest.approx(1 + share**2)


def test_without_the_second_copy_noise_would_be_shared(problem_of):
    problem, truth = problem_of("image")
    pair = recorrupt(problem, generator(), 0.5)
    a, _ = noises(problem, pair, truth, 0.5)
    assert correlation(a, problem.y_fit - problem.A_fit(truth)[0]) > 0.8


def test_the_second_copy_judges_and_the_first_is_fitted(problem_of, kind):
    problem, truth = problem_of(kind)
    pair = recorrupt(problem, generator(), 0.5)
    _, b = noises(problem, pair, truth, 0.5)
    energy = (b + problem.A_fit(truth)[0]).abs().square().sum()
    assert pair.second_copy_error(truth) == pytest.approx(float(b.abs().square().sum() / energy), rel=1e-3)
    assert pair.second_copy_error(truth) < pair.second_copy_error(0.8 * truth)
    at_fit, _ = pair.gradient(truth)
    assert float(at_fit) != pytest.approx(float(problem.gradient(truth)[0]), rel=1e-3)
    # nor does an input image show the noise of the data without what was added
    A, adjoint = pair.for_input()
    assert float((adjoint - problem.for_input()[1]).abs().max()) > 0
    assert A.domain == problem.A.domain


def test_held_out_locations_stay_out_of_both_copies(problem_of):
    problem, _ = problem_of("cartesian", held_out=0.1)
    pair = recorrupt(problem, generator(), 0.5)
    assert not pair.y_fit[:, problem.held_out_mask].any()
    assert pair.held_out_error(problem.adjoint_data[None]) == problem.held_out_error(problem.adjoint_data[None])


def test_the_data_themselves_are_given_back(problem_of, kind):
    problem, _ = problem_of(kind)
    again = recorrupt(problem, generator(), 0.5).with_all_data()
    assert torch.equal(again.y_fit, problem.y)
    assert again.second_copy_term is None
    assert again.noise_gain == 1
    torch.testing.assert_close(again.for_input()[1], problem.for_input()[1])


def test_a_twin_has_a_little_noise_more_in_all_that_is_fitted(problem_of, kind):
    problem, truth = problem_of(kind)
    probe = perturb(problem, generator(), 0.1)
    torch.testing.assert_close(probe.problem.y, problem.y + 0.1 * probe.noise)
    torch.testing.assert_close(probe.problem.adjoint_data, problem.A.adjoint(probe.problem.y))
    value, gradient = problem.gradient(truth)
    other_value, other = probe.problem.gradient(truth)
    change = (gradient * problem.energy - other * probe.problem.energy) / 2
    if problem.weights is None and problem.smooth_phase is None:
        torch.testing.assert_close(change[0], 0.1 * problem.A.adjoint(probe.noise), rtol=1e-2, atol=1e-4)
    assert float(value) != float(other_value)
    if problem.line_integrals is not None:
        torch.testing.assert_close(problem.A.weigh(probe.problem.line_integrals), probe.problem.y)
