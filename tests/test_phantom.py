"""The closed-form phantom: against numerical integrals, against itself at another size, and against its own truth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dipmed.phantom import Ellipse, brain_ellipses, brain_phantom_scan
from dipmed.scan import ShapeError
from operators import centred_ifft


def coil_images(kspace: np.ndarray) -> np.ndarray:
    return centred_ifft(torch.from_numpy(kspace), 2).numpy()


@given(
    centre=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    semi_axes=st.tuples(st.floats(0.05, 0.2), st.floats(0.05, 0.2)),
    angle=st.floats(-4, 4),
    k=st.tuples(st.floats(-4, 4), st.floats(-4, 4)),
)
def test_transform_of_an_ellipse_is_its_fourier_integral(centre, semi_axes, angle, k):
    ellipse = Ellipse(1.5, centre, semi_axes, angle)
    side = (np.arange(1000) + 0.5) / 1000 - 0.5
    x, y = np.meshgrid(side, side, indexing="ij", sparse=True)
    wave = np.exp(-2j * np.pi * k[0] * x) * np.exp(-2j * np.pi * k[1] * y)
    integral = (1.5 * ellipse.contains(x, y) * wave).sum() / 1000**2
    assert ellipse.transform(np.array(k[0]), np.array(k[1])) == pytest.approx(integral, abs=2e-4)


def test_transform_at_the_centre_of_kspace_is_the_area():
    zero = np.array(0.0)
    assert Ellipse(2.0, (0.1, 0.2), (0.3, 0.1), 0.7).transform(zero, zero) == pytest.approx(2 * np.pi * 0.3 * 0.1)


def test_scan_is_laid_out_and_placed_as_the_containers_say():
    scan, truth = brain_phantom_scan((24, 17), n_coils=3)
    assert scan.kspace.shape == (1, 1, 3, 24, 17)
    assert scan.kspace.dtype == np.complex64
    assert scan.mask is not None
    assert scan.mask.all()
    assert truth.image.shape == (1, 24, 17)
    assert truth.maps.shape == (3, 24, 17)
    np.testing.assert_allclose(scan.affine @ [12, 8, 0, 1], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(np.diag(scan.affine), [-220 / 24, -220 / 17, 5, 1])


def test_a_larger_matrix_measures_the_same_samples_and_more():
    # holds only when nothing was rasterised: pixels of another size would alias differently
    small, _ = brain_phantom_scan((32, 41), n_coils=2, noise=0)
    large, _ = brain_phantom_scan((40, 64), n_coils=2, noise=0)
    rows, columns = slice(20 - 16, 20 + 16), slice(32 - 20, 32 + 21)
    centre = large.kspace[0, 0, :, rows, columns] * np.sqrt(32 * 41 / (40 * 64))
    np.testing.assert_allclose(centre, small.kspace[0, 0], atol=1e-5)


def test_centre_of_kspace_is_the_integral_of_coil_image():
    scan, truth = brain_phantom_scan((96, 80), n_coils=4, noise=0)
    integrals = (truth.maps * truth.image).mean(axis=(1, 2)) * np.sqrt(96 * 80)
    np.testing.assert_allclose(scan.kspace[0, 0, :, 48, 40], integrals, rtol=0.01)


def test_inverse_transform_approaches_the_truth_as_pixels_shrink():
    errors = []
    for n in (48, 192):
        scan, truth = brain_phantom_scan((n, n), n_coils=4, noise=0)
        expected = truth.maps * truth.image
        errors.append(np.linalg.norm(coil_images(scan.kspace[0, 0]) - expected) / np.linalg.norm(expected))
    assert errors[1] < 0.06
    assert errors[1] < 0.6 * errors[0]


def test_maps_are_normalised_and_smooth():
    _, truth = brain_phantom_scan((64, 64), n_coils=8, noise=0)
    np.testing.assert_allclose((np.abs(truth.maps) ** 2).sum(0), 1, atol=1e-5)
    for axis in (1, 2):
        assert np.abs(np.diff(truth.maps, axis=axis)).max() < 0.1


def test_signal_is_that_of_tissue_nowhere_negative():
    side = np.linspace(-0.5, 0.5, 200)
    x, y = np.meshgrid(side, side, indexing="ij", sparse=True)
    for seed in range(4):
        signal = sum(e.signal * e.contains(x, y) for e in brain_ellipses(np.random.default_rng(seed)))
        assert signal.min() > -0.1
        assert 0.7 < np.percentile(signal[np.hypot(x / 0.28, y / 0.35) < 1], 90) < 1.1


def test_noise_has_the_level_and_correlation_that_the_scan_states():
    noisy, _ = brain_phantom_scan((96, 96), n_coils=4, noise=0.05)
    clean, _ = brain_phantom_scan((96, 96), n_coils=4, noise=0)
    noise = (noisy.kspace - clean.kspace).reshape(4, -1)
    measured = noise @ noise.conj().T / noise.shape[1]
    assert noisy.noise_covariance is not None
    np.testing.assert_allclose(measured, noisy.noise_covariance, atol=0.05 * 0.05**2)
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(0.05**2, rel=0.02)
    # circular: real and imaginary parts have equal variances and no correlation
    assert abs((noise * noise).mean()) < 0.03 * 0.05**2


def test_same_seed_same_scan():
    first, _ = brain_phantom_scan((32, 32), n_coils=2, seed=7)
    again, _ = brain_phantom_scan((32, 32), n_coils=2, seed=7)
    other, _ = brain_phantom_scan((32, 32), n_coils=2, seed=8)
    assert np.array_equal(first.kspace, again.kspace)
    assert not np.allclose(first.kspace, other.kspace, atol=1e-3)


def test_one_coil_is_enough():
    scan, truth = brain_phantom_scan((32, 32), n_coils=1)
    assert scan.n_coils == 1
    np.testing.assert_allclose(np.abs(truth.maps), 1, atol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"shape": (4, 32)}, {"shape": (32, 32, 32)}, {"n_coils": 0}, {"noise": -1.0}, {"noise": np.nan}]
)
def test_impossible_requests_are_refused(wrong):
    with pytest.raises(ShapeError, match="a phantom needs"):
        brain_phantom_scan(**({"shape": (32, 32), "n_coils": 2} | wrong))
