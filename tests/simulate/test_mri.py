"""Simulated k-space: against the spectrum of a Gaussian, and where the truth lies."""

import numpy as np
import pytest
import torch

from dipmed.scan import DipmedError, ImageVolume
from dipmed.simulate import KSpaceSettings, simulate
from operators import centred_ifft

MIDDLE = np.array([4.0, -7.0])


def blob_volume(shape=(64, 54), n_slices=2, width=6.0):
    """A Gaussian of height 100, narrow in neither k-space nor the image; voxels of 1 x 1.5 x 4 mm."""
    x, y = (np.arange(n) - n // 2 - c for n, c in zip(shape, MIDDLE, strict=True))
    blob = 100 * np.exp(-(x[:, None] ** 2 + y[None, :] ** 2) / (2 * width**2))
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * (1.0, 1.5, 4.0)
    affine[:3, 3] = 10, -20, 30
    return ImageVolume(np.repeat(blob[:, :, None], n_slices, axis=2).astype(np.float32), affine)


def coil_images(scan):
    return centred_ifft(torch.from_numpy(scan.kspace[0]), 2).numpy()


@pytest.mark.parametrize("shape", [(64, 54), (63, 55)])
def test_coils_together_see_the_band_limited_image(shape):
    found = simulate(blob_volume(shape), KSpaceSettings(n_coils=5))
    seen = np.sqrt((np.abs(coil_images(found.scan)) ** 2).sum(axis=1))
    np.testing.assert_allclose(np.moveaxis(seen, 0, -1), found.reference.data, atol=0.5)
    assert found.scan.image_shape == (shape[0] // 2, shape[1] // 2)


@pytest.mark.parametrize("shape", [(64, 54), (63, 55)])
def test_the_reference_is_the_volume_on_larger_pixels_in_the_same_place(shape):
    volume = blob_volume(shape)
    reference = simulate(volume, KSpaceSettings()).reference
    assert reference.data.max() == pytest.approx(100, rel=0.02)
    places = [
        affine[:3, :3] @ (np.indices(data.shape).reshape(3, -1) @ (data / data.sum()).reshape(-1)) + affine[:3, 3]
        for data, affine in ((reference.data, reference.affine), (volume.data, volume.affine))
    ]
    np.testing.assert_allclose(*places, atol=0.02)


def test_the_object_has_a_phase_and_detail_beyond_the_band_is_lost():
    volume = blob_volume(width=0.6)  # narrower than a pixel of the reconstruction
    found = simulate(volume, KSpaceSettings(n_coils=1))
    assert found.reference.data.max() < 60
    angles = np.angle(coil_images(simulate(blob_volume(), KSpaceSettings(n_coils=1)).scan)[0, 0])
    assert np.ptp(angles) > 0.5


def test_noise_has_the_size_that_was_asked_for():
    clean = simulate(blob_volume(), KSpaceSettings()).scan.kspace
    noisy = simulate(blob_volume(), KSpaceSettings(noise=0.05)).scan.kspace
    noise = noisy - clean
    assert np.sqrt((np.abs(noise) ** 2).mean()) == pytest.approx(0.05 * 100, rel=0.03)
    assert noise.real.std() == pytest.approx(noise.imag.std(), rel=0.05)


def test_a_slice_is_the_same_whichever_others_come_with_it():
    settings = KSpaceSettings(noise=0.1, seed=3)
    both, one = simulate(blob_volume(), settings).scan, simulate(blob_volume(), settings, (1, 2)).scan
    np.testing.assert_array_equal(one.kspace[0, 0], both.kspace[0, 1])
    np.testing.assert_allclose(one.affine @ [0, 0, 0, 1], both.affine @ [0, 0, 1, 1])
    assert not np.array_equal(simulate(blob_volume(), KSpaceSettings(noise=0.1, seed=4)).scan.kspace, both.kspace)


def test_undersampled_lines_are_zero_and_said_to_be_missing():
    scan = simulate(blob_volume(), KSpaceSettings(undersample="random:R=2,acs=6,seed=0")).scan
    assert scan.mask.mean() == pytest.approx(0.5, abs=0.05)
    assert not (scan.kspace * ~scan.mask[:, :, None]).any()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: KSpaceSettings(n_coils=0), "--n-coils"),
        (lambda: KSpaceSettings(noise=-1.0), "--noise"),
        (lambda: KSpaceSettings(reduce=1), "--reduce"),
        (lambda: KSpaceSettings(undersample="every other"), "unders"),
        (lambda: simulate(blob_volume(), KSpaceSettings(undersample="poisson:R=2,acs=4")), "whole readouts"),
        (lambda: simulate(blob_volume(), KSpaceSettings(reduce=8)), "--reduce"),
        (lambda: simulate(blob_volume(), KSpaceSettings(n_coils=1_000_000)), "GiB"),
        (lambda: simulate(ImageVolume(-blob_volume().data, np.eye(4)), KSpaceSettings()), "magnitudes"),
        (lambda: simulate(ImageVolume(np.zeros((32, 32, 1)), np.eye(4)), KSpaceSettings()), "magnitudes"),
    ],
)
def test_bad_input_is_refused(make, match):
    with pytest.raises(DipmedError, match=match):
        make()
