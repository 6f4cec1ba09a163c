"""The algebra of operators: adjoints, sums, products, and what is refused."""

import pytest
import torch
from torch import Tensor

from operators import (
    CartesianMRI,
    FiniteDifferences,
    FourierTransform,
    LinearOperator,
    Sensitivity,
    ShapeError,
    Space,
)


@pytest.fixture
def sensitivity(generator: torch.Generator) -> Sensitivity:
    return Sensitivity(torch.randn(3, 5, 4, dtype=torch.complex64, generator=generator))


@pytest.fixture
def mri(sensitivity: Sensitivity, generator: torch.Generator) -> CartesianMRI:
    return CartesianMRI(sensitivity.maps, torch.rand(5, 4, generator=generator) < 0.5)


def matrix_of(op: LinearOperator) -> Tensor:
    """The operator as a dense matrix, column by column."""
    basis = torch.eye(op.domain.size, dtype=torch.complex128).reshape(-1, *op.domain.shape)
    return op(basis).flatten(1).T


def test_algebra_is_that_of_matrices(mri: CartesianMRI, sensitivity: Sensitivity) -> None:
    A, S, F = mri, sensitivity, FourierTransform((3, 5, 4), ndim=2)
    a, s, f = matrix_of(A), matrix_of(S), matrix_of(F)
    factor = 0.5 - 2j
    for op, matrix in [
        (A.H, a.mH),
        (A.N, a.mH @ a),
        (F @ S, f @ s),
        ((F @ S).H, (f @ s).mH),
        ((F @ S).N, (f @ s).mH @ (f @ s)),
        (A + S, a + s),
        (A - S, a - s),
        ((A + S).N, (a + s).mH @ (a + s)),
        (-A, -a),
        (factor * A, factor * a),
        ((A * factor).H, factor.conjugate() * a.mH),
        ((2 * A).N, 4 * a.mH @ a),
        ((factor * A).N, abs(factor) ** 2 * a.mH @ a),
    ]:
        torch.testing.assert_close(matrix_of(op), matrix, msg=f"{op!r}")


def test_a_wrong_shape_names_both_shapes(mri: CartesianMRI) -> None:
    with pytest.raises(ShapeError, match=r"CartesianMRI\(.*expects \(batch\.\.\., 1, 5, 4\), got \(1, 4, 5\)"):
        mri(torch.zeros(1, 4, 5, dtype=torch.complex64))
    with pytest.raises(ShapeError, match=r"adjoint of CartesianMRI\(.*\(batch\.\.\., 3, 5, 4\), got \(5, 4\)"):
        mri.adjoint(torch.zeros(5, 4, dtype=torch.complex64))


def test_a_wrong_kind_of_number_is_refused(mri: CartesianMRI) -> None:
    with pytest.raises(ShapeError, match=r"expects complex numbers, got torch\.float32"):
        mri(torch.zeros(1, 5, 4))
    with pytest.raises(ShapeError, match=r"expects real numbers, got torch\.complex64"):
        FiniteDifferences((1, 5, 4), 2, is_complex=False)(torch.zeros(1, 5, 4, dtype=torch.complex64))


def test_operators_that_do_not_fit_are_refused(mri: CartesianMRI, sensitivity: Sensitivity) -> None:
    with pytest.raises(ShapeError, match=r"cannot compose: Sensitivity\(.*\) takes .*but CartesianMRI\(.*\) gives"):
        sensitivity @ mri
    with pytest.raises(ShapeError, match=r"cannot add CartesianMRI\(.*\) and FourierTransform\(.*\)"):
        mri + FourierTransform((3, 5, 4), ndim=2)
    with pytest.raises(ShapeError, match="complex factor 2j: its domain is real"):
        2j * FiniteDifferences((1, 5, 4), 2, is_complex=False)
    with pytest.raises(TypeError):
        mri @ "text"
    with pytest.raises(TypeError):
        mri + 1
    with pytest.raises(TypeError):
        mri * "text"


@pytest.mark.parametrize(("shape", "ndim"), [((4, 4), 0), ((4, 4), 3), ((2, 4, 4, 4, 4), 4)])
def test_a_fourier_transform_takes_one_to_three_axes(shape: tuple[int, ...], ndim: int) -> None:
    with pytest.raises(ShapeError, match="1 to 3 trailing axes"):
        FourierTransform(shape, ndim)


@pytest.mark.parametrize("shape", [(), (0, 3), (-1, 3)])
def test_a_space_needs_positive_sizes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="positive sizes"):
        Space(shape)


def test_one_seed_gives_one_element(generator: torch.Generator) -> None:
    space = Space((3, 4))
    x = space.randn((2,), generator=generator)
    assert (x.shape, x.dtype) == ((2, 3, 4), torch.complex64)
    assert torch.equal(x, space.randn((2,), generator=torch.Generator().manual_seed(0)))
    assert Space((3, 4), is_complex=False).randn().dtype == torch.float32
    assert space.size == 12


def test_a_network_that_holds_an_operator_learns_nothing_of_it(mri: CartesianMRI) -> None:
    network = torch.nn.Sequential(mri, torch.nn.Identity())
    assert list(network.parameters()) == []
    assert mri.device == torch.device("cpu")


def test_compiled_operators_give_the_same_values_and_gradients(
    mri: CartesianMRI, sensitivity: Sensitivity, generator: torch.Generator
) -> None:
    op = mri + 2j * sensitivity
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    x = op.domain.randn((2,), generator=generator).requires_grad_()
    y = op.range.randn((2,), generator=generator)
    (gradient,) = torch.autograd.grad((compiled(x) - y).abs().square().sum() / 2, x)
    torch.testing.assert_close(compiled(x), op(x))
    torch.testing.assert_close(gradient, op.adjoint(op(x) - y))


def test_compiled_adjoint_and_normal(mri: CartesianMRI, generator: torch.Generator) -> None:
    x, y = mri.domain.randn(generator=generator), mri.range.randn(generator=generator)
    for op, z in ((mri.H, y), (mri.N, x)):
        torch.testing.assert_close(torch.compile(op, fullgraph=True, backend="aot_eager")(z), op(z))
