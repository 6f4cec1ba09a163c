"""MRI along a trajectory, against the Fourier sum itself, the Cartesian operator, sigpy and BART."""

import importlib.util
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import (
    DipmedError,
    FourierTransform,
    NonCartesianMRI,
    NonUniformFourier,
    ShapeError,
    normal_test,
    radial,
)

BACKENDS = [
    "sigpy",
    pytest.param(
        "finufft", marks=pytest.mark.skipif(importlib.util.find_spec("finufft") is None, reason="needs finufft")
    ),
]
ACCURACY = {"sigpy": 3e-5, "finufft": 3e-6}
TOLERANCE = {torch.complex64: 1e-5, torch.complex128: 1e-12}
matrices = st.one_of(st.tuples(*[st.integers(2, 12)] * 2), st.tuples(*[st.integers(2, 7)] * 3))


def draw(matrix, n_samples, seed, n_coils=2, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand((n_samples, len(matrix)), generator=generator, dtype=torch.float64) - 0.5
    maps = torch.randn((n_coils, *matrix), dtype=dtype, generator=generator)
    weights = torch.rand(n_samples, generator=generator)
    return maps, positions * torch.tensor(matrix), weights


def fourier_sum(images, trajectory):
    """``Σ_r x(r) exp(-2πi k·r/n) / sqrt(n)`` with r counted from ``n // 2``."""
    matrix = images.shape[1:]
    axes = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in matrix]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(matrix))
    turns = trajectory.double() @ places.T
    return images.reshape(len(images), -1) @ torch.exp(-2j * math.pi * turns).T / math.sqrt(math.prod(matrix))


@pytest.mark.parametrize("backend", BACKENDS)
@given(matrix=matrices, n_samples=st.integers(1, 40), seed=st.integers(0, 2**16))
def test_samples_are_the_fourier_sum(backend, matrix, n_samples, seed):
    maps, trajectory, weights = draw(matrix, n_samples, seed)
    A = NonCartesianMRI(maps, trajectory, weights, backend)
    x = A.domain.randn(dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))
    expected = fourier_sum(x * maps, trajectory) * weights.double().sqrt()
    assert float((A(x) - expected).norm()) <= ACCURACY[backend] * float((x * maps).norm())


@pytest.mark.parametrize("backend", BACKENDS)
def test_on_the_grid_it_is_the_fourier_transform(backend):
    matrix = (8, 7)
    axes = [torch.arange(n) - n // 2 for n in matrix]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2).double()
    F, NUFFT = FourierTransform((3, *matrix), 2), NonUniformFourier((3, *matrix), grid, backend)
    x = F.domain.randn(dtype=torch.complex128)
    torch.testing.assert_close(NUFFT(x), F(x).flatten(1), rtol=1e-4, atol=1e-4)


def test_the_normal_operator_takes_odd_sizes_and_weights_of_any_spread():
    maps, trajectory, weights = draw((15, 11), 200, 3)
    A = NonCartesianMRI(maps, trajectory, 10 ** (4 * weights - 2))
    assert normal_test(A, dtype=torch.complex128) < 1e-4


def test_samples_of_weight_zero_are_not_seen():
    maps, trajectory, weights = draw((8, 8), 20, 0)
    mask = torch.arange(20) % 3 > 0
    A = NonCartesianMRI(maps, trajectory, weights)
    masked, few = A.with_mask(mask), NonCartesianMRI(maps, trajectory[mask], weights[mask])
    x = A.domain.randn(dtype=torch.complex128)
    assert torch.equal(masked.mask, mask)
    assert not masked(x)[:, ~mask].any()
    torch.testing.assert_close(masked(x)[:, mask], few(x))
    torch.testing.assert_close(masked.N(x), few.N(x))


def test_weighing_makes_data_what_the_operator_gives():
    maps, trajectory, weights = draw((8, 8), 20, 0)
    A = NonCartesianMRI(maps, trajectory, weights)
    x = A.domain.randn(dtype=torch.complex128)
    samples = NonCartesianMRI(maps, trajectory)(x)
    torch.testing.assert_close(A.weigh(samples), A(x))


@pytest.mark.skipif(importlib.util.find_spec("finufft") is None, reason="needs finufft")
def test_plans_are_kept_between_calls_and_left_out_of_a_pickle():
    A = NonUniformFourier((2, 8, 8), draw((8, 8), 20, 0)[1], "finufft")
    x = A.domain.randn()
    first = A(x)
    plans = dict(A._plans)
    A(x)
    assert dict(A._plans) == plans
    assert len(plans) == 1
    again = pickle.loads(pickle.dumps(A))  # noqa: S301 - made here
    assert not again._plans
    assert torch.equal(again(x), first)


def test_a_loaded_state_is_the_operator_of_its_maps_and_weights():
    maps, trajectory, weights = draw((8, 8), 20, 0)
    A, B = NonCartesianMRI(maps, trajectory, weights), NonCartesianMRI(2 * maps, trajectory.flip(0) / 2)
    x = A.domain.randn(dtype=torch.complex128)
    B(x)  # so that plans of the other positions are there
    B.load_state_dict(A.state_dict())
    torch.testing.assert_close(B(x), A(x))
    torch.testing.assert_close(B.N(x), A.N(x))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"trajectory": torch.zeros(5, 3)}, ShapeError, r"\(sample, 2\)"),
        ({"trajectory": torch.zeros(0, 2)}, ShapeError, r"\(sample, 2\)"),
        ({"trajectory": torch.full((5, 2), math.nan)}, DipmedError, "not finite"),
        ({"trajectory": torch.full((5, 2), 5.0)}, DipmedError, "half the matrix"),
        ({"weights": torch.ones(4)}, ShapeError, "one for each of 5 samples"),
        ({"weights": -torch.ones(5)}, DipmedError, "not negative"),
        ({"weights": torch.full((5,), math.inf)}, DipmedError, "finite"),
        ({"backend": "fftw"}, DipmedError, "unknown NUFFT backend"),
        ({"maps": torch.zeros(2, 8, 8)}, ShapeError, "complex"),
    ],
)
def test_bad_input_is_refused(change, error, match):
    good = {"maps": torch.ones(2, 8, 8, dtype=torch.complex64), "trajectory": torch.zeros(5, 2), "weights": None}
    with pytest.raises(error, match=match):
        NonCartesianMRI(**{**good, **change})


@pytest.mark.reference
@pytest.mark.skipif(shutil.which("bart") is None, reason="needs bart")
def test_bart_gives_the_same_samples(tmp_path):
    import subprocess

    from dipmed.io.cfl import read_cfl, write_cfl

    matrix = (32, 32)
    trajectory = 0.9 * radial(matrix, 13).reshape(-1, 2)  # at the very edge of the grid BART interpolates with zeros
    image = torch.randn((1, *matrix), dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    in_bart = np.zeros((3, len(trajectory), 1), dtype=np.complex64)
    in_bart[:2, :, 0] = trajectory.T.numpy()
    write_cfl(tmp_path / "traj", in_bart)
    write_cfl(tmp_path / "image", image[0].numpy()[:, :, None])
    command = ["bart", "nufft", str(tmp_path / "traj"), str(tmp_path / "image"), str(tmp_path / "samples")]
    subprocess.run(command, check=True, capture_output=True)
    samples = torch.from_numpy(read_cfl(tmp_path / "samples").reshape(1, -1))
    ours = NonUniformFourier((1, *matrix), trajectory)(image)
    assert float((ours - samples).norm() / samples.norm()) < 5e-3
