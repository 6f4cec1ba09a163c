"""Noise covariance, prewhitening and the noise level."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dipmed.io
from dipmed.calib.noise import estimate_noise_level, mix_coils, noise_covariance, prewhiten
from dipmed.phantom import brain_phantom_scan
from dipmed.scan import DipmedError, KSpaceScan, ShapeError


def complex_normal(rng, shape):
    return ((rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)).astype(np.complex64)


def random_covariance(rng, n_coils):
    mixing = rng.standard_normal((n_coils, n_coils)) + 1j * rng.standard_normal((n_coils, n_coils))
    return mixing @ mixing.conj().T / n_coils + 0.1 * np.eye(n_coils)


def noise_scan(covariance, *, shape=(32, 24), seed=0, calibration=True):
    """A scan of noise alone, with this covariance."""
    rng = np.random.default_rng(seed)
    n_coils = len(covariance)
    factor = np.linalg.cholesky(covariance + 1e-30 * np.eye(n_coils))

    def draw(frames):
        return mix_coils(complex_normal(rng, (frames, 2, n_coils, *shape)), factor)

    return KSpaceScan(
        kspace=draw(3),
        mask=np.ones((3, 2, *shape), dtype=bool),
        affine=np.eye(4),
        image_shape=shape,
        source="test",
        frame_labels=({}, {}, {}),
        noise_covariance=covariance,
        calibration=draw(1) if calibration else None,
    )


def sample_covariance(kspace):
    return noise_covariance(np.moveaxis(kspace, 2, 0))


def test_covariance_of_known_noise():
    covariance = random_covariance(np.random.default_rng(1), 4)
    factor = np.linalg.cholesky(covariance)
    samples = np.tensordot(factor, complex_normal(np.random.default_rng(2), (4, 200, 200)), axes=1)
    found = noise_covariance(samples)
    assert np.allclose(found, found.conj().T)
    assert np.abs(found - covariance).max() < 0.03 * np.abs(covariance).max()


def test_covariance_needs_samples():
    with pytest.raises(ShapeError, match="at least as many samples"):
        noise_covariance(np.ones((4, 3), dtype=np.complex64))
    with pytest.raises(ShapeError, match=r"\(coil, sample"):
        noise_covariance(np.ones(4, dtype=np.complex64))


@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_noise_becomes_white_in_kspace_and_calibration(n_coils, seed):
    covariance = random_covariance(np.random.default_rng(seed), n_coils)
    white = prewhiten(noise_scan(covariance, seed=seed))
    assert np.array_equal(white.noise_covariance, np.eye(n_coils))
    assert np.abs(sample_covariance(white.kspace) - np.eye(n_coils)).max() < 0.12
    assert np.abs(sample_covariance(white.calibration) - np.eye(n_coils)).max() < 0.2


def test_prewhitening_solves_the_cholesky_system():
    covariance = random_covariance(np.random.default_rng(3), 3)
    scan = noise_scan(covariance)
    back = mix_coils(prewhiten(scan).kspace, np.linalg.cholesky(covariance))
    assert np.abs(back - scan.kspace).max() < 1e-5 * np.abs(scan.kspace).max()


def test_white_or_unknown_noise_changes_nothing():
    scan = noise_scan(np.eye(3, dtype=complex))
    assert np.allclose(prewhiten(scan).kspace, scan.kspace)
    unknown = scan.replace(noise_covariance=None)
    assert prewhiten(unknown) is unknown


def test_coils_of_very_different_gain_are_not_taken_for_dependent():
    covariance = np.diag([1e-14, 1.0, 1e6]).astype(complex)
    white = prewhiten(noise_scan(covariance, calibration=False))
    assert np.abs(sample_covariance(white.kspace) - np.eye(3)).max() < 0.1


def test_a_silent_coil_is_dropped_and_noted():
    scan = noise_scan(np.eye(3, dtype=complex))
    kspace, calibration = scan.kspace.copy(), scan.calibration.copy()
    kspace[:, :, 1] = calibration[:, :, 1] = 0
    covariance = np.diag([1.0, 0.0, 4.0]).astype(complex)
    white = prewhiten(scan.replace(kspace=kspace, calibration=calibration, noise_covariance=covariance))
    assert white.n_coils == white.calibration.shape[2] == 2
    assert np.allclose(white.kspace[:, :, 1], kspace[:, :, 2] / 2)
    assert "Coils 1 " in white.notes[-1]


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        (np.diag([1.0, 0.0, 1.0]), "coils 1 have signal but no noise"),
        (np.ones((3, 3)), "rank 1"),
        (np.diag([1.0, np.nan, 1.0]), "NaN"),
        (np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]]), "not Hermitian"),
        (np.diag([1.0, -1.0, 1.0]), "not Hermitian"),
        (np.array([[1, 2, 0], [2, 1, 0], [0, 0, 1]]), "rank"),
        (np.eye(2), r"must be \(3, 3\)"),
    ],
)
def test_what_is_no_usable_covariance_is_refused(covariance, message):
    scan = noise_scan(np.eye(3, dtype=complex)).replace(noise_covariance=covariance.astype(complex))
    with pytest.raises(DipmedError, match=message):
        prewhiten(scan)


def test_level_of_pure_noise():
    scan = noise_scan(np.diag([4.0, 4.0, 4.0]).astype(complex), shape=(128, 128))
    assert estimate_noise_level(scan.kspace[0, 0], scan.mask[0, 0]) == pytest.approx(2, rel=0.05)


def test_level_is_the_root_mean_square_over_coils():
    scan = noise_scan(np.diag([1.0, 9.0]).astype(complex), shape=(128, 128))
    assert estimate_noise_level(scan.kspace[0, 0], scan.mask[0, 0]) == pytest.approx(np.sqrt(5), rel=0.05)


@pytest.mark.parametrize("lines", [slice(None), slice(None, None, 3)])
def test_level_under_an_object(lines):
    scan, _ = brain_phantom_scan((96, 96), 4, noise=0.05)
    scan = prewhiten(scan)
    mask = np.zeros((96, 96), dtype=bool)
    mask[:, lines] = True
    # fine structure raises the estimate
    assert 0.95 < estimate_noise_level(scan.kspace[0, 0] * mask, mask) < 1.2


def test_level_needs_noise():
    kspace, mask = np.zeros((2, 64, 64), dtype=np.complex64), np.ones((64, 64), dtype=bool)
    with pytest.raises(DipmedError, match="exactly zero"):
        estimate_noise_level(kspace, mask)
    with pytest.raises(DipmedError, match="32 samples"):
        estimate_noise_level(kspace[:, :8, :8], mask[:8, :8])
    with pytest.raises(ShapeError, match="mask"):
        estimate_noise_level(kspace, mask[:8])
    with pytest.raises(DipmedError, match="fraction"):
        estimate_noise_level(kspace, mask, fraction=0)


def test_whitened_scanner_data_have_the_noise_that_the_noise_scan_promised(data_dir: Path):
    scan = dipmed.io.load(data_dir / "ismrmrd_bottles14_r3" / "meas_MID00349_FID09273_SNR_R3.h5")
    white = prewhiten(scan)
    # sharp bottles at high signal: structure reaches the edge of k-space, so the estimate is above 1, but not by much
    assert 0.9 < estimate_noise_level(white.kspace[0, 0], white.mask[0, 0]) < 1.7
