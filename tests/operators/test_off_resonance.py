"""Off-resonance by time segments, against the sum that it stands for."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import (
    CartesianMRI,
    DipmedError,
    NonCartesianMRI,
    OffResonance,
    ShapeError,
    batch_test,
    dot_test,
    gradient_test,
    normal_test,
    spiral,
)

MATRIX = (18, 15)


def off_resonance(span_hz, duration_s, n_segments=None, offset_hz=0.0, seed=0):
    """A spiral with two coils over a smooth field that spans ``span_hz`` around an offset."""
    generator = torch.Generator().manual_seed(seed)
    positions = spiral(MATRIX, 3, 120).reshape(-1, 2)
    times = 0.002 + torch.arange(120, dtype=torch.float64).repeat(3) * duration_s / 119
    x, y = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in MATRIX), indexing="ij")
    shape = x * y + 0.3 * x**2 + 0.5 * y
    shape = (shape - shape.min()) / (shape.max() - shape.min()) - 0.5
    maps = torch.randn((2, *MATRIX), dtype=torch.complex128, generator=generator)
    weights = torch.rand(len(positions), generator=generator) + 0.1
    encoding = NonCartesianMRI(maps, positions, weights)
    return OffResonance(encoding, offset_hz + span_hz * shape, times, n_segments)


def exact_samples(A, x):
    """The direct sum with ``exp(-2πi (k·r/n + Δf(r) t))``."""
    encoding = A.encoding
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in MATRIX]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    turns = encoding.trajectory.double() @ places.T + torch.outer(A.times, A.field_map.flatten())
    kernel = torch.exp(-2j * math.pi * turns) / math.sqrt(math.prod(MATRIX))
    return (encoding.maps * x).reshape(2, -1) @ kernel.T * encoding.weights.double().sqrt()


@settings(max_examples=8)
@given(
    span_hz=st.floats(0, 400),
    duration_s=st.floats(0.001, 0.03),
    offset_hz=st.floats(-300, 300),
    seed=st.integers(0, 99),
)
def test_samples_are_the_direct_sum(span_hz, duration_s, offset_hz, seed):
    A = off_resonance(span_hz, duration_s, offset_hz=offset_hz, seed=seed)
    x = A.domain.randn(dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    expected = exact_samples(A, x)
    assert float((A(x) - expected).norm()) < 1e-3 * float(expected.norm())
    assert A.n_segments <= span_hz * duration_s + 8.5


@pytest.mark.parametrize("turns", [10.06, 12, 30, 60])
def test_a_turn_more_takes_a_segment_more(turns):
    A = off_resonance(turns / 0.03, 0.03)
    assert A.n_segments <= turns + 12
    x = A.domain.randn(dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    expected = exact_samples(A, x)
    assert float((A(x) - expected).norm()) < 1e-3 * float(expected.norm())


def test_more_segments_are_closer_and_one_is_not_enough():
    x = off_resonance(200, 0.02).domain.randn(dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    errors = []
    for n_segments in (1, 4, 6, 9):
        A = off_resonance(200, 0.02, n_segments)
        assert A.n_segments == n_segments
        expected = exact_samples(A, x)
        errors.append(float((A(x) - expected).norm() / expected.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.3
    assert errors[-1] < 1e-3


def test_a_field_that_is_the_same_everywhere_takes_one_segment():
    A = off_resonance(0, 0.02, offset_hz=77)
    assert A.n_segments == 1
    x = A.domain.randn(dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    turned = A.encoding(x) * torch.exp(-2j * math.pi * 77 * A.times)
    torch.testing.assert_close(A(x), turned, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex64, 1e-5), (torch.complex128, 1e-12)])
@pytest.mark.parametrize("batch", [(), (2, 2)])
def test_it_obeys_the_laws(batch, dtype, tolerance):
    A = off_resonance(150, 0.015)
    generator = torch.Generator().manual_seed(0)
    for check in (dot_test, normal_test, gradient_test, batch_test):
        assert check(A, generator, batch, dtype) < tolerance, check.__name__


def test_echo_planar_lines_are_shifted_by_the_field():
    """Along the slow axis a frequency is a shift, by the turns from line to line times the number of lines."""
    n = 32
    times = (torch.arange(n) * 1e-3).expand(16, n)
    encoding = CartesianMRI(torch.ones((1, 16, n), dtype=torch.complex64), torch.ones((16, n), dtype=torch.bool))
    shift = 3
    A = OffResonance(encoding, torch.full((16, n), shift / (n * 1e-3)), times)
    x = torch.zeros((1, 16, n), dtype=torch.complex64)
    x[0, 5:9, 10:20] = 1
    found = encoding.adjoint(A(x)).abs()
    torch.testing.assert_close(found, x.abs().roll(shift, -1), rtol=1e-3, atol=1e-3)


def test_a_loaded_state_is_the_operator_of_its_field():
    A, B = off_resonance(150, 0.02), off_resonance(10, 0.001, seed=1)
    x = A.domain.randn(dtype=torch.complex128)
    B.load_state_dict(A.state_dict())
    torch.testing.assert_close(B(x), A(x))
    again = pickle.loads(pickle.dumps(A))  # noqa: S301 - made here
    torch.testing.assert_close(again(x), A(x))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"field_map": torch.zeros(8, 7)}, ShapeError, r"field map must be real \(8, 8\)"),
        ({"field_map": torch.zeros(8, 8) + 0j}, ShapeError, "field map must be real"),
        ({"field_map": torch.full((8, 8), math.nan)}, DipmedError, "finite"),
        ({"times": torch.zeros(4)}, ShapeError, r"times must be real \(5,\)"),
        ({"times": torch.full((5,), math.inf)}, DipmedError, "finite"),
        ({"n_segments": 0}, DipmedError, "1 to 200"),
        ({"times": torch.arange(5) * 10.0}, DipmedError, "in Hz and s"),
    ],
)
def test_bad_input_is_refused(change, error, match):
    encoding = NonCartesianMRI(torch.ones(1, 8, 8, dtype=torch.complex64), torch.zeros(5, 2))
    field = torch.arange(64.0).reshape(8, 8)
    good = {"field_map": field, "times": torch.zeros(5), "n_segments": None}
    with pytest.raises(error, match=match):
        OffResonance(encoding, **{**good, **change})
