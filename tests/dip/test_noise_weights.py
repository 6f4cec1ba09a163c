"""Weights of a fit follow the noise of the data: up, by its share of their energy and by its deviation, never down."""

import math

import pytest
import torch

from dipmed.config import FitConfig, find_preset
from dipmed.dip import DeepImagePrior
from dipmed.dip.methods import FIT_METHODS
from dipmed.dip.noise_weights import follow_noise
from dipmed.dip.problem import make_problem
from dipmed.settings import ReconSettings
from operators import FanBeam, Grid, Identity, SliceProjector, angles_over


def problem_of(y, A, noise_variance=None):
    generator = torch.Generator().manual_seed(0)
    return make_problem(y, A, kspace_exponent=0.5, held_out=None, noise_variance=noise_variance, generator=generator)


def noisier(small_scan, factor):
    y, A, _, variance = small_scan
    more = math.sqrt((factor**2 - 1) * variance)
    return y + more * A.mask * A.range.randn(generator=torch.Generator().manual_seed(9)), A, factor**2 * variance


def test_weights_grow_with_the_noise(small_scan):
    y, A, variance = noisier(small_scan, 8)
    config, raised, words = follow_noise(FitConfig(), problem_of(y, A, variance))
    share = variance * A.range.shape[0] * float(A.mask.sum()) / float(y.abs().square().sum())
    assert raised["tv_weight"] == pytest.approx(2.4 * share, rel=1e-3)
    assert {name: getattr(config, name) for name in raised} == raised
    assert "follow_noise" in words
    louder = follow_noise(FitConfig(), problem_of(2 * y, A, 4 * variance))[1]
    assert louder == pytest.approx(raised)  # units of the data do not matter
    twice = follow_noise(FitConfig(), problem_of(y, A, 4 * variance))[1]
    assert twice["tv_weight"] == pytest.approx(4 * raised["tv_weight"])
    assert twice["wavelet_threshold"] == pytest.approx(2 * raised["wavelet_threshold"])


def test_the_deviation_is_that_of_the_image_of_the_noise(small_scan):
    y, A, variance = noisier(small_scan, 8)
    problem = problem_of(y, A, variance)
    noise = problem.scale * math.sqrt(variance) * A.range.randn(generator=torch.Generator().manual_seed(3))
    deviation = float(A.adjoint(noise).abs().square().mean().sqrt())
    raised = follow_noise(FitConfig(), problem)[1]
    assert raised["wavelet_threshold"] == pytest.approx(0.24 * deviation, rel=0.1)


def test_little_noise_changes_nothing(small_scan):
    y, A, _, variance = small_scan
    config = FitConfig()
    assert follow_noise(config, problem_of(y, A, variance / 100)) == (config, {}, None)
    off = config.replace(follow_noise=False)
    assert follow_noise(off, problem_of(y, A, 100 * variance)) == (off, {}, None)


def test_noise_that_cannot_be_told_changes_nothing(small_scan):
    _, A, truth, _ = small_scan
    config = FitConfig()
    assert follow_noise(config, problem_of(A(truth), A))[1] == {}  # too few samples to estimate it from
    voxels = torch.rand((1, 16, 16), generator=torch.Generator().manual_seed(0))
    assert follow_noise(config, problem_of(voxels, Identity((1, 16, 16)), 10.0))[1] == {}


def test_a_simulation_without_noise_is_not_taken_for_a_noisy_one():
    _, A, truth = few_photons(300)
    found = DeepImagePrior(find_preset("ct-2d").replace(iterations=2))(A(truth), A)
    assert (found.raised, found.assumptions) == ({}, ())


def test_a_weight_that_is_chosen_counts_as_it_is():
    assert ReconSettings().fit_config("ct", 2).follow_noise
    for chosen in ("tv_weight=0.01", "wavelet_threshold=0.01", "variation_weight=0.01", "follow_noise=no"):
        assert not ReconSettings(sets=(chosen,)).fit_config("mri", 2).follow_noise
    assert ReconSettings(changes={"tv_weight": 0.01, "follow_noise": True}).fit_config("mri", 2).follow_noise


def test_published_methods_are_as_published():
    assert FIT_METHODS["dip"].configure(find_preset("mri-2d"), "mri").follow_noise
    for name in set(FIT_METHODS) - {"dip"}:
        for modality in FIT_METHODS[name].modalities:
            assert not FIT_METHODS[name].configure(find_preset(f"{modality}-2d"), modality).follow_noise


def few_photons(n):
    """Line integrals of a disc with an inlay, by so many photons a ray, and the disc."""
    x, y = torch.meshgrid(*[torch.linspace(-1, 1, 48)] * 2, indexing="ij")
    truth = (0.08 * ((x**2 + y**2) < 0.6) + 0.03 * (((x - 0.2).abs() < 0.2) & (y.abs() < 0.3)))[None]
    A = SliceProjector(Grid((48, 48), (1.0, 1.0)), FanBeam(angles_over(30, 2 * math.pi), 64, 2.0, 100.0, 200.0))
    counts = torch.poisson(n * torch.exp(-A(truth)), generator=torch.Generator().manual_seed(4))
    return -torch.log(counts.clamp(min=1) / n), A, truth


def test_a_scan_of_few_photons_gains():
    y, A, truth = few_photons(300)
    config = find_preset("ct-2d").replace(iterations=80, mixed_precision="off")
    errors = {}
    for follows in (True, False):
        result = DeepImagePrior(config.replace(follow_noise=follows))(y, A)
        errors[follows] = float((result.image - truth).norm() / truth.norm())
        assert set(result.raised) == ({"tv_weight", "variation_weight"} if follows else set())
        assert any("meet least" in words for words in result.assumptions) == follows
    assert errors[True] < 0.8 * errors[False]
