"""Readout oversampling, coil compression and the scale of the data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dipmed.io
from dipmed.calib.coils import compress_coils, principal_directions
from dipmed.calib.noise import noise_covariance, prewhiten
from dipmed.calib.readout import remove_oversampling
from dipmed.calib.scale import data_scale
from dipmed.phantom import brain_phantom_scan
from dipmed.scan import DipmedError, KSpaceScan, ShapeError
from operators.fourier import centred_fft, centred_ifft


def complex_normal(rng, shape):
    return ((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)).astype(np.complex64)


def to_kspace(images, ndim=2):
    return centred_fft(torch.from_numpy(images), ndim).numpy()


def to_image(kspace, ndim=2):
    return centred_ifft(torch.from_numpy(np.ascontiguousarray(kspace)), ndim).numpy()


def scan_of(kspace, image_shape, mask=None, **fields):
    if mask is None:
        mask = np.ones(kspace.shape[:2] + kspace.shape[3:], dtype=bool)
    return KSpaceScan(kspace=kspace, mask=mask, affine=np.eye(4), image_shape=image_shape, source="test", **fields)


@given(st.integers(3, 9), st.integers(0, 9), st.integers(1, 7), st.sampled_from([2, 3]))
def test_the_image_inside_is_kept_as_it_is(n, extra, n_y, ndim):
    rng = np.random.default_rng(n + 10 * extra)
    shape = (n + extra, n_y, 4)[:ndim]
    images = np.zeros((1, 1, 2, *shape), dtype=np.complex64)
    start = shape[0] // 2 - n // 2
    inside = complex_normal(rng, (1, 1, 2, n, *shape[1:]))
    images[:, :, :, start : start + n] = inside
    scan = scan_of(to_kspace(images, ndim), (n, *shape[1:]), calibration=to_kspace(2 * images, ndim))
    cropped = remove_oversampling(scan)
    assert cropped.matrix_shape == scan.image_shape
    assert np.abs(to_image(cropped.kspace, ndim) - inside).max() < 1e-5
    assert np.abs(to_image(cropped.calibration, ndim) - 2 * inside).max() < 1e-5
    assert cropped.mask.all()


def test_noise_of_a_sample_stays_what_it_was():
    covariance = np.array([[2, 1j], [-1j, 3]])
    factor = np.linalg.cholesky(covariance)
    noise = np.tensordot(factor, complex_normal(np.random.default_rng(0), (2, 256, 64)), axes=1)
    scan = scan_of(noise.astype(np.complex64)[None, None], (128, 64), noise_covariance=covariance)
    cropped = remove_oversampling(scan)
    assert cropped.noise_covariance is covariance
    assert np.abs(noise_covariance(cropped.kspace[0, 0]) - covariance).max() < 0.1
    # neighbours along the readout stay independent
    x = cropped.kspace[0, 0, 0]
    assert np.abs(np.mean(x[1:] * x[:-1].conj())) < 0.1


def test_the_phase_axis_is_not_cropped():
    rng = np.random.default_rng(0)
    mask = np.zeros((1, 1, 16, 12), dtype=bool)
    mask[..., ::3] = True
    scan = scan_of(complex_normal(rng, (1, 1, 2, 16, 12)) * mask[:, :, None], (8, 6), mask)
    cropped = remove_oversampling(scan)
    assert cropped.matrix_shape == (8, 12)
    assert np.array_equal(cropped.mask, mask[:, :, :8])
    assert not cropped.kspace[..., ~mask[0, 0, 0]].any()


@pytest.mark.parametrize("image_shape", [(16, 12), (20, 12)])
def test_nothing_to_remove(image_shape):
    scan = scan_of(np.ones((1, 1, 2, 16, 12), dtype=np.complex64), image_shape)
    assert remove_oversampling(scan) is scan


def test_a_partial_echo_keeps_its_gap():
    images = np.zeros((1, 1, 1, 64, 16), dtype=np.complex64)
    images[..., 20:40, 4:12] = 1
    mask = np.ones((1, 1, 64, 16), dtype=bool)
    mask[:, :, :20, 3:] = False
    cropped = remove_oversampling(scan_of(to_kspace(images) * mask[:, :, None], (32, 16), mask))
    assert cropped.mask[0, 0, :, 0].all()
    assert np.array_equal(np.flatnonzero(cropped.mask[0, 0, :, 8]), np.arange(10, 32))
    assert not cropped.kspace[:, :, 0][~cropped.mask].any()
    # what was sampled is that of a scan without oversampling, but for the very edge
    expected = to_kspace(images[..., 16:48, :])
    error = np.abs(cropped.kspace - expected)[0, 0, 0, 12:, 8]
    assert error.max() < 0.05 * np.abs(expected[0, 0, 0, :, 8]).max()


def test_gaps_along_the_readout_are_refused():
    mask = np.ones((1, 1, 16, 12), dtype=bool)
    mask[:, :, 5] = False
    with pytest.raises(ShapeError, match="gaps along x"):
        remove_oversampling(scan_of(np.ones((1, 1, 2, 16, 12), dtype=np.complex64), (8, 12), mask))


def test_all_energy_of_dependent_coils_fits_in_fewer():
    rng = np.random.default_rng(0)
    sources = complex_normal(rng, (2, 2, 3, 16, 12))
    mixing = complex_normal(rng, (6, 3))
    kspace = np.einsum("cv,fsvxy->fscxy", mixing, sources).astype(np.complex64)
    scan = scan_of(kspace, (16, 12), frame_labels=({}, {}), calibration=kspace[:1])
    compressed = compress_coils(scan, 3)
    assert compressed.n_coils == compressed.calibration.shape[2] == 3
    # the root sum of squares is that of all coils, in each frame and slice
    rss = np.linalg.norm(scan.kspace, axis=2)
    assert np.abs(np.linalg.norm(compressed.kspace, axis=2) - rss).max() < 1e-5 * rss.max()
    assert np.allclose(compressed.calibration, compressed.kspace[:1])
    assert "6 coils compressed to 3, with 100.0%" in compressed.notes[-1]
    # a coil fewer loses something
    assert np.linalg.norm(compress_coils(scan, 2).kspace) < 0.98 * np.linalg.norm(scan.kspace)


def test_the_covariance_is_that_of_the_virtual_coils():
    scan, _ = brain_phantom_scan((32, 32), 6, noise=0.1)
    covariance = compress_coils(scan, 2).noise_covariance
    assert covariance.shape == (2, 2)
    assert np.allclose(covariance, covariance.conj().T)
    # the same coils applied to noise alone
    gram = np.einsum("cxy,dxy->cd", scan.kspace[0, 0], scan.kspace[0, 0].conj()).astype(complex)
    rows = principal_directions(gram)[1][:2]
    assert np.allclose(covariance, rows @ scan.noise_covariance @ rows.conj().T, rtol=1e-3, atol=1e-6)
    white = compress_coils(prewhiten(scan), 2)
    assert np.allclose(white.noise_covariance, np.eye(2), atol=1e-6)


def test_compression_of_a_trajectory_scan():
    rng = np.random.default_rng(0)
    scan = KSpaceScan(
        kspace=complex_normal(rng, (1, 1, 4, 50)),
        mask=None,
        affine=np.eye(4),
        image_shape=(8, 8),
        source="test",
        trajectory=rng.standard_normal((1, 50, 2)).astype(np.float32),
    )
    assert compress_coils(scan, 2).kspace.shape == (1, 1, 2, 50)
    assert remove_oversampling(scan) is scan


@pytest.mark.parametrize("n_coils", [0, 7])
def test_numbers_of_coils_that_there_are_not(n_coils):
    scan, _ = brain_phantom_scan((16, 16), 6)
    with pytest.raises(DipmedError, match=f"1 to 6 here, got {n_coils}"):
        compress_coils(scan, n_coils)
    assert compress_coils(scan, 6) is scan


@given(st.integers(1, 6), st.integers(0, 1000))
def test_principal_directions_are_orthonormal_and_ordered(n, seed):
    rng = np.random.default_rng(seed)
    samples = complex_normal(rng, (n, 20))
    gram = (samples @ samples.conj().T).astype(np.complex128)
    energies, rows = principal_directions(gram)
    assert np.allclose(rows @ rows.conj().T, np.eye(n), atol=1e-6)
    assert np.allclose(rows @ gram @ rows.conj().T, np.diag(energies), atol=1e-4)
    assert (np.diff(energies) <= 1e-9).all()
    largest = rows[np.arange(n), np.abs(rows).argmax(axis=1)]
    assert np.allclose(largest.imag, 0, atol=1e-9)
    assert (largest.real > 0).all()


def test_scale_follows_the_data_and_not_a_hot_pixel():
    image = torch.zeros(1, 100, 100, dtype=torch.complex64)
    image[:, 20:80, 20:80] = 3j
    assert data_scale(image) == pytest.approx(1 / 3)
    assert data_scale(10 * image) == pytest.approx(1 / 30)
    image[0, 50, 50] = 1000
    assert data_scale(image) == pytest.approx(1 / 3)
    # air around the object does not matter
    assert data_scale(torch.nn.functional.pad(image, (200, 200))) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("value", "message"), [(0, "all zero"), (float("nan"), "NaN"), (float("inf"), "infinity")])
def test_scale_of_nothing(value, message):
    with pytest.raises(DipmedError, match=message):
        data_scale(torch.full((1, 8, 8), value, dtype=torch.complex64))


def test_oversampling_of_scanner_data(data_dir: Path):
    scan = dipmed.io.load(data_dir / "twix_skyra_gre2" / "gre.dat")
    cropped = remove_oversampling(scan)
    assert scan.matrix_shape == (320, 160)
    assert cropped.matrix_shape == (160, 160)
    rss = np.linalg.norm(to_image(scan.kspace[0, 0]), axis=0)
    assert np.allclose(np.linalg.norm(to_image(cropped.kspace[0, 0]), axis=0), rss[80:240], atol=1e-4 * rss.max())
