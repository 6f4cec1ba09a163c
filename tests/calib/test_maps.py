"""Sensitivity maps: against known ones, their phase, and what cannot be calibrated."""

from pathlib import Path

import numpy as np
import pytest
import sigpy.mri
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import binary_erosion

import dipmed.io
from dipmed.calib.centre import calibration_width
from dipmed.calib.coils import VolumeReference, estimate_maps, volume_reference
from dipmed.calib.maps import centred
from dipmed.io.cfl import read_cfl
from dipmed.scan import DipmedError, ShapeError
from operators import make_mask
from operators.fourier import centred_fft, centred_ifft


def to_kspace(images):
    return centred_fft(torch.from_numpy(np.ascontiguousarray(images, dtype=np.complex64)), images.ndim - 1).numpy()


def to_image(kspace):
    return centred_ifft(torch.from_numpy(np.ascontiguousarray(kspace)), kspace.ndim - 1).numpy()


def ellipse(shape):
    """An ellipse with a darker one inside, positive and real."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    outer = sum((axis / 0.75) ** 2 for axis in axes) < 1
    inner = sum(((axis - 0.15) / 0.3) ** 2 for axis in axes) < 1
    return (outer * (1 - 0.5 * inner)).astype(np.float32)


def normalised(maps):
    return (maps / np.linalg.norm(maps, axis=0)).astype(np.complex64)


def measure(maps, image, noise=0.002, seed=0):
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((2, *maps.shape))
    return (to_kspace(maps * image) + noise * (drawn[0] + 1j * drawn[1])).astype(np.complex64)


def birdcage(n_coils, shape):
    return normalised(sigpy.mri.birdcage_maps((n_coils, *shape)))


def agreement(maps, truth, where):
    """|<s, truth>| of each voxel, 1 where both are the same coil vector but for a phase."""
    return np.abs((maps.conj() * truth).sum(axis=0))[where]


def largest_phase_jump(image, where):
    """Largest phase step between neighbours that both lie in ``where``, in radians."""
    steps = []
    for axis in range(image.ndim):
        ahead, here = (np.take(a, range(1, a.shape[axis]), axis) for a in (image, where))
        before, there = (np.take(a, range(a.shape[axis] - 1), axis) for a in (image, where))
        steps.append(np.abs(np.angle(ahead * before.conj()))[here & there].max())
    return max(steps)


SHAPE = (56, 48)
CORE = binary_erosion(ellipse(SHAPE) > 0, iterations=2)


@pytest.fixture(scope="module")
def simulated():
    truth = birdcage(6, SHAPE)
    return measure(truth, ellipse(SHAPE)), truth


def test_espirit_finds_known_maps(simulated):
    kspace, truth = simulated
    mask = make_mask("random:R=3,acs=16,seed=0", SHAPE).numpy()
    maps = estimate_maps(kspace * mask[None], mask).cropped
    assert maps.dtype == np.complex64
    assert agreement(maps, truth, CORE).min() > 0.995
    length = np.linalg.norm(maps, axis=0)
    support = length > 0
    assert np.allclose(length[support], 1, atol=1e-4)
    assert support[CORE].all()
    assert not support[:4, :4].any()


def test_maps_reach_into_a_margin_around_their_support(simulated):
    kspace, _ = simulated
    noisy = kspace + 0.01 * np.random.default_rng(0).standard_normal(kspace.shape).astype(np.float32)
    found = estimate_maps(noisy, np.ones(SHAPE, dtype=bool), crop=0.9)
    length = np.linalg.norm(found.maps, axis=0)
    assert np.allclose(length[found.support], 1, atol=1e-4)
    assert found.support.sum() < (length > 0).sum() < length.size
    assert not found.cropped[:, ~found.support].any()


@pytest.mark.parametrize("spec", ["random:R=3,acs=16,seed=0", "random:R=2,acs=4,seed=1"])
def test_jsense_finds_known_maps_also_without_a_full_centre(simulated, spec):
    kspace, truth = simulated
    mask = make_mask(spec, SHAPE).numpy()
    maps = estimate_maps(kspace * mask[None], mask, "jsense").cropped
    assert np.quantile(agreement(maps, truth, CORE), 0.02) > 0.97
    length = np.linalg.norm(maps, axis=0)
    support = length > 0
    assert np.allclose(length[support], 1, atol=1e-4)
    assert support[CORE].all()
    assert not support[:4, :4].any()


@pytest.mark.parametrize("method", ["espirit", "jsense"])
def test_phase_is_smooth_where_the_first_coil_is_dark(method):
    n_x = SHAPE[0]
    maps = sigpy.mri.birdcage_maps((6, *SHAPE))
    # the first coil sees one end of the object alone, so over the rest its phase is noise
    maps[0] *= np.exp(-((np.arange(n_x)[:, None] / (0.12 * n_x)) ** 2))
    truth = normalised(maps)
    kspace = measure(truth, ellipse(SHAPE))
    full = np.ones(SHAPE, dtype=bool)
    found = estimate_maps(kspace, full, method).cropped
    combined = (found.conj() * to_image(kspace)).sum(axis=0)
    assert largest_phase_jump(combined, CORE) < 0.5
    # the first coil as reference, which is what must not happen
    by_first = found * np.exp(-1j * np.angle(found[0]))
    rough = (by_first.conj() * to_image(kspace)).sum(axis=0)
    assert largest_phase_jump(rough, CORE) > 1.5


@pytest.mark.parametrize("method", ["espirit", "jsense"])
@pytest.mark.parametrize("dead", [0, 5])
def test_a_dead_coil_gets_no_sensitivity(simulated, method, dead):
    kspace, truth = simulated
    kspace, truth = kspace.copy(), truth.copy()
    kspace[dead] = truth[dead] = 0
    maps = estimate_maps(kspace, np.ones(SHAPE, dtype=bool), method).cropped
    assert np.isfinite(maps).all()
    assert np.abs(maps[dead]).max() < 1e-3
    assert np.quantile(agreement(maps, normalised(truth), CORE), 0.05) > 0.97


def test_one_coil_has_a_map_of_ones(simulated):
    kspace, _ = simulated
    maps = estimate_maps(kspace[:1], np.zeros(SHAPE, dtype=bool)).cropped
    assert maps.dtype == np.complex64
    assert np.array_equal(maps, np.ones((1, *SHAPE)))


def test_a_separate_calibration_takes_the_place_of_the_centre(simulated):
    kspace, truth = simulated
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, ::3] = True
    calibration = np.zeros_like(kspace)
    calibration[:, 16:40, 12:36] = 7 * kspace[:, 16:40, 12:36]
    maps = estimate_maps(kspace * mask, mask, calibration=calibration).cropped
    assert agreement(maps, truth, CORE).min() > 0.995


def test_3d_maps_are_continuous_along_the_readout():
    shape = (20, 28, 24)
    truth = birdcage(5, shape)
    image = ellipse(shape)
    kspace = measure(truth, image)
    mask = make_mask("poisson:R=2,acs=14,seed=0", shape).numpy()
    maps = estimate_maps(kspace * mask[None], mask).cropped
    core = binary_erosion(image > 0, iterations=2)
    assert np.quantile(agreement(maps, truth, core), 0.01) > 0.99
    # the object ends before the first and the last position: there is nothing to calibrate on but noise
    assert not maps[:, [0, -1]].any()
    combined = (maps.conj() * to_image(kspace)).sum(axis=0)
    assert largest_phase_jump(combined, core) < 0.6


def test_estimates_are_the_same_each_time(simulated):
    kspace, _ = simulated
    full = np.ones(SHAPE, dtype=bool)
    for method in ("espirit", "jsense"):
        assert np.array_equal(estimate_maps(kspace, full, method).cropped, estimate_maps(kspace, full, method).cropped)


def test_a_narrower_region_can_be_asked_for(simulated):
    kspace, _ = simulated
    full = np.ones(SHAPE, dtype=bool)
    narrow, wide = (estimate_maps(kspace, full, calib_width=width).cropped for width in (10, 24))
    assert not np.array_equal(narrow, wide)
    # never more than was sampled
    assert np.array_equal(
        estimate_maps(kspace, full, calib_width=1000).cropped, estimate_maps(kspace, full, calib_width=48).cropped
    )


def test_without_a_full_centre_the_message_says_what_to_do(simulated):
    kspace, _ = simulated
    mask = np.zeros(SHAPE, dtype=bool)
    mask[:, ::2] = True
    with pytest.raises(DipmedError, match="--maps jsense"):
        estimate_maps(kspace * mask, mask)
    with pytest.raises(DipmedError, match="8 lines or more, got 5"):
        estimate_maps(kspace, np.ones(SHAPE, dtype=bool), calib_width=5)


def test_what_cannot_be_calibrated_on(simulated):
    kspace, _ = simulated
    full = np.ones(SHAPE, dtype=bool)
    with pytest.raises(DipmedError, match="all zero"):
        estimate_maps(kspace * 0, full)
    with pytest.raises(DipmedError, match="NaN"):
        estimate_maps(np.full_like(kspace, np.nan), full)
    with pytest.raises(DipmedError, match="espirit or jsense, got 'walsh'"):
        estimate_maps(kspace, full, "walsh")
    with pytest.raises(ShapeError, match="mask"):
        estimate_maps(kspace, full[:8])
    with pytest.raises(ShapeError, match="calibration"):
        estimate_maps(kspace, full, calibration=kspace[:, :8])
    with pytest.raises(ShapeError, match="complex"):
        estimate_maps(np.abs(kspace), full)


@given(st.data())
def test_calibration_width_of_a_box(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=3)))
    widths = tuple(data.draw(st.integers(1, n)) for n in shape)
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(n // 2 - w // 2, n // 2 - w // 2 + w) for n, w in zip(shape, widths, strict=True))] = True
    assert calibration_width(mask) == widths


def test_calibration_width_of_the_usual_masks():
    # a line that happens to be drawn beside the centre belongs to it
    assert calibration_width(make_mask("random:R=4,acs=16,seed=0", (230, 180)).numpy()) == (230, 16)
    assert calibration_width(make_mask("random:R=4,acs=16,seed=3", (230, 180)).numpy()) == (230, 17)
    assert calibration_width(np.ones((10, 7), dtype=bool)) == (10, 7)
    assert calibration_width(np.zeros((10, 7), dtype=bool)) == (0, 0)
    square = make_mask("poisson:R=4,acs=12,seed=0", (20, 48, 48)).numpy()
    found = calibration_width(square)
    assert found[0] == 20
    assert min(found[1:]) >= 12


def test_maps_of_a_3d_scan_lose_no_signal(data_dir: Path):
    case = data_dir / "sim3d_mc6"
    kspace = np.ascontiguousarray(np.moveaxis(read_cfl(case / "ksp").reshape(52, 64, 48, 6), -1, 0))
    sampled = np.load(case / "mask_yz.npy").astype(bool)
    # the middle of the readout, to be quick: a lower resolution along x
    kspace = kspace[:, 20:33]
    mask = np.broadcast_to(sampled, kspace.shape[1:])
    maps = estimate_maps(kspace * mask, mask).cropped
    combined = (maps.conj() * to_image(kspace)).sum(axis=0)
    rss = np.linalg.norm(to_image(kspace), axis=0)
    bright = rss > 0.3 * rss.max()
    assert maps.any(axis=0)[bright].mean() > 0.98
    # coherent combination loses nothing where there is signal
    assert np.quantile(np.abs(combined)[bright] / rss[bright], 0.05) > 0.97


def middle_of_a_head(data_dir: Path):
    scan = dipmed.io.load(data_dir / "bart_brain8" / "full.cfl")
    middle = tuple(centred(n, m) for n, m in zip(scan.matrix_shape, (128, 104), strict=True))
    return np.ascontiguousarray(scan.kspace[0, 0][(..., *middle)])


@pytest.mark.parametrize("lines", [9, 10])
def test_too_few_lines_to_find_the_coils_of_a_head_are_refused(data_dir: Path, lines):
    kspace = middle_of_a_head(data_dir)
    mask = make_mask(f"random:R=4,acs={lines},seed=0", kspace.shape[1:]).numpy()
    with pytest.raises(DipmedError, match=rf"centre of 24 x {lines} leave out \d+% of the signal.*--maps jsense"):
        estimate_maps(kspace * mask, mask)
    # as a slice of a series, too, unless it is dark beside the others
    reference = volume_reference(kspace[None] * mask, mask[None], "espirit")
    with pytest.raises(DipmedError, match="leave out"):
        estimate_maps(kspace * mask, mask, volume=reference)
    bright = VolumeReference(reference.rotation, 10 * reference.signal)
    assert estimate_maps(kspace * mask, mask, volume=bright).support.mean() < 0.3
    assert estimate_maps(kspace * mask, mask, "jsense").support.mean() > 0.5


def test_twelve_lines_are_enough(data_dir: Path):
    kspace = middle_of_a_head(data_dir)
    mask = make_mask("random:R=4,acs=12,seed=0", kspace.shape[1:]).numpy()
    assert estimate_maps(kspace * mask, mask).support.mean() > 0.6
