"""Scores against scikit-image and by hand, the reference image, and the record of snapshots."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from skimage.metrics import structural_similarity as skimage_ssim

from dipmed.evaluate import (
    GAUSSIAN_WITHIN,
    SnapshotScores,
    calibration,
    match_scale,
    reference_image,
    score,
    structural_similarity,
)
from dipmed.io import load
from dipmed.phantom import brain_phantom_scan
from dipmed.scan import DipmedError, ShapeError


@pytest.fixture
def pair():
    """A reference and an image near it, not of the same scale."""
    rng = np.random.default_rng(0)
    reference = rng.random((32, 28)) + np.linspace(0, 2, 28)
    return np.abs(0.7 * reference + 0.05 * rng.standard_normal(reference.shape)), reference


@given(
    st.lists(st.integers(7, 16), min_size=2, max_size=3),
    st.floats(1e-3, 1e3),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_ssim_is_that_of_scikit_image(shape, data_range, noise, seed):
    rng = np.random.default_rng(seed)
    reference = data_range * rng.random(shape)
    image = reference + noise * data_range * rng.standard_normal(shape)
    expected = skimage_ssim(reference, image, win_size=7, data_range=data_range)
    assert structural_similarity(image, reference, data_range) == pytest.approx(expected, abs=1e-6)


def test_scores_by_hand(pair):
    image, reference = pair
    scores = score(image, reference)
    peak = reference.max()
    assert scores.psnr_raw == pytest.approx(peak_signal_noise_ratio(reference, image, data_range=peak))
    assert scores.nrmse_raw == pytest.approx(np.linalg.norm(image - reference) / np.linalg.norm(reference))
    assert scores.ssim_raw == pytest.approx(skimage_ssim(reference, image, win_size=7, data_range=peak))
    factor = np.vdot(image, reference) / np.vdot(image, image)
    assert scores.psnr == pytest.approx(peak_signal_noise_ratio(reference, factor * image, data_range=peak))
    assert scores.nrmse == pytest.approx(np.linalg.norm(factor * image - reference) / np.linalg.norm(reference))
    assert scores.ssim == pytest.approx(skimage_ssim(reference, factor * image, win_size=7, data_range=peak))
    # the factor is the best one
    assert scores.psnr > max(score(image * f, reference).psnr_raw for f in (0.99 * factor, 1.01 * factor))


@given(st.floats(1e-6, 1e6), st.floats(-3, 3))
def test_scale_and_phase_do_not_matter_after_matching(scale, phase):
    rng = np.random.default_rng(0)
    reference = rng.random((12, 10))
    image = reference + 0.1 * rng.random((12, 10))
    plain, changed = score(image, reference), score(scale * np.exp(1j * phase) * image, reference)
    assert changed.psnr == pytest.approx(plain.psnr)
    assert changed.ssim == pytest.approx(plain.ssim)
    assert changed.nrmse == pytest.approx(plain.nrmse)


def test_outside_the_support_nothing_counts(pair):
    image, reference = pair
    support = np.zeros(reference.shape, dtype=bool)
    support[5:25, 6:20] = True
    spoilt = np.where(support, image, 100)
    assert score(spoilt, reference, support) == score(image, np.where(support, reference, 7), support)
    assert score(spoilt, reference, support).psnr > 20
    assert score(spoilt, reference).psnr < 10


def test_tensors_and_channel_axes_are_taken(pair):
    image, reference = pair
    tensor = torch.from_numpy(image)[None].to(torch.complex128)
    assert score(tensor, reference[None], np.ones((1, *reference.shape))) == score(image, reference)


def test_an_equal_image_has_no_error(pair):
    _, reference = pair
    scores = score(reference, reference)
    assert scores.psnr_raw == np.inf
    assert scores.ssim_raw == pytest.approx(1)
    assert scores.nrmse_raw == 0


def test_a_zero_image_is_scored(pair):
    _, reference = pair
    scores = score(0 * reference, reference)
    assert scores.nrmse == scores.nrmse_raw == pytest.approx(1)


def test_volumes_are_scored_as_one():
    rng = np.random.default_rng(0)
    reference = rng.random((9, 8, 10))
    image = reference + 0.1 * rng.standard_normal(reference.shape)
    expected = skimage_ssim(reference, image, win_size=7, data_range=reference.max())
    assert score(image, reference).ssim_raw == pytest.approx(expected)
    assert score(image[None], reference[None]) == score(image, reference)


@pytest.mark.parametrize(
    ("image", "reference", "support", "message"),
    [
        ((8, 9), (9, 8), None, r"must be \(9, 8\) like the reference, got \(8, 9\)"),
        ((1, 8, 9), (8, 8), None, r"must be \(8, 8\) like the reference"),
        ((8, 9), (8, 9), (9, 8), r"support must be \(8, 9\)"),
        ((6, 9), (6, 9), None, "7 or more along each axis"),
        ((8,), (8,), None, r"\(x, y\[, z\]\)"),
    ],
)
def test_shapes_that_do_not_fit(image, reference, support, message):
    with pytest.raises(ShapeError, match=message):
        score(np.ones(image), np.ones(reference), None if support is None else np.ones(support))


def test_values_that_cannot_be_scored(pair):
    image, reference = pair
    with pytest.raises(DipmedError, match="the image holds NaN"):
        score(np.where(image > 1, np.nan, image), reference)
    with pytest.raises(DipmedError, match="the reference holds NaN"):
        score(image, reference * np.inf)
    with pytest.raises(DipmedError, match="reference is zero everywhere"):
        score(image, reference, np.zeros(reference.shape))


def test_matched_image(pair):
    image, reference = pair
    matched = match_scale(-3j * image, reference)
    assert np.linalg.norm(matched - reference) == pytest.approx(
        score(image, reference).nrmse * np.linalg.norm(reference)
    )


def test_reference_of_a_phantom_is_its_image():
    scan, truth = brain_phantom_scan((64, 56), 6, noise=0.001)
    image, support = reference_image(scan.kspace[0, 0])
    assert image.shape == support.shape == (64, 56)
    assert support.dtype == bool
    assert not image[~support].any()
    tissue = np.abs(truth.image[0]) > 0.1 * np.abs(truth.image).max()
    assert support[tissue].mean() > 0.97
    # the maps of the phantom are normalised like ours; edges differ by Gibbs ringing
    assert score(image, truth.image, support).psnr_raw > 25


def test_regret_is_what_the_fit_missed(pair):
    image, reference = pair
    rng = np.random.default_rng(1)
    snapshots = SnapshotScores(reference)
    assert snapshots.best_psnr == -np.inf
    images = [
        torch.from_numpy(image + level * rng.standard_normal(image.shape))[None].to(torch.complex64)
        for level in (0.5, 0.1, 0.3)
    ]
    for iteration, snapshot in zip((10, 20, 30), images, strict=True):
        assert snapshots(iteration, snapshot) is None
    psnr = [score(snapshot, reference).psnr for snapshot in images]
    assert [point[0] for point in snapshots.curve] == [10, 20, 30]
    assert [point[1] for point in snapshots.curve] == pytest.approx(psnr)
    assert snapshots.best_psnr == max(psnr) == psnr[1]
    assert snapshots.regret(images[2]) == pytest.approx(psnr[1] - psnr[2])
    assert snapshots.regret(images[1]) == 0
    assert snapshots.regret(torch.from_numpy(reference)) == 0
    assert snapshots.seconds > 0


def test_reference_of_real_scan_follows_the_protocol(data_dir: Path):
    scan = load(data_dir / "bart_brain8" / "full")
    image, support = reference_image(scan.kspace[0, 0])
    assert image.shape == (230, 180)
    # coherent combination inside the support is close to the root sum of squares of the coils
    coils = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(scan.kspace[0, 0], axes=(-2, -1)), norm="ortho"), (-2, -1))
    rss = np.linalg.norm(coils, axis=0)
    bright = support & (rss > 0.2 * rss.max())
    assert np.quantile(np.abs(image)[bright] / rss[bright], 0.05) > 0.95
    assert 0.7 < support.mean() < 0.95


def test_errors_of_the_told_size_are_within_it_as_a_gaussian_says(generator):
    truth = 1 + torch.rand(64, 64, generator=generator)
    std = 0.01 + 0.05 * torch.rand(64, 64, generator=generator)
    image = truth + std * torch.randn(64, 64, generator=generator)
    told = calibration(image, std, truth)
    np.testing.assert_allclose(told.within, GAUSSIAN_WITHIN, atol=0.02)
    assert 0.3 < told.correlation < 0.8
    shy = calibration(image, std / 3, truth)
    assert shy.within[2] == pytest.approx(told.within[0], abs=0.01)
    assert abs(calibration(image, std.flip(0), truth).correlation) < 0.1


def test_calibration_follows_the_scale_and_counts_inside_the_support(pair):
    image, truth = pair
    std = np.full(truth.shape, 0.05)
    support = np.zeros(truth.shape, dtype=bool)
    support[4:12, 4:12] = True
    once, scaled = (calibration(f * image, f * std, truth, support) for f in (1.0, 100.0))
    np.testing.assert_allclose(once.within, scaled.within)
    spoiled = np.where(support, std, 1e3)
    assert calibration(image, spoiled, truth, support).within == once.within
    assert once.correlation == 0
    assert calibration(truth, std, truth).within == (1, 1, 1)


def test_a_deviation_that_cannot_be_compared_is_refused(pair):
    image, truth = pair
    with pytest.raises(ShapeError, match="standard deviation"):
        calibration(image, np.ones((3, 3)), truth)
    with pytest.raises(DipmedError, match="no pixel"):
        calibration(image, np.zeros(truth.shape), truth)
