"""ISMRMRD files from scanners: what is in them, where it is in the patient, and how noisy it is."""

import numpy as np
import pytest
import scipy.io

from dipmed.io import load


def image_of(scan):
    """Root sum of squares, (slice, x, y), of the part that is shown."""
    axes = (-2, -1)
    image = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(scan.kspace[0], axes=axes), norm="ortho"), axes=axes)
    start = scan.matrix_shape[0] // 2 - scan.image_shape[0] // 2
    return np.sqrt((np.abs(image) ** 2).sum(axis=1))[:, start : start + scan.image_shape[0]]


@pytest.fixture
def bottles(data_dir):
    return load(data_dir / "ismrmrd_bottles14_r3" / "meas_MID00349_FID09273_SNR_R3.h5")


def test_two_bottles_from_a_scanner(bottles):
    assert bottles.kspace.shape == (1, 1, 14, 384, 144)
    assert bottles.image_shape == (192, 144)
    lines = [*range(0, 30, 3), *range(30, 79), *range(81, 106, 3)]
    assert np.flatnonzero(bottles.mask[0, 0, 0]).tolist() == [line - 54 + 72 for line in lines]
    assert bottles.calibration is None  # the lines are embedded
    np.testing.assert_allclose(bottles.sequence.repetition_times_s, [0.21964], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(bottles.affine[:3, :3], axis=0), [280 / 192, 210 / 144, 8], rtol=1e-6)
    assert bottles.assumptions == ()
    # the two bottles lie within the shown part, side by side
    image = image_of(bottles)[0]
    assert (image[[0, -1]] < 0.2 * image.max()).all()
    assert image[96:98, 62].max() < 0.2 * image[50, 62]


def test_the_air_bubble_of_the_bottle_is_on_top(bottles):
    image = image_of(bottles)[0]
    bubble = np.array([53, 102, 0, 1])  # dark notch at the rim of one bottle, which lay on the table
    assert image[53, 102] < 0.25 * image[45, 98]
    centre = np.array([53, 62, 0, 1])
    assert ((bottles.affine @ bubble) - (bottles.affine @ centre))[1] > 40  # towards the front


def test_the_noise_scan_explains_the_noise_of_the_image(bottles):
    measured = bottles.mask[0, 0, 0]
    outer = [0, 1, 2, -3, -2, -1]  # lines with little signal
    rows = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(bottles.kspace[0, 0], axes=1), axis=1, norm="ortho"), axes=1)
    noise = rows[:, :, measured][:, 60:90][:, :, outer].reshape(14, -1)  # beside the bottles, within the filter's band
    ratio = (np.abs(noise) ** 2).mean(axis=1) / np.diag(bottles.noise_covariance).real
    assert 0.8 < ratio.mean() < 1.2


def test_a_radial_scan_from_a_scanner(data_dir):
    folder = data_dir / "radial_cardiac12"
    scan = load(folder / "radial_cardiac12_derived.mrd.h5")
    assert scan.kspace.shape == (1, 1, 12, 25 * 256)
    assert scan.image_shape == (256, 256)
    original = scipy.io.loadmat(folder / "radial_cardiac_25_projections.mat")
    k = original["k"].T.reshape(-1)
    np.testing.assert_allclose(scan.trajectory[0], 256 * np.stack([k.real, k.imag], axis=1), atol=1e-4)
    np.testing.assert_allclose(scan.kspace[0, 0, 3], original["rawdata"][:, :, 3].T.reshape(-1), rtol=1e-5)
    assert any("cycles per pixel" in sentence for sentence in scan.assumptions)
