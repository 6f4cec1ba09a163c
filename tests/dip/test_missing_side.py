"""Scans of which one side of k-space is missing: calibration, held-out data, the smooth phase, and references."""

import numpy as np
import pytest
import torch

from dipmed.baselines import CGSense, ZeroFilled
from dipmed.calib.centre import calibration_width
from dipmed.calib.coils import estimate_maps
from dipmed.compare import compare
from dipmed.config import NetworkConfig, find_preset
from dipmed.dip import DeepImagePrior
from dipmed.dip.phase import low_resolution_image
from dipmed.dip.problem import make_problem
from dipmed.evaluate import score
from dipmed.phantom import brain_phantom_scan
from dipmed.prepare import prepare
from dipmed.scan import DipmedError
from dipmed.settings import ReconSettings
from operators import CartesianMRI, centred_fft, make_mask
from operators.sampling import inside_ellipse

SHAPE = (64, 64)
SPECS = {"partial": "equispaced:R=1,acs=0,partial=0.6", "echo": "equispaced:R=1,acs=0,echo=0.6"}


@pytest.fixture(scope="module")
def phantom():
    return brain_phantom_scan(SHAPE, n_coils=4, noise=0.005)


@pytest.mark.parametrize("side", SPECS)
def test_maps_and_phase_come_from_the_box_that_is_sampled_on_both_sides(phantom, side):
    scan, truth = phantom
    mask = make_mask(SPECS[side], SHAPE)
    # of 64 samples 26 are missing, so 6 are left before the centre
    assert calibration_width(mask.numpy()) == ((64, 13) if side == "partial" else (13, 64))
    y = torch.from_numpy(scan.kspace[0, 0]) * mask
    maps = estimate_maps(y.numpy(), mask.numpy()).cropped
    bright = (np.abs(truth.image[0]) > 0.2) & maps.any(axis=0)
    agreement = np.abs((maps.conj() * truth.maps).sum(axis=0))[bright]
    assert np.quantile(agreement, 0.05) > 0.97
    A = CartesianMRI(torch.from_numpy(truth.maps), mask)
    low = low_resolution_image(A, y)
    error = np.angle(low.numpy()[0] * truth.image[0].conj())[bright]
    assert np.median(np.abs(error)) < 0.1


@pytest.mark.parametrize("side", SPECS)
def test_what_is_held_out_was_sampled_and_is_outside_the_centre(phantom, side):
    scan, truth = phantom
    mask = make_mask(SPECS[side], SHAPE)
    A = CartesianMRI(torch.from_numpy(truth.maps), mask)
    y = torch.from_numpy(scan.kspace[0, 0]) * mask
    generator = torch.Generator().manual_seed(0)
    problem = make_problem(y, A, kspace_exponent=0.5, held_out=0.1, noise_variance=None, generator=generator)
    assert not (problem.held_out_mask & ~mask).any()
    assert not problem.held_out_mask[28:36, 28:36].any()
    # the weights are those of a complete scan: a location counts by its own distance
    full = CartesianMRI(A.maps, torch.ones(SHAPE, dtype=torch.bool))
    complete = make_problem(y, full, kspace_exponent=0.5, held_out=None, noise_variance=None, generator=generator)
    assert torch.equal(problem.weights, complete.weights)


def test_a_smooth_phase_fills_the_missing_side_in(phantom):
    """Of one coil, so that nothing but the phase can tell what is missing."""
    _, truth = phantom
    mask = make_mask("equispaced:R=1,acs=0,partial=0.65", SHAPE)
    A = CartesianMRI(torch.ones((1, *SHAPE), dtype=torch.complex64), mask)
    image = torch.from_numpy(truth.image)
    y = centred_fft(image, 2) * mask
    y = y + 0.003 * torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0)) * mask
    psnr = {"zero-filled": score(ZeroFilled()(y, A).image, truth.image).psnr}
    psnr["cg-sense"] = score(CGSense()(y, A).image, truth.image).psnr
    for weight in (0.0, 0.3):
        config = find_preset("mri-2d").replace(
            iterations=120, phase_weight=weight, network=NetworkConfig((16, 16, 16), 8, 8)
        )
        psnr[weight] = score(DeepImagePrior(config)(y, A).image, truth.image).psnr
    assert psnr[0.3] > psnr["zero-filled"] + 1.5, psnr
    assert psnr[0.3] > psnr["cg-sense"] + 1.5, psnr
    assert psnr[0.3] > psnr[0.0] + 0.5, psnr


def test_coils_fill_a_missing_side_in_too(phantom):
    scan, _ = phantom
    settings = ReconSettings(undersample="equispaced:R=1,acs=0,partial=0.7", device="cpu")
    zero_filled, cg = (row["psnr"] for row in compare(scan, ["zero-filled", "cg-sense"], settings).rows)
    assert cg > zero_filled + 0.4


@pytest.mark.parametrize("side", SPECS)
def test_a_scan_with_a_missing_side_is_no_reference(phantom, side):
    scan, _ = phantom
    few = prepare(scan, ReconSettings(undersample=SPECS[side]))
    with pytest.raises(DipmedError, match="not fully sampled"):
        compare(few, ["zero-filled"], ReconSettings(device="cpu"))


def test_a_scan_without_corners_is_a_reference(phantom):
    scan, _ = phantom
    few = scan.mask & inside_ellipse(SHAPE)
    settings = ReconSettings(undersample="random:R=2,acs=16,seed=0", device="cpu")
    rows = compare(scan.replace(kspace=scan.kspace * few, mask=few), ["zero-filled", "cg-sense"], settings).rows
    assert rows[1]["psnr"] > rows[0]["psnr"]
    few[..., 0] = False  # one line at the edge is more than the corners
    with pytest.raises(DipmedError, match="not fully sampled"):
        compare(scan.replace(kspace=scan.kspace * few, mask=few), ["zero-filled"], settings)
