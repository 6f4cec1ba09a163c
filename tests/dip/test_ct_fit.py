import math

import pytest
import torch

from dipmed.config import FitConfig, NetworkConfig, find_preset
from dipmed.dip import DeepImagePrior
from dipmed.dip.batch import Batch
from dipmed.dip.inputs import first_image
from dipmed.dip.problem import make_problem
from dipmed.dip.uncertainty import Uncertainty
from dipmed.scan import DipmedError
from dipmed.solvers import total_variation_image
from operators import (
    ConeBeam,
    FanBeam,
    FilteredProjector,
    Grid,
    SliceProjector,
    StackedProjector,
    VolumeProjector,
    angles_over,
    block_means,
    feldkamp,
    subdivided,
)

SMALL = FitConfig(network=NetworkConfig(channels=(16, 16), skip_channels=8), iterations=120, held_out=0.1)


@pytest.fixture(scope="module")
def few_views():
    """A slice with sharp parts, seen from 20 sides with noise."""
    grid = Grid((48, 40), (1.0, 1.0))
    x, y = torch.meshgrid(*[torch.from_numpy(grid.coordinates(axis)) for axis in (0, 1)], indexing="ij")
    body = ((x / 20) ** 2 + (y / 16) ** 2 < 1).float()
    bone = ((x - 8).abs() < 3) & ((y + 3).abs() < 4)
    hole = (x + 8) ** 2 + (y - 4) ** 2 < 16
    truth = 0.02 * (body + bone.float() - 0.9 * hole.float())[None]
    projector = SliceProjector(grid, FanBeam(angles_over(20, 2 * math.pi), 60, 2.0, 100.0, 200.0))
    noise = 0.005 * torch.randn(projector.range.shape, generator=torch.Generator().manual_seed(0))
    A = FilteredProjector(projector)
    return A.weigh(projector(truth) + noise), A, truth


def test_a_ct_slice_is_fitted_better_than_back_projected(few_views):
    y, A, truth = few_views
    result = DeepImagePrior(SMALL)(y, A)
    assert result.image.shape == truth.shape
    assert result.image.dtype == torch.float32
    assert result.stop.rule == "held-out"

    def error(image):
        return float((image * (truth * image).sum() / image.square().sum() - truth).norm() / truth.norm())

    assert error(result.image) < 0.6 * error(A.adjoint(y))
    # true units, without any scale factor
    assert float(result.image.sum() / truth.sum()) == pytest.approx(1, abs=0.05)


def test_whole_views_are_held_out(few_views):
    y, A, _ = few_views
    problem = make_problem(
        y, A, kspace_exponent=0.5, held_out=0.1, noise_variance=None, generator=torch.Generator().manual_seed(0)
    )
    assert problem.held_out_mask.shape == (20, 1)
    assert int(problem.held_out_mask.sum()) == 2
    changed = torch.where(problem.held_out_mask, torch.randn(y.shape), y)
    assert torch.equal(A.with_mask(~problem.held_out_mask).adjoint(changed), problem.A_fit.adjoint(y))
    assert problem.smooth_phase is None


def test_input_images_of_line_integrals_are_made_without_a_filter_from_fitted_views_alone(few_views):
    _, filtered, truth = few_views
    A = filtered.projector

    def problem_of(y):
        return make_problem(
            y, A, kspace_exponent=0.25, held_out=0.1, noise_variance=None, generator=torch.Generator().manual_seed(0)
        )

    problem = problem_of(A(truth))
    A_input, data = problem.for_input()
    assert A_input.exponent == 0
    assert problem.A_fit.exponent == 0.25
    torch.testing.assert_close(data, A_input.N(problem.scale * truth))
    held_out = problem.held_out_mask
    changed = problem_of(torch.where(held_out, 1.1 * A(truth), A(truth)))
    torch.testing.assert_close(changed.for_input()[1] / changed.scale, data / problem.scale)


def test_the_input_of_few_views_has_converged(few_views):
    _, filtered, truth = few_views
    A = SliceProjector(filtered.projector.grid, FanBeam(angles_over(6, 1.5 * math.pi), 60, 2.0, 100.0, 200.0))
    generator = torch.Generator().manual_seed(0)
    problem = make_problem(A(truth), A, kspace_exponent=0.125, held_out=None, noise_variance=None, generator=generator)
    lam = find_preset("ct-2d").variation_weight
    found = first_image("tv", problem, find_preset("ct-2d"), generator)
    converged, _ = total_variation_image(*problem.for_input(), lam, coupling=lam, max_iter=250, inner=6, tol=1e-5)
    assert float((found - converged).norm() / converged.norm()) < 0.012


def test_views_that_are_given_back_renew_the_input(few_views):
    _, filtered, truth = few_views
    A = filtered.projector
    problem = make_problem(
        A(truth),
        A,
        kspace_exponent=0.125,
        held_out=0.1,
        noise_variance=None,
        generator=torch.Generator().manual_seed(0),
    )
    A_input, data = problem.with_all_data().for_input()
    torch.testing.assert_close(data, A_input.N(problem.scale * truth))
    assert not torch.allclose(data, problem.for_input()[1], rtol=0.01)
    config = find_preset("ct-2d").replace(network=SMALL.network, iterations=20, stop="held-out")
    images = [DeepImagePrior(config.replace(renew_input=renew))(A(truth), A).image for renew in (True, False)]
    assert not torch.equal(*images)


def test_a_share_of_the_input_is_in_the_image_that_is_returned(few_views):
    _, filtered, truth = few_views
    A = filtered.projector
    config = find_preset("ct-2d").replace(network=SMALL.network, iterations=20, subpixels=1)
    images = [DeepImagePrior(config.replace(input_share=share))(A(truth), A) for share in (0.0, 0.25)]
    problem = make_problem(
        A(truth), A, kspace_exponent=0.125, held_out=None, noise_variance=None, generator=torch.Generator()
    )
    seen_first = first_image("tv", problem, config, torch.Generator()) / problem.scale
    torch.testing.assert_close(images[1].image, 0.75 * images[0].image + 0.25 * seen_first)
    # noise is no image
    noise = [DeepImagePrior(config.replace(inputs=("noise",), input_share=share))(A(truth), A) for share in (0.0, 0.25)]
    torch.testing.assert_close(noise[0].image, noise[1].image, rtol=0, atol=0)


def test_the_share_is_of_the_input_that_is_made_of_all_views(few_views):
    _, filtered, truth = few_views
    A = filtered.projector
    config = find_preset("ct-2d").replace(network=SMALL.network, iterations=20, subpixels=1, stop="held-out")
    parts = [DeepImagePrior(config.replace(input_share=share))(A(truth), A).image for share in (0.0, 0.5)]
    problem = make_problem(
        A(truth), A, kspace_exponent=0.125, held_out=None, noise_variance=None, generator=torch.Generator()
    )
    of_all = first_image("tv", problem, config, torch.Generator()) / problem.scale
    torch.testing.assert_close(parts[1], 0.5 * parts[0] + 0.5 * of_all, rtol=1e-3, atol=1e-5)


def test_an_image_of_attenuation_is_not_negative(few_views):
    _, filtered, truth = few_views
    A = filtered.projector
    noisy = A(truth) + 0.05 * torch.randn(A.range.shape, generator=torch.Generator().manual_seed(0))
    preset = find_preset("ct-2d")  # whose few iterations would all see little but noise
    config = preset.replace(network=SMALL.network, iterations=20, follow_noise=False, first_jitter=0.0)
    assert float(DeepImagePrior(config)(noisy, A).image.min()) >= 0
    assert float(DeepImagePrior(config.replace(nonnegative=False))(noisy, A).image.min()) < 0


def test_rays_with_few_photons_count_less(few_views):
    _, filtered, truth = few_views
    A = filtered.projector
    counts = torch.where(torch.arange(60) % 3 == 0, 20.0, 20000.0).expand(20, 60)
    noise = torch.randn(A.range.shape, generator=torch.Generator().manual_seed(0)) / counts.sqrt()
    config = find_preset("ct-2d").replace(network=SMALL.network, iterations=150)

    def error(weights):
        image = DeepImagePrior(config, ray_weights=weights)(A(truth) + noise, A).image
        return float((image - truth).norm() / truth.norm())

    assert error((counts / counts.max()).sqrt()) < 0.7 * error(None)


@pytest.fixture(scope="module")
def fine_detail():
    """A slice with more detail than its pixels hold, seen from 24 sides by cells with a width."""
    grid = Grid((32, 28), (2.0, 2.0))
    fine = subdivided(grid, 4)
    x, y = torch.meshgrid(*[torch.from_numpy(fine.coordinates(axis)) for axis in (0, 1)], indexing="ij")
    body = ((x / 28) ** 2 + (y / 22) ** 2 < 1).float()
    grating = ((x - 8).abs() < 7) & ((y + 3).abs() < 9) & ((x % 5) < 2)
    truth = 0.02 * (body + grating.float())[None]
    beam = FanBeam(angles_over(24, 2 * math.pi), 64, 2.4, 150.0, 250.0)
    return (
        SliceProjector(fine, beam, weights="strip")(truth),
        SliceProjector(grid, beam),
        block_means(truth, 4, (-2, -1)),
    )


def test_pixels_in_parts_show_the_mean_of_what_lies_within_them(fine_detail):
    y, A, truth = fine_detail
    config = find_preset("ct-2d").replace(network=SMALL.network, iterations=150)
    seen = []

    def error(image):
        return float((image - truth).norm() / truth.norm())

    def observe(_, image):
        seen.append(image.shape)

    parts, whole = 0.0, 0.0
    for seed in range(2):
        seeded = config.replace(seed=seed)
        result = DeepImagePrior(seeded, observer=observe, uncertainty=Uncertainty("jitter", 3))(y, A)
        assert result.image.shape == result.std.shape == truth.shape
        parts += error(result.image)
        whole += error(DeepImagePrior(seeded.replace(subpixels=1))(y, A).image)
    assert set(seen) == {truth.shape}
    assert parts < 0.9 * whole


def test_a_stack_of_slices_shows_the_mean_of_what_lies_within_its_pixels(fine_detail):
    lines, A, truth = fine_detail
    fade = torch.tensor([1.0, 0.9, 0.8])
    y = lines[:, :, None] * fade[:, None]
    config = find_preset("ct-3d-slices").replace(network=SMALL.network, iterations=200)

    def error(image):
        expected = truth[..., None] * fade
        assert image.shape == expected.shape
        return float((image - expected).norm() / expected.norm())

    stack = StackedProjector(A, len(fade))
    parts, whole = (DeepImagePrior(config.replace(subpixels=n))(y, stack).image for n in (2, 1))
    assert error(parts) < 0.8 * error(whole)


def test_pixels_in_parts_come_to_the_same_in_a_batch(fine_detail):
    y, A, _ = fine_detail
    config = find_preset("ct-2d").replace(
        network=SMALL.network, iterations=10, gain=1.0, rate=3e-3, adam_rate=3e-4, mixed_precision="off"
    )
    orders = [(seed, DeepImagePrior(config.replace(seed=seed)), y, A) for seed in range(2)]
    found = dict(Batch(2).run(iter(orders)))
    for seed, prior, *data in orders:
        alone = prior(*data).image
        assert float((found[seed].image - alone).norm() / alone.norm()) < 1e-4


def test_pixels_stay_whole_where_the_matrices_would_be_large(fine_detail, monkeypatch):
    y, A, _ = fine_detail
    config = find_preset("ct-2d").replace(network=SMALL.network, iterations=5)
    whole = DeepImagePrior(config.replace(subpixels=1))(y, A)
    assert whole.assumptions == ()
    monkeypatch.setattr("dipmed.dip.loop.can_be_divided", lambda *_: False)
    found = DeepImagePrior(config)(y, A)
    assert torch.equal(found.image, whole.image)
    assert "fitted whole" in found.assumptions[0]


def test_only_slices_of_projections_have_pixels_in_parts(small_scan):
    y, A, *_ = small_scan
    with pytest.raises(DipmedError, match="subpixels=1"):
        DeepImagePrior(FitConfig(subpixels=2))(y, A)


def test_a_volume_is_fitted_better_than_back_projected():
    grid = Grid((20, 18, 16), (1.0, 1.0, 1.0))
    x, y, z = torch.meshgrid(*[torch.from_numpy(grid.coordinates(axis)) for axis in range(3)], indexing="ij")
    body = ((x / 8) ** 2 + (y / 7) ** 2 + (z / 6) ** 2 < 1).float()
    bone = ((x - 3).abs() < 2) & ((y + 2).abs() < 2.5) & (z.abs() < 3)
    truth = 0.02 * (body + bone.float())[None]
    A = VolumeProjector(grid, ConeBeam(angles_over(10, 2 * math.pi), 22, 26, 2.0, 2.0, 80.0, 160.0))
    measured = A(truth) + 0.005 * torch.randn(A.range.shape, generator=torch.Generator().manual_seed(0))
    config = find_preset("ct-3d").replace(network=NetworkConfig(channels=(8, 8), skip_channels=8), iterations=120)
    result = DeepImagePrior(config)(measured, A)
    assert result.image.shape == truth.shape

    def error(image):
        return float((image - truth).norm() / truth.norm())

    assert error(result.image) < 0.75 * error(feldkamp(measured, A.beam, grid, "hann"))
    assert float(result.image.sum() / truth.sum()) == pytest.approx(1, abs=0.05)
