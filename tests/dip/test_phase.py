import pytest
import torch

from dipmed.dip.phase import SmoothPhase, low_resolution_image
from dipmed.dip.problem import make_problem
from operators import CartesianMRI, make_mask

SHAPE = (32, 28)


def smooth_image(seed=0):
    """A positive image with a phase of few waves."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, SHAPE[0]), torch.linspace(-1, 1, SHAPE[1]), indexing="ij")
    magnitude = 0.3 + torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))
    return torch.polar(magnitude, 1.5 * x - y + 0.5 * x * y)[None]


def test_gradient_is_that_of_the_penalty():
    generator = torch.Generator().manual_seed(0)
    low, x = (torch.randn(shape, dtype=torch.complex128, generator=generator) for shape in ((1, 5, 4), (2, 1, 5, 4)))
    penalty = SmoothPhase(low, weight=0.3)
    x.requires_grad_()
    value, gradient = penalty(x)
    (expected,) = torch.autograd.grad(value, x)
    torch.testing.assert_close(gradient.detach(), expected)


def test_only_what_is_out_of_phase_counts():
    low = smooth_image()
    penalty = SmoothPhase(low, weight=1.0)
    in_phase, _ = penalty((low * torch.rand(SHAPE))[None])
    across, _ = penalty((0.2j * low)[None])
    assert float(in_phase) < 1e-6 < 1 < float(across)


def test_a_jump_of_the_phase_is_let_be():
    low = smooth_image()
    penalty = SmoothPhase(low, weight=1.0)
    _, slight = penalty((0.2j * low)[None])
    _, large = penalty((2j * low)[None])
    assert float(large.abs().sum()) < 0.05 * float(slight.abs().sum())


def operator(spec):
    maps = torch.ones(1, *SHAPE, dtype=torch.complex64)
    return CartesianMRI(maps, make_mask(spec, SHAPE))


def test_the_centre_of_kspace_tells_a_smooth_phase():
    image = smooth_image()
    A = operator("random:R=2,acs=10,seed=0")
    found = low_resolution_image(A, A(image))
    error = torch.angle(found * image.conj())[0, 4:-4, 4:-4].abs()
    assert float(error.median()) < 0.1
    assert float(error.max()) < 0.5


@pytest.mark.parametrize("spec", ["equispaced:R=2,acs=0", "equispaced:R=3,acs=6"])
def test_without_a_full_centre_there_is_no_penalty(spec):
    A = operator(spec)
    y = A(smooth_image())
    assert low_resolution_image(A, y) is None
    generator = torch.Generator().manual_seed(0)
    problem = make_problem(
        y, A, kspace_exponent=0, phase_weight=1, held_out=None, noise_variance=None, generator=generator
    )
    assert problem.smooth_phase is None


def test_the_penalty_enters_the_gradient_of_the_problem():
    A = operator("random:R=2,acs=10,seed=0")
    y = A(smooth_image())
    with_it, without = (
        make_problem(
            y,
            A,
            kspace_exponent=0,
            phase_weight=weight,
            held_out=None,
            noise_variance=None,
            generator=torch.Generator().manual_seed(0),
        )
        for weight in (0.5, 0.0)
    )
    x = A.domain.randn((1,), generator=torch.Generator().manual_seed(1)).requires_grad_()
    penalty, _ = with_it.smooth_phase(x)
    value, gradient = with_it.gradient(x.detach())
    plain, _ = without.gradient(x.detach())
    assert float(value) == pytest.approx(float(plain + penalty.detach() / with_it.energy), rel=1e-5)
    (push,) = torch.autograd.grad(penalty / with_it.energy, x)
    torch.testing.assert_close(gradient, without.gradient(x.detach())[1] + push, rtol=1e-4, atol=1e-7)
