"""Operators cross to sigpy and back, with their adjoints, gradients and batches."""

import pickle

import numpy as np
import pytest
import sigpy
import torch

from operators import (
    CartesianMRI,
    FiniteDifferences,
    LinearOperator,
    batch_test,
    dot_test,
    from_sigpy,
    gradient_test,
    normal_test,
    to_sigpy,
)


@pytest.fixture
def mri(generator: torch.Generator) -> CartesianMRI:
    maps = torch.randn(3, 6, 5, dtype=torch.complex64, generator=generator)
    return CartesianMRI(maps, torch.rand(6, 5, generator=generator) < 0.7)


def sigpy_linops() -> list[sigpy.linop.Linop]:
    rng = np.random.default_rng(0)
    coordinates = rng.uniform(-4, 4, (30, 2)).astype(np.float32)
    return [
        sigpy.linop.FFT((2, 6, 5), axes=(-2, -1)),
        sigpy.linop.Resize((2, 8, 8), (2, 6, 5)),
        sigpy.linop.Wavelet((8, 8)),
        sigpy.linop.NUFFT((8, 8), coordinates),
        2j * sigpy.linop.FiniteDifference((6, 5)),
    ]


@pytest.mark.parametrize("linop", sigpy_linops(), ids=lambda linop: linop.repr_str)
def test_a_sigpy_operator_obeys_the_laws_here(linop: sigpy.linop.Linop, generator: torch.Generator) -> None:
    op = from_sigpy(linop)
    # a gridding NUFFT is its adjoint's adjoint to single precision
    assert dot_test(op, generator, (2,)) < 1e-5
    assert normal_test(op, generator) < 1e-5
    assert gradient_test(op, generator, (2,)) < 1e-5
    assert batch_test(op, generator) < 1e-6


def test_values_are_sigpy_s(generator: torch.Generator) -> None:
    linop = sigpy.linop.FFT((6, 5))
    op = from_sigpy(linop)
    x = op.domain.randn(generator=generator)
    np.testing.assert_array_equal(op(x).numpy(), linop(x.numpy()))
    np.testing.assert_array_equal(op(x.conj()).numpy(), linop(x.conj().resolve_conj().numpy()))


# forward mode in torch 2.13 calls a part of torch that is marked as deprecated
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_second_derivatives_cross_the_bridge(generator: torch.Generator) -> None:
    op = from_sigpy(sigpy.linop.FFT((2, 3)))
    x = op.domain.randn(dtype=torch.complex128, generator=generator).requires_grad_()
    assert torch.autograd.gradcheck(op, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda z: op(z).abs().square().square().sum(), x)


def test_a_bridged_operator_composes_with_ours(mri: CartesianMRI, generator: torch.Generator) -> None:
    op = from_sigpy(sigpy.linop.FFT((3, 6, 5), axes=(-2, -1))) @ mri
    assert dot_test(op, generator) < 1e-5
    assert not from_sigpy(sigpy.linop.Identity((4,))).traceable


def test_the_result_goes_where_it_is_asked_to() -> None:
    op = from_sigpy(sigpy.linop.Identity((4,)), device="meta")
    assert op(torch.zeros(4, dtype=torch.complex64)).device.type == "meta"


def test_ours_is_a_sigpy_operator(mri: CartesianMRI, generator: torch.Generator) -> None:
    linop = to_sigpy(mri)
    assert (linop.ishape, linop.oshape) == ([1, 6, 5], [3, 6, 5])
    x, y = mri.domain.randn(generator=generator), mri.range.randn(generator=generator)
    np.testing.assert_array_equal(linop(x.numpy()), mri(x).numpy())
    np.testing.assert_array_equal(linop.H(y.numpy()), mri.adjoint(y).numpy())
    np.testing.assert_array_equal(linop.N(x.numpy()), mri.N(x).numpy())
    np.testing.assert_array_equal(linop.H.H(x.numpy()), mri(x).numpy())


def test_ours_takes_part_in_sigpy_s_algebra(mri: CartesianMRI, generator: torch.Generator) -> None:
    linop = 2 * to_sigpy(mri) * sigpy.linop.Reshape((1, 6, 5), (6, 5))
    x = mri.domain.randn(generator=generator)
    np.testing.assert_allclose(linop(x[0].numpy()), 2 * mri(x).numpy(), rtol=1e-6)
    np.testing.assert_allclose(linop.H(mri(x).numpy()), 2 * mri.N(x)[0].numpy(), rtol=1e-4, atol=1e-5)


def test_sigpy_s_solver_inverts_ours(generator: torch.Generator) -> None:
    maps = torch.randn(4, 6, 5, dtype=torch.complex64, generator=generator)
    A = CartesianMRI(maps, torch.ones(6, 5, dtype=torch.bool))
    x = A.domain.randn(generator=generator)
    solved = sigpy.app.LinearLeastSquares(to_sigpy(A), A(x).numpy(), max_iter=30, show_pbar=False).run()
    np.testing.assert_allclose(solved, x.numpy(), atol=1e-4)


def test_precision_and_kind_of_number_are_kept(mri: CartesianMRI) -> None:
    linop = to_sigpy(mri)
    assert linop(np.ones((1, 6, 5), np.complex128)).dtype == np.complex128
    assert linop(np.ones((1, 6, 5), np.float32)).dtype == np.complex64
    real = to_sigpy(FiniteDifferences((1, 6, 5), 2, is_complex=False))
    assert real(np.ones((1, 6, 5), np.float32)).dtype == np.float32


def test_there_and_back_is_the_same(mri: CartesianMRI, generator: torch.Generator) -> None:
    op: LinearOperator = from_sigpy(to_sigpy(mri))
    x = mri.domain.randn((2,), generator=generator)
    torch.testing.assert_close(op(x), mri(x))
    torch.testing.assert_close(op.N(x), mri.N(x))


def test_bridged_operators_survive_pickling(mri: CartesianMRI, generator: torch.Generator) -> None:
    x = mri.domain.randn(generator=generator)
    linop = to_sigpy(mri)
    again = pickle.loads(pickle.dumps(linop))  # noqa: S301  # our own bytes
    np.testing.assert_array_equal(again(x.numpy()), linop(x.numpy()))
    op = from_sigpy(sigpy.linop.FFT((1, 6, 5)))
    op_again = pickle.loads(pickle.dumps(op))  # noqa: S301  # our own bytes
    assert torch.equal(op_again(x), op(x))
