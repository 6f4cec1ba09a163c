"""Finite differences and total variation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import FiniteDifferences, ShapeError, operator_norm, total_variation


def test_differences_are_forward_and_end_with_zero() -> None:
    x = torch.tensor([[[1.0, 2.0, 4.0], [0.0, 0.0, 9.0]]])
    along_x, along_y = FiniteDifferences((1, 2, 3), 2, is_complex=False)(x)
    assert along_x.tolist() == [[[-1.0, -2.0, 5.0], [0.0, 0.0, 0.0]]]
    assert along_y.tolist() == [[[1.0, 2.0, 0.0], [0.0, 9.0, 0.0]]]


def test_differences_along_an_axis_count_as_much_as_its_weight(generator: torch.Generator) -> None:
    plain = FiniteDifferences((1, 5, 6, 4), 3)
    weighted = FiniteDifferences((1, 5, 6, 4), 3, weights=(1.0, 2.0, 0.25))
    x, y = plain.domain.randn(generator=generator), plain.range.randn(generator=generator)
    expected = torch.stack([w * one for w, one in zip((1.0, 2.0, 0.25), plain(x), strict=True)])
    torch.testing.assert_close(weighted(x), expected)
    torch.testing.assert_close(
        torch.vdot(weighted(x).flatten(), y.flatten()), torch.vdot(x.flatten(), weighted.adjoint(y).flatten())
    )
    with pytest.raises(ShapeError, match="3 axes need 3 weights, got 2"):
        FiniteDifferences((1, 5, 6, 4), 3, weights=(1.0, 2.0))


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_the_norm_is_as_documented(ndim: int, generator: torch.Generator) -> None:
    norm = operator_norm(FiniteDifferences((1, 12, 12, 12), ndim), 60, generator)
    assert 1.8 * ndim**0.5 < norm < 2 * ndim**0.5


@pytest.mark.parametrize("ndim", [0, 4])
def test_more_axes_than_the_image_has_are_refused(ndim: int) -> None:
    with pytest.raises(ShapeError, match=f"got ndim={ndim}"):
        FiniteDifferences((1, 4, 4), ndim)
    with pytest.raises(ShapeError, match=r"does not fit an image of shape \(1, 4, 4\)"):
        total_variation(torch.zeros(1, 4, 4), ndim)


@given(
    batch=st.integers(1, 3),
    n_x=st.integers(1, 6),
    n_y=st.integers(1, 6),
    ndim=st.sampled_from([2, 3]),
    is_complex=st.booleans(),
    seed=st.integers(0, 99),
)
def test_total_variation_is_the_mean_length_of_the_gradient(
    batch: int, n_x: int, n_y: int, ndim: int, is_complex: bool, seed: int
) -> None:
    dtype = torch.complex128 if is_complex else torch.float64
    shape = (batch, 1, n_x, n_y, 3)[: ndim + 2]
    x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    gradient = FiniteDifferences(shape[1:], ndim, is_complex=is_complex)(x)
    expected = torch.linalg.vector_norm(gradient, dim=1).mean()
    torch.testing.assert_close(total_variation(x, ndim, smoothing=1e-9), expected)


def test_total_variation_of_a_step() -> None:
    x = torch.zeros(1, 4, 8)
    x[..., 4:] = 3.0
    torch.testing.assert_close(total_variation(x), torch.tensor(3.0 / 8), atol=1e-3, rtol=0)


def test_total_variation_does_not_see_a_constant_phase(generator: torch.Generator) -> None:
    x = torch.randn(1, 5, 6, dtype=torch.complex128, generator=generator)
    torch.testing.assert_close(total_variation(x * 1j**0.3), total_variation(x))


def test_a_constant_image_has_no_variation_and_a_finite_gradient() -> None:
    x = torch.full((1, 6, 5), 2.0 - 1j, dtype=torch.complex64, requires_grad=True)
    value = total_variation(x)
    value.backward()
    assert abs(value.item()) < 1e-9
    assert x.grad is not None
    assert torch.all(x.grad == 0)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64])
def test_gradients_of_total_variation_are_right(dtype: torch.dtype, generator: torch.Generator) -> None:
    x = torch.randn(2, 1, 3, 4, dtype=dtype, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(total_variation, x)


def test_total_variation_keeps_the_precision() -> None:
    assert total_variation(torch.zeros(1, 4, 4, dtype=torch.complex64)).dtype == torch.float32
    assert total_variation(torch.zeros(1, 4, 4, dtype=torch.complex128)).dtype == torch.float64
