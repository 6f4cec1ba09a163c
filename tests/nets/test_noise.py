import math

import pytest
import torch

from dipmed.nets import low_pass_noise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", [(2, 3, 15, 8), (1, 2, 9, 6, 7)])
def test_without_blur_it_is_the_noise(shape):
    torch.testing.assert_close(low_pass_noise(shape, 0.0, seeded()), torch.rand(shape, generator=seeded()))


def test_same_seed_same_noise_and_nothing_else_is_drawn():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, again, other = (low_pass_noise((1, 2, 9, 8), 1.0, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_blur_is_a_gaussian_of_the_given_width():
    white, blurred = (low_pass_noise((1, 1, 64, 48), sigma, seeded()) for sigma in (0.0, 1.5))
    gain = torch.fft.fft2(blurred) / torch.fft.fft2(white)
    x, y = torch.meshgrid(torch.fft.fftfreq(64), torch.fft.fftfreq(48), indexing="ij")
    expected = torch.exp(-2 * (math.pi * 1.5) ** 2 * (x**2 + y**2))
    torch.testing.assert_close(gain.real[0, 0], expected, atol=1e-4, rtol=0)


def test_channels_are_not_blurred_into_each_other_and_keep_their_means():
    white, blurred = (low_pass_noise((2, 3, 12, 10), sigma, seeded()) for sigma in (0.0, 2.0))
    torch.testing.assert_close(blurred.mean((2, 3)), white.mean((2, 3)))
    assert blurred.std((2, 3)).max() < 0.3 * white.std((2, 3)).min()
    assert white.mean((2, 3)).std() > 0
