"""Fits to images themselves: noise taken away, holes filled, slices made thinner."""

import pytest
import torch

from dipmed.config import NetworkConfig, find_preset
from dipmed.dip import DeepImagePrior
from dipmed.scan import DipmedError
from operators import Blur, Identity, ImageMask, SliceProfile, add_noise

SMALL = find_preset("image-2d").replace(
    network=NetworkConfig(channels=(16, 16), skip_channels=8), stop="held-out", iterations=100
)


@pytest.fixture(scope="module")
def truth():
    """A body with an inlay and a hole, ``(1, 48, 40)``."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 40), indexing="ij")
    body = ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1).float()
    inlay = ((x - 0.2).abs() < 0.2) & ((y + 0.1).abs() < 0.3)
    hole = (x + 0.3) ** 2 + (y - 0.3) ** 2 < 0.05
    return (0.6 * body + 0.3 * inlay - 0.4 * hole)[None]


def with_noise(y, sigma):
    return add_noise(y, sigma, torch.Generator().manual_seed(0))


def test_noise_is_taken_away(truth):
    noisy = with_noise(truth, 0.15)
    result = DeepImagePrior(SMALL)(noisy, Identity(truth.shape))
    assert result.image.shape == truth.shape
    assert float((result.image - truth).norm()) < 0.75 * float((noisy - truth).norm())


def test_holes_are_filled(truth):
    mask = torch.rand(truth.shape[1:], generator=torch.Generator().manual_seed(1)) < 0.5
    A = ImageMask(mask)
    result = DeepImagePrior(SMALL)(A(with_noise(truth, 0.02)), A)
    hidden = (result.image - truth)[:, ~mask]
    assert result.stop.rule == "held-out"
    assert float(hidden.norm()) < 0.3 * float(truth[:, ~mask].norm())


def test_slices_are_made_thinner(truth):
    A = SliceProfile(truth.shape, 4.0)
    thick = with_noise(A(truth), 0.01)
    result = DeepImagePrior(SMALL.replace(stop="budget"))(thick, A)
    repeated = thick.repeat_interleave(4, dim=-1)
    assert float((result.image - truth).norm()) < 0.9 * float((repeated - truth).norm())
    # in the units of the data, though the operator's norm is a half
    assert float(result.image.mean()) == pytest.approx(float(truth.mean()), rel=0.03)


def test_what_cannot_be_taken_apart_names_another_rule(truth):
    A = Blur.gaussian(truth.shape, (3.0, 3.0), (1.0, 1.0))
    with pytest.raises(DipmedError, match="another rule with --stop"):
        DeepImagePrior(SMALL)(A(truth), A)
