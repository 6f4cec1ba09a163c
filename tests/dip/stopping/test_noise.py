"""Noise has the covariance of the data's noise, whatever weights and filters them, and its level can be estimated."""

import pytest
import torch

from dipmed.dip.noise import estimate_noise
from dipmed.scan import DipmedError
from operators import Blur, CartesianMRI, FilteredProjector, Identity, ImageMask, NonCartesianMRI


def test_noise_lies_where_that_of_the_data_lies(problem_of, kind):
    problem, truth = problem_of(kind)
    of_data = problem.y - problem.A(truth)[0]
    drawn, lines = problem.noise.draw(torch.Generator().manual_seed(7))
    assert float(drawn.abs().square().sum()) == pytest.approx(problem.noise.energy, rel=0.1)
    assert float(of_data.abs().square().sum()) == pytest.approx(problem.noise.energy, rel=0.1)
    if isinstance(problem.A, CartesianMRI):
        assert not drawn[:, ~problem.A.mask].any()
    if isinstance(problem.A, NonCartesianMRI):
        heavy = problem.A.weights > problem.A.weights.median()
        ratios = [n[:, heavy].abs().square().mean() / n[:, ~heavy].abs().square().mean() for n in (drawn, of_data)]
        assert float(ratios[0]) == pytest.approx(float(ratios[1]), rel=0.1)
    if isinstance(problem.A, FilteredProjector):
        torch.testing.assert_close(problem.A.weigh(lines), drawn)
        powers = [torch.fft.rfft(n).abs().square().mean(dim=(0, 1)) for n in (drawn, of_data)]
        thirds = [torch.stack([part.sum() for part in power.chunk(3)]) for power in powers]
        torch.testing.assert_close(*thirds, rtol=0.25, atol=0)


def test_noise_of_weighted_rays_is_that_of_their_photons(problem_of):
    problem, _ = problem_of("weighted projections")
    lines = problem.noise.draw(torch.Generator().manual_seed(1))[1]
    weighted = lines * problem.A.ray_weights / problem.noise.level
    assert float(weighted[..., 16:32].std()) == pytest.approx(1, rel=0.1)
    assert float(weighted[..., :8].std()) == pytest.approx(1, rel=0.1)


def test_the_level_is_estimated(problem_of, kind):
    known = problem_of(kind, sigma=0.5)[0].noise
    found = problem_of(kind, sigma=0.5, known=False)[0].noise
    assert known.assumption is None
    assert "estimated" in found.assumption
    assert 0.9 * known.level < found.level < 1.3 * known.level
    # where there is little noise, fine detail of the image is taken for it, and the level is too high
    assert problem_of(kind, known=False)[0].noise.level > problem_of(kind)[0].noise.level


def test_voxels_that_are_not_known_tell_nothing_of_the_noise():
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand((64, 64), generator=generator) < 0.8
    A = ImageMask(mask, is_complex=True)
    noise = 0.1 * A.range.randn(generator=generator)
    assert estimate_noise(A, A(noise), None).level == pytest.approx(0.1, rel=0.1)
    with pytest.raises(DipmedError, match="known in full"):
        estimate_noise(ImageMask(torch.zeros_like(mask)), noise.real, None)


def test_what_shows_no_noise_is_refused():
    with pytest.raises(DipmedError, match="no noise at all"):
        estimate_noise(Identity((1, 8, 8)), torch.ones(1, 8, 8), None)
    blur = Blur.gaussian((1, 8, 8), (2.0, 2.0), (1.0, 1.0))
    with pytest.raises(DipmedError, match="cannot be estimated"):
        estimate_noise(blur, torch.ones(1, 8, 8), None)
