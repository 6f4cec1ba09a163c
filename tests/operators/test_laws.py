"""The laws that every operator obeys, over generated shapes, batches and precisions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from operators import (
    CartesianMRI,
    CartesianSampling,
    FiniteDifferences,
    FourierTransform,
    LinearOperator,
    Sensitivity,
    batch_test,
    dot_test,
    gradient_test,
    normal_test,
)

TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-12}

matrices = st.one_of(st.tuples(*[st.integers(1, 12)] * 2), st.tuples(*[st.integers(1, 7)] * 3))
batches = st.sampled_from([(), (1,), (3,), (2, 2)])
precisions = st.sampled_from([torch.complex64, torch.complex128])


def random_maps(n_coils: int, matrix: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn((n_coils, *matrix), dtype=dtype, generator=torch.Generator().manual_seed(seed))


def random_mask(matrix: tuple[int, ...], seed: int) -> Tensor:
    """Scattered locations, lines along one axis, all, or none: `AᴴA` takes another way for each."""
    generator = torch.Generator().manual_seed(seed)
    varying = [n if seed >> axis & 1 else 1 for axis, n in enumerate(matrix)]
    return (torch.rand(varying, generator=generator) < 0.6).expand(matrix).clone()


def make_operator(family: str, n_coils: int, matrix: tuple[int, ...], dtype: torch.dtype, seed: int) -> LinearOperator:
    F = FourierTransform((n_coils, *matrix), len(matrix))
    S = Sensitivity(random_maps(n_coils, matrix, dtype, seed))
    mask = random_mask(matrix, seed)
    A = CartesianMRI(S.maps, mask)
    return {
        "fourier": F,
        "sampling": CartesianSampling(mask, n_coils),
        "sensitivity": S,
        "mri": A,
        "mri of two sets": CartesianMRI(torch.stack([S.maps, S.maps.flip(0) * (1 + 2j)]), mask),
        "differences": FiniteDifferences((1, *matrix), len(matrix)),
        "real differences": FiniteDifferences(matrix, 1, is_complex=False),
        "composition": F @ S,
        "sum": A - (2 - 1.5j) * S,
        "adjoint": S.H,
        "normal": A.N,
    }[family]


families = pytest.mark.parametrize(
    "family",
    [
        "fourier",
        "sampling",
        "sensitivity",
        "mri",
        "mri of two sets",
        "differences",
        "real differences",
        "composition",
        "sum",
        "adjoint",
        "normal",
    ],
)
# forward mode in torch 2.13 calls a part of torch that is marked as deprecated
forward_mode = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@families
@given(matrix=matrices, n_coils=st.integers(1, 4), batch=batches, dtype=precisions, seed=st.integers(0, 2**16))
def test_an_operator_obeys_the_laws(
    family: str, matrix: tuple[int, ...], n_coils: int, batch: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    op = make_operator(family, n_coils, matrix, dtype, seed)
    generator = torch.Generator().manual_seed(seed)
    for check in (dot_test, normal_test, gradient_test, batch_test):
        error = check(op, generator, batch, dtype)
        assert error < TOLERANCE[dtype], f"{check.__name__} of {op!r}: {error}"


@families
@given(matrix=matrices, dtype=precisions, seed=st.integers(0, 2**16))
def test_results_have_the_precision_of_the_input(
    family: str, matrix: tuple[int, ...], dtype: torch.dtype, seed: int
) -> None:
    maps_dtype = torch.complex128 if dtype == torch.complex64 else torch.complex64
    op = make_operator(family, 2, matrix, maps_dtype, seed)
    real = torch.float32 if dtype == torch.complex64 else torch.float64
    x = op.domain.randn(dtype=dtype if op.domain.is_complex else real)
    for result in (op(x), op.adjoint(op(x)), op.N(x)):
        assert result.dtype == x.dtype


@forward_mode
@families
def test_second_derivatives_are_right(family: str, generator: torch.Generator) -> None:
    op = make_operator(family, 2, (3, 4), torch.complex128, 3)
    x = op.domain.randn(
        dtype=torch.complex128 if op.domain.is_complex else torch.float64, generator=generator
    ).requires_grad_()
    assert torch.autograd.gradcheck(op, x, check_forward_ad=True)
    # of a quartic, so that the second derivative is not constant
    assert torch.autograd.gradgradcheck(lambda z: op(z).abs().square().square().sum(), x)


@families
@pytest.mark.parametrize("axis", [0, 1])
def test_vmap_is_a_batch(family: str, axis: int, generator: torch.Generator) -> None:
    op = make_operator(family, 2, (3, 4), torch.complex64, 3)
    x = op.domain.randn((2, 3), generator=generator)
    mapped = torch.func.vmap(op, in_dims=axis, out_dims=axis)(x)
    torch.testing.assert_close(mapped, op(x))


@forward_mode
@families
def test_forward_mode_is_the_operator_itself(family: str, generator: torch.Generator) -> None:
    op = make_operator(family, 2, (3, 4), torch.complex64, 3)
    x, tangent = op.domain.randn((2,), generator=generator), op.domain.randn((2,), generator=generator)
    value, derivative = torch.func.jvp(op, (x,), (tangent,))
    torch.testing.assert_close(value, op(x))
    torch.testing.assert_close(derivative, op(tangent))
