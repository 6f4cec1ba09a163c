"""Classical reconstructions: against sigpy's own apps, on a phantom, on real scans, and on what must fail."""

from pathlib import Path

import numpy as np
import pytest
import sigpy.mri.app
import torch

from dipmed.baselines import BASELINES, CGSense, L1Wavelet, TotalVariation, ZeroFilled
from dipmed.calib.coils import estimate_maps
from dipmed.calib.scale import data_scale
from dipmed.evaluate import reference_image, score
from dipmed.io import load
from dipmed.phantom import brain_phantom_scan
from dipmed.scan import DipmedError, DivergedError, ShapeError
from operators import CartesianMRI, make_mask

ITERATIVE = [CGSense(), L1Wavelet(), TotalVariation()]


def undersampled(shape=(40, 36), n_coils=4, spec="random:R=3,acs=6,seed=0", noise=0.01):
    """Data, operator with the true maps, and the image."""
    scan, truth = brain_phantom_scan(shape, n_coils, noise=noise)
    mask = make_mask(spec, shape)
    A = CartesianMRI(torch.from_numpy(truth.maps), mask)
    return torch.from_numpy(scan.kspace[0, 0]) * mask, A, torch.from_numpy(truth.image)


@pytest.fixture(scope="module")
def problem():
    return undersampled()


def objective_parts(x, y, A, scale):
    x, y = x * scale, y * scale
    return float((A(x) - y).abs().square().sum()) / 2, x[0]


def test_names():
    assert list(BASELINES) == ["zero-filled", "cg-sense", "l1-wavelet", "tv"]
    y, A, _ = undersampled((24, 24), spec="random:R=2,acs=4")
    for name, make in BASELINES.items():
        assert make()(y, A).method == name


def test_zero_filled_is_the_adjoint(problem):
    y, A, _ = problem
    result = ZeroFilled()(y, A)
    assert torch.equal(result.image, A.adjoint(y))
    assert (result.stop.rule, result.iterations, result.scale) == ("direct", 0, 1)


def test_cg_sense_solves_the_normal_equations(problem):
    y, A, _ = problem
    result = CGSense(lam=0.05, tol=1e-6)(y, A)
    assert result.stop.rule == "converged"
    assert result.iterations == result.stop.iteration == len(result.curves["change"])
    left, right = A.N(result.image) + 0.05 * result.image, A.adjoint(y)
    assert (left - right).norm() < 1e-4 * right.norm()


@pytest.mark.parametrize("lam", [0.005, 0.05])
def test_cg_sense_is_that_of_sigpy(problem, lam):
    y, A, _ = problem
    scale = data_scale(A.adjoint(y))
    expected = sigpy.mri.app.SenseRecon(
        (y * scale).numpy(), A.maps.numpy(), lam, A.mask.numpy().astype(np.float32), max_iter=100, show_pbar=False
    ).run()
    found = CGSense(lam=lam, tol=1e-6)(y, A).image[0].numpy() * scale
    assert np.abs(found - expected).max() < 1e-3


def test_tv_reaches_a_lower_objective_than_sigpy_at_equal_iterations(problem):
    y, A, _ = problem
    lam, scale = 0.005, data_scale(A.adjoint(y))
    theirs = sigpy.mri.app.TotalVariationRecon(
        (y * scale).numpy(), A.maps.numpy(), lam, A.mask.numpy().astype(np.float32), max_iter=200, show_pbar=False
    ).run()
    ours = TotalVariation(lam=lam)(y, A).image[0].numpy() * scale

    def objective(x):
        data, x = objective_parts(torch.from_numpy(x)[None] / scale, y, A, scale)
        return data + lam * sum(float((x - x.roll(1, axis)).abs().sum()) for axis in (0, 1))

    assert objective(ours) < objective(theirs)
    # and near the minimum that four times the iterations find
    best = objective(TotalVariation(lam=lam, max_iter=800, tol=0)(y, A).image[0].numpy() * scale)
    assert objective(ours) < 1.01 * best


def test_wavelet_without_shifts_would_be_that_of_sigpy(problem):
    y, A, truth = problem
    lam, scale = 0.005, data_scale(A.adjoint(y))
    theirs = sigpy.mri.app.L1WaveletRecon(
        (y * scale).numpy(), A.maps.numpy(), lam, A.mask.numpy().astype(np.float32), max_iter=100, show_pbar=False
    ).run()
    ours = L1Wavelet(lam=lam)(y, A).image[0].numpy() * scale
    # the same penalty on moving grids: near, and nearer to the truth
    assert np.linalg.norm(ours - theirs) < 0.2 * np.linalg.norm(theirs)
    assert score(ours, truth).psnr > score(theirs, truth).psnr + 0.3


@pytest.mark.parametrize("reconstruct", ITERATIVE)
def test_better_than_zero_filled(problem, reconstruct):
    y, A, truth = problem
    result = reconstruct(y, A)
    assert result.image.shape == truth.shape
    assert result.image.dtype == torch.complex64
    assert score(result.image, truth).psnr > score(A.adjoint(y), truth).psnr + 0.9
    # in the units of the data
    assert score(result.image, truth).psnr_raw > score(result.image, truth).psnr - 0.5


@pytest.mark.parametrize("reconstruct", ITERATIVE)
def test_units_of_the_data_do_not_matter(problem, reconstruct):
    y, A, _ = problem
    one, million = reconstruct(y, A), reconstruct(y * 1e6, A)
    assert (million.image / 1e6 - one.image).norm() < 1e-3 * one.image.norm()
    assert million.scale == pytest.approx(one.scale / 1e6)


@pytest.mark.parametrize("reconstruct", ITERATIVE)
def test_same_image_each_time(problem, reconstruct):
    y, A, _ = problem
    np.random.default_rng().random()
    assert torch.equal(reconstruct(y, A).image, reconstruct(y, A).image)


@pytest.mark.parametrize("reconstruct", ITERATIVE)
def test_scale_of_the_maps_does_not_matter(problem, reconstruct):
    y, A, _ = problem
    expected = reconstruct(y, A).image / 3
    found = reconstruct(y, CartesianMRI(3 * A.maps, A.mask)).image
    assert (found - expected).norm() < 1e-3 * expected.norm()


@pytest.mark.parametrize("reconstruct", [ZeroFilled(), *ITERATIVE])
def test_three_dimensions(reconstruct):
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(1, 16, 14, 12, dtype=torch.complex64)
    image[:, 4:12, 3:11, 3:9] = 1
    maps = torch.randn(3, 16, 14, 12, dtype=torch.complex64, generator=generator)
    A = CartesianMRI(maps / maps.abs().square().sum(0).sqrt(), make_mask("poisson:R=2,acs=4,seed=0", (16, 14, 12)))
    y = A(image)
    result = reconstruct(y, A)
    assert result.image.shape == image.shape
    if reconstruct is not ITERATIVE[0]:
        assert score(result.image, image).psnr >= score(A.adjoint(y), image).psnr


@pytest.mark.parametrize("reconstruct", [ZeroFilled(), *ITERATIVE])
def test_data_that_are_none(problem, reconstruct):
    y, A, _ = problem
    with pytest.raises(ShapeError, match="one element of the operator's range"):
        reconstruct(y[None], A)
    with pytest.raises(DipmedError, match="not finite"):
        reconstruct(y * torch.nan, A)
    with pytest.raises(DipmedError, match="all zero"):
        reconstruct(y * 0, A)


def test_a_diverging_iteration_is_an_error(problem):
    y, A, _ = problem
    # a negative penalty has no minimum
    with pytest.raises(DivergedError, match="cg-sense diverged"):
        CGSense(lam=-0.5, max_iter=200, tol=0)(y, A)


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # PSNR at the default weights, where a change of more than a tenth of a dB should be noticed
        ("bart_brain8/full", {"zero-filled": 23.37, "cg-sense": 27.57, "l1-wavelet": 32.05}),
    ],
)
def test_scores_of_real_scans(data_dir: Path, case, expected):
    scan = load(data_dir / case)
    reference, support = reference_image(scan.kspace[0, 0])
    mask = make_mask("random:R=4,acs=16,seed=0", scan.matrix_shape)
    y = scan.kspace[0, 0] * mask.numpy()
    A = CartesianMRI(torch.from_numpy(estimate_maps(y, mask.numpy()).cropped), mask)
    for name, psnr in expected.items():
        result = BASELINES[name]()(torch.from_numpy(y), A)
        assert score(result.image, reference, support).psnr == pytest.approx(psnr, abs=0.1), name
