import pytest
import torch

from dipmed.config import FitConfig
from dipmed.dip.inputs import make_input
from dipmed.dip.problem import make_problem
from dipmed.scan import DipmedError, ShapeError


def problem_of(y, A, *, exponent=0.0, held_out=None, variance=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return make_problem(y, A, kspace_exponent=exponent, held_out=held_out, noise_variance=variance, generator=generator)


def test_scale_makes_the_first_image_peak_at_one(small_scan):
    y, A, _, variance = small_scan
    problem = problem_of(1e-5 * y, A, variance=1e-10 * variance)
    assert float(problem.adjoint_data.abs().max()) == pytest.approx(1, rel=0.05)
    assert problem.scale == pytest.approx(1e5 * problem_of(y, A).scale, rel=1e-4)
    n_samples = int(A.mask.sum()) * len(y)
    assert problem.noise.energy == pytest.approx(n_samples * variance * problem_of(y, A).scale ** 2, rel=1e-4)


@pytest.mark.parametrize("exponent", [0.0, 0.5])
@pytest.mark.parametrize("held_out", [None, 0.1])
def test_gradient_is_that_of_the_data_term(small_scan, exponent, held_out):
    y, A, _, _ = small_scan
    problem = problem_of(y, A, exponent=exponent, held_out=held_out)
    x = A.domain.randn((1,), generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = 1.0 if problem.weights is None else problem.weights
    residual = (A(x) - problem.y) * (1 if held_out is None else ~problem.held_out_mask)
    value = (residual.abs().square() * weights).sum() / problem.energy
    (expected,) = torch.autograd.grad(value, x)
    ours, gradient = problem.gradient(x.detach())
    assert float(ours) == pytest.approx(float(value.detach()), rel=1e-4)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("exponent", [0.0, 0.25, 1.0])
def test_a_zero_image_has_the_data_term_one(small_scan, exponent):
    y, A, _, _ = small_scan
    value, _ = problem_of(y, A, exponent=exponent).gradient(torch.zeros(1, *A.domain.shape, dtype=torch.complex64))
    assert float(value) == pytest.approx(1, rel=1e-5)


def test_held_out_locations_are_measured_and_outside_the_core(small_scan):
    y, A, _, _ = small_scan
    held_out = problem_of(y, A, held_out=0.1).held_out_mask
    assert int(held_out.sum()) == round(0.1 * int(A.mask.sum()))
    assert bool((A.mask.bool() | ~held_out).all())
    assert not bool(held_out[8:16, 6:14].any())


def test_held_out_locations_follow_the_seed(small_scan):
    y, A, _, _ = small_scan
    masks = [problem_of(y, A, held_out=0.1, seed=seed).held_out_mask for seed in (1, 1, 2)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_what_is_held_out_reaches_neither_input_nor_gradient(small_scan):
    y, A, _, _ = small_scan
    held_out = problem_of(y, A, held_out=0.1).held_out_mask
    # small enough to leave the scale and the map of what was sampled alone
    changed = y * torch.where(held_out, 0.5, 1.0)
    first, second = (problem_of(data, A, exponent=0.5, held_out=0.1) for data in (y, changed))
    ratio = first.scale / second.scale
    x = A.domain.randn((1,), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(first.gradient(x)[1], second.gradient(x / ratio)[1] / ratio, rtol=1e-3, atol=1e-5)
    config = FitConfig(inputs=("zero-filled", "wavelet"))
    inputs = [make_input(p, config, torch.Generator().manual_seed(0))[:, :2] / p.scale for p in (first, second)]
    torch.testing.assert_close(inputs[0], inputs[1], rtol=1e-4, atol=1e-5)


def test_steps_towards_the_data_reduce_the_error(small_scan):
    y, A, _, _ = small_scan
    problem = problem_of(y, A)
    start = torch.zeros(1, *A.domain.shape, dtype=torch.complex64)
    errors = [problem.data_error(problem.towards_data(start, steps)) for steps in (0, 1, 5)]
    assert errors[0] > errors[1] > errors[2]
    torch.testing.assert_close(problem.towards_data(start, 1)[0], problem.adjoint_data)


def test_support_is_where_the_maps_are(small_scan):
    y, A, _, _ = small_scan
    maps = A.maps.clone()
    maps[:, 5:9] = 0
    support = problem_of(y, type(A)(maps, A.mask)).support
    assert not bool(support[:, 5:9].any())
    assert bool(support[:, :5].all())
    assert bool(support[:, 9:].all())


def test_the_last_steps_find_what_lies_beyond_the_support(small_scan):
    y, A, truth, _ = small_scan
    maps = A.maps.clone()
    maps[:, :10] = 0  # a good part of the object
    narrow = type(A)(maps, A.mask)
    generator = torch.Generator().manual_seed(0)
    problem = make_problem(
        y, narrow, kspace_exponent=0, held_out=None, noise_variance=None, generator=generator, A_final=A
    )
    haze = torch.ones(1, *A.domain.shape, dtype=torch.complex64)
    assert not bool(problem.towards_data(haze, 0)[..., :10, :].any())
    found = problem.towards_data(haze * 0 + truth * problem.scale, 5)[0]
    error = (found - truth * problem.scale).norm() / (truth * problem.scale).norm()
    assert float(error) < 0.2
    other = type(A)(A.maps[:3], A.mask)
    with pytest.raises(ShapeError, match="last steps"):
        make_problem(y, A, kspace_exponent=0, held_out=None, noise_variance=None, generator=generator, A_final=other)


def test_bad_data_are_refused(small_scan):
    y, A, _, _ = small_scan
    with pytest.raises(ShapeError, match="range"):
        problem_of(y[:2], A)
    with pytest.raises(DipmedError, match="all zero"):
        problem_of(torch.zeros_like(y), A)
    with pytest.raises(DipmedError, match="not finite"):
        problem_of(y * float("nan"), A)
    few = A.with_mask(torch.zeros(A.mask.shape, dtype=torch.bool).index_fill_(1, torch.tensor([10]), True))
    with pytest.raises(DipmedError, match="another rule"):
        problem_of(few(few.domain.randn()), few, held_out=0.001)


def test_with_all_data_it_is_the_problem_without_held_out_locations(small_scan):
    y, A, _, _ = small_scan
    given_back = problem_of(y, A, exponent=0.5, held_out=0.1).with_all_data()
    whole = problem_of(y, A, exponent=0.5)
    x = A.domain.randn((1,), generator=torch.Generator().manual_seed(1))
    for ours, expected in zip(given_back.gradient(x), whole.gradient(x), strict=True):
        torch.testing.assert_close(ours, expected)
    with pytest.raises(DipmedError, match="no locations were held out"):
        given_back.held_out_error(x)
