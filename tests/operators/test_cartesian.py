"""The fused MRI operator against its parts, and what it keeps."""

import gc

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from operators import (
    CartesianMRI,
    CartesianSampling,
    FourierTransform,
    Sensitivity,
    ShapeError,
    centred_fft,
    make_mask,
    normal_test,
)

TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-12}
matrices = st.one_of(st.tuples(*[st.integers(1, 14)] * 2), st.tuples(*[st.integers(1, 8)] * 3))


def random_operator(matrix: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> CartesianMRI:
    maps = torch.randn((3, *matrix), dtype=dtype, generator=generator)
    return CartesianMRI(maps, torch.rand(matrix, generator=generator) < 0.6)


def relative(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b).clamp(min=1e-30))


@given(matrix=matrices, dtype=st.sampled_from([torch.complex64, torch.complex128]), seed=st.integers(0, 999))
def test_the_fused_operator_is_the_product_of_its_parts(matrix: tuple[int, ...], dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    A = random_operator(matrix, generator, dtype)
    parts = CartesianSampling(A.mask, 3) @ FourierTransform((3, *matrix), A.ndim) @ Sensitivity(A.maps)
    x, y = (space.randn((2,), dtype=dtype, generator=generator) for space in (A.domain, A.range))
    assert relative(A(x), parts(x)) < TOLERANCE[dtype]
    assert relative(A.adjoint(y), parts.adjoint(y)) < TOLERANCE[dtype]
    assert relative(A.N(x), parts.adjoint(parts(x))) < TOLERANCE[dtype]


def test_even_sizes_lose_no_bit(generator: torch.Generator) -> None:
    A = random_operator((12, 10), generator, torch.complex64)
    x = A.domain.randn(generator=generator)
    assert torch.equal(A(x), centred_fft(A.maps * x, 2) * A.mask)


@pytest.mark.parametrize("matrix", [(8, 6), (7, 5), (6, 5, 4)])
def test_a_constant_image_is_one_sample_in_the_centre(matrix: tuple[int, ...]) -> None:
    A = CartesianMRI(torch.ones(1, *matrix, dtype=torch.complex128), torch.ones(matrix, dtype=torch.bool))
    y = A(torch.ones(1, *matrix, dtype=torch.complex128))[0]
    centre = tuple(n // 2 for n in matrix)
    expected = torch.zeros(matrix, dtype=torch.complex128)
    expected[centre] = A.domain.size**0.5
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("spec", ["random:R=2,acs=4", "random:R=1,acs=0", "poisson:R=3,acs=3"])
@pytest.mark.parametrize("matrix", [(9, 14), (4, 9, 10)])
def test_the_cheap_normal_operator_is_exact(spec: str, matrix: tuple[int, ...], generator: torch.Generator) -> None:
    maps = torch.randn((3, *matrix), dtype=torch.complex128, generator=generator)
    assert normal_test(CartesianMRI(maps, make_mask(spec, matrix)), generator, dtype=torch.complex128) < 1e-12


def test_normalised_maps_and_all_samples_make_an_isometry(generator: torch.Generator) -> None:
    maps = torch.randn(4, 9, 8, dtype=torch.complex128, generator=generator)
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    A = CartesianMRI(maps, torch.ones(9, 8, dtype=torch.bool))
    x = A.domain.randn(dtype=torch.complex128, generator=generator)
    torch.testing.assert_close(A.N(x), x)


def test_nothing_is_measured_where_the_mask_is_empty(generator: torch.Generator) -> None:
    A = random_operator((6, 7), generator, torch.complex64)
    y = A(A.domain.randn(generator=generator))
    assert torch.all(y[:, ~A.mask] == 0)
    assert torch.all(y[:, A.mask] != 0)


def test_unsampled_values_do_not_reach_the_image(generator: torch.Generator) -> None:
    A = random_operator((6, 7), generator, torch.complex64)
    y = A.range.randn(generator=generator)
    assert torch.equal(A.adjoint(y), A.adjoint(y * A.mask))


def test_inputs_stay_as_they_are(generator: torch.Generator) -> None:
    A = random_operator((6, 7), generator, torch.complex64)
    x, y = A.domain.randn(generator=generator), A.range.randn(generator=generator)
    kept = x.clone(), y.clone(), A.maps.clone()
    A(x), A.adjoint(y), A.N(x), A.adjoint(y.conj()), A.N(x.conj())
    for now, before in zip((x, y, A.maps), kept, strict=True):
        assert torch.equal(now, before)


def test_another_mask_shares_the_maps(generator: torch.Generator) -> None:
    A = random_operator((6, 7), generator, torch.complex64)
    B = A.with_mask(~A.mask)
    assert B.maps.data_ptr() == A.maps.data_ptr()
    x = A.domain.randn(generator=generator)
    torch.testing.assert_close(A(x) + B(x), A.with_mask(torch.ones_like(A.mask))(x))


def test_the_state_is_maps_and_mask_and_loading_it_makes_the_same_operator(generator: torch.Generator) -> None:
    A, B = (random_operator((6, 7), generator, torch.complex64) for _ in range(2))
    assert set(A.state_dict()) == {"maps", "mask"}
    B.load_state_dict(A.state_dict())
    x = A.domain.randn(generator=generator)
    assert torch.equal(B(x), A(x))
    assert torch.equal(B.N(x), A.N(x))


def test_loading_a_state_learns_along_which_axes_the_mask_changes(generator: torch.Generator) -> None:
    A = random_operator((6, 8), generator, torch.complex64)
    B = CartesianMRI(A.maps, make_mask("random:R=2,acs=2", (6, 8)))
    B.load_state_dict(A.state_dict())
    assert normal_test(B, generator) < 1e-5


def test_maps_are_not_learned(generator: torch.Generator) -> None:
    maps = torch.randn(3, 6, 7, dtype=torch.complex64, generator=generator, requires_grad=True)
    A = CartesianMRI(maps, torch.ones(6, 7, dtype=torch.bool))
    assert not A(A.domain.randn(generator=generator)).requires_grad


@pytest.mark.parametrize(
    ("maps", "mask", "message"),
    [
        (torch.ones(2, 4, 5), torch.ones(4, 5) > 0, r"complex \(coil, x, y\).*got torch\.float32 \(2, 4, 5\)"),
        (torch.ones(4, 5) + 0j, torch.ones(4, 5) > 0, r"complex \(coil, x, y\).*got torch\.complex64 \(4, 5\)"),
        (torch.ones(2, 4, 5) + 0j, torch.ones(4, 5), r"mask must be bool \(x, y\).*got torch\.float32 \(4, 5\)"),
        (torch.ones(2, 4, 5) + 0j, torch.ones(5) > 0, r"mask must be bool \(x, y\).*got torch\.bool \(5,\)"),
        (torch.ones(2, 4, 5) + 0j, torch.ones(5, 4) > 0, r"maps are \(coil, 4, 5\), the mask is \(5, 4\)"),
    ],
)
def test_maps_and_masks_that_do_not_fit_are_refused(maps: Tensor, mask: Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        CartesianMRI(maps, mask)


def test_memory_stays_flat_over_200_iterations(generator: torch.Generator) -> None:
    A = random_operator((32, 32), generator, torch.complex64)
    x = A.domain.randn((4,), generator=generator).requires_grad_()
    y = A.range.randn((4,), generator=generator)
    process = psutil.Process()

    def iterate(n: int) -> int:
        for _ in range(n):
            (gradient,) = torch.autograd.grad((A(x) - y).abs().square().sum(), x)
            x.data.sub_(gradient, alpha=1e-3)
        gc.collect()
        return process.memory_info().rss

    before = iterate(50)
    growth = iterate(200) - before
    # one k-space kept per iteration would be 19 MiB
    assert growth < 8 * 2**20
