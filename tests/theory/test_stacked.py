import pytest
import torch

from dipmed.scan import DipmedError, ShapeError
from dipmed.theory.stacked import Stacked
from operators import CartesianMRI, FiniteDifferences, Identity


def test_vectors_and_images_are_inverse(operator, double):
    stacked = Stacked(operator)
    x = double(operator.domain, (3, 2))
    assert stacked.vector(x).shape == (3, 2, stacked.n)
    assert torch.equal(stacked.image(stacked.vector(x)), x)
    assert stacked.vector(x).square().sum() == pytest.approx(float(x.abs().square().sum()))


def test_all_that_the_operator_gives_is_kept(operator, double):
    stacked = Stacked(operator)
    x = double(operator.domain, (2,))
    forward = stacked.forward(stacked.vector(x))
    torch.testing.assert_close(stacked.data(forward), operator(x))
    y = double(operator.range, (2,))
    torch.testing.assert_close(stacked.image(stacked.adjoint(stacked.data_vector(y))), operator.adjoint(y))


def test_adjoint_is_the_transpose(operator):
    stacked = Stacked(operator)
    matrix = stacked.forward(torch.eye(stacked.n, dtype=torch.float64)).T
    torch.testing.assert_close(stacked.adjoint(torch.eye(stacked.m, dtype=torch.float64)), matrix)


def test_unsampled_locations_are_no_data():
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[:, ::2] = True
    stacked = Stacked(CartesianMRI(torch.ones(3, 6, 5, dtype=torch.complex64), mask))
    assert stacked.m == 2 * 3 * 18


def test_noise_of_a_complex_sample_is_shared_by_its_parts():
    assert Stacked(Identity((1, 4, 4), is_complex=True)).deviation(2.0) == pytest.approx(2**0.5)


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_noise_is_refused(operator, sigma):
    with pytest.raises(DipmedError, match="positive and finite"):
        Stacked(operator).deviation(sigma)


def test_an_operator_that_sees_nothing_is_refused():
    with pytest.raises(DipmedError, match="nothing was measured"):
        Stacked(CartesianMRI(torch.ones(1, 4, 4, dtype=torch.complex64), torch.zeros(4, 4, dtype=torch.bool)))


def test_several_real_images_are_refused():
    with pytest.raises(ShapeError, match="one channel"):
        Stacked(FiniteDifferences((1, 4, 4), ndim=2, is_complex=False).H)
