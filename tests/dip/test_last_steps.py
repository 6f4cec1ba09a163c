import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig
from dipmed.dip import DeepImagePrior, last_steps
from dipmed.dip.last_steps import MOST, end_with_data, steps_that_pay
from dipmed.dip.noise import Noise
from dipmed.dip.problem import make_problem
from dipmed.scan import DipmedError
from operators import CartesianMRI, NonCartesianMRI, Slices, density_compensation, norm_bound, radial


def along_spokes(A):
    """The same coils along 20 spokes."""
    matrix = A.domain.shape[1:]
    trajectory = radial(matrix, 20, 48).reshape(-1, 2).float()
    density = density_compensation(trajectory, matrix)
    return NonCartesianMRI(A.maps, trajectory, density / norm_bound(NonCartesianMRI(A.maps, trajectory, density)) ** 2)


OPERATORS = {"grid": lambda A: A, "spokes": along_spokes, "slices": lambda A: Slices([A, A])}


@pytest.fixture(params=OPERATORS)
def measured(request, small_scan):
    """Noise-free data of the phantom along each kind of sampling, the operator, and the truth."""
    _, on_grid, truth, _ = small_scan
    A = OPERATORS[request.param](on_grid)
    image = truth if request.param != "slices" else truth[..., None].expand(-1, -1, -1, 2)
    return A(image[None])[0], A, image


def problem_of(y, A):
    generator = torch.Generator().manual_seed(0)
    return make_problem(y, A, kspace_exponent=0.5, held_out=None, noise_variance=None, generator=generator)


def smooth_error(image, size):
    """The error of a network that has not learned the edges: coherent between coils, unlike noise."""
    blurred = (image + image.roll(1, -2) + image.roll(-1, -2) + image.roll(1, -1) + image.roll(-1, -1)) / 5
    return size * (blurred - image)


@pytest.mark.parametrize("sigma", [1e-4, 0.01, 0.05])
def test_the_steps_that_pay_predict_data_nearly_as_well_as_any_number(measured, sigma, monkeypatch):
    monkeypatch.setattr("dipmed.dip.last_steps._NEW_NOISE", 1.0)  # the image has fitted none
    clean, A, truth = measured
    noise = Noise(A, sigma * float(clean.abs().max())).draw(torch.Generator().manual_seed(1))[0]
    problem = problem_of(clean + noise, A)
    image = (truth + smooth_error(truth, 0.3))[None] * problem.scale
    errors = [
        float((A(problem.towards_data(image, n))[0] - clean * problem.scale).abs().square().sum())
        for n in range(MOST + 1)
    ]
    n = steps_that_pay(problem, image)
    assert n >= 2
    assert errors[n] <= 1.1 * min(errors[2:])
    assert sigma > 1e-4 or n > 10
    assert sigma < 0.05 or n == 2


def test_a_single_coil_cannot_tell_its_noise(small_scan):
    _, A, truth, _ = small_scan
    single = CartesianMRI(torch.ones(1, *truth.shape[1:], dtype=torch.complex64), A.mask)
    problem = problem_of(single(truth[None])[0], single)
    assert steps_that_pay(problem, truth[None] * problem.scale) == 2


def test_what_the_operator_alone_says_is_found_once(measured, monkeypatch):
    clean, A, truth = measured
    problem = problem_of(clean, A)
    followed = []
    follow = last_steps._follow
    monkeypatch.setattr(last_steps, "_follow", lambda A, residual: followed.append(residual) or follow(A, residual))
    for size in (0.1, 0.3):
        steps_that_pay(problem, smooth_error(truth, size)[None])
    assert len(followed) == 3  # two residuals, and white noise


@pytest.mark.parametrize("steps", [0, 3, "auto"])
def test_a_number_that_was_chosen_is_taken(measured, steps):
    clean, A, truth = measured
    problem = problem_of(clean, A)
    image = smooth_error(truth, 0.3)[None]
    ended, n = end_with_data(problem, image, steps)
    assert n == steps if steps != "auto" else n > 3
    assert torch.equal(ended, problem.towards_data(image, n))


def test_an_image_ends_with_fewer_steps_where_there_is_more_noise(small_scan):
    clean, A, _, variance = small_scan
    config = FitConfig(network=NetworkConfig((8, 8), 2, 4), iterations=40)
    noise = Noise(A, 10 * variance**0.5).draw(torch.Generator().manual_seed(1))[0]
    few, many = (DeepImagePrior(config)(y, A).last_steps for y in (clean + noise, clean))
    assert few < many


def test_a_negative_number_is_refused():
    with pytest.raises(DipmedError, match="data_consistency_steps"):
        FitConfig(data_consistency_steps=-1)
