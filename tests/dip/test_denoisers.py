from itertools import product

import pytest
import torch

from dipmed.dip.denoisers import non_local_means, shifted_wavelets


def compared_one_by_one(x, strength, search, patch):
    """Non-local means of a real image by a table of all pairs of its periodic patches."""
    n = len(x)
    pixels = list(product(range(n), repeat=2))
    around = list(product(range(-patch, patch + 1), repeat=2))
    patches = torch.stack([torch.stack([x[(i + a) % n, (j + b) % n] for a, b in around]) for i, j in pixels])
    distances = torch.cdist(patches, patches).square() / len(around)
    places = torch.tensor(pixels)
    gaps = (places[:, None] - places[None]).abs()
    near = (torch.minimum(gaps, n - gaps) <= search).all(-1)
    weights = torch.exp(-distances / strength**2) * near
    return (weights @ x.flatten() / weights.sum(1)).reshape(n, n)


def test_non_local_means_is_what_its_formula_says(generator):
    x = torch.rand(16, 16, generator=generator)
    found = non_local_means(x[None, None], 0.3, 2)[0, 0]
    torch.testing.assert_close(found, compared_one_by_one(x, 0.3, search=5, patch=2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (1, 1, 12, 12, 12)])
def test_noise_falls_and_edges_stay(generator, shape):
    truth = torch.zeros(shape, dtype=torch.complex64)
    truth[:, :, : shape[2] // 2] = 1j
    noisy = truth + 0.05 * torch.randn(shape, dtype=torch.complex64, generator=generator)
    denoised = non_local_means(noisy, 0.08, len(shape) - 2)
    assert (denoised - truth).norm() < 0.5 * (noisy - truth).norm()


def test_the_phase_goes_with_the_image(generator):
    x = torch.rand(1, 1, 16, 16, generator=generator)
    turned = non_local_means(x * (0.6 + 0.8j), 0.3, 2)
    torch.testing.assert_close(turned, non_local_means(x, 0.3, 2) * (0.6 + 0.8j))


def test_shifts_of_the_wavelets_differ_and_keep_constants(generator):
    x = torch.rand(1, 1, 20, 24, generator=generator)
    first, second = (shifted_wavelets(x, 0.1, 2, generator) for _ in range(2))
    assert not torch.equal(first, second)
    assert first.shape == x.shape
    torch.testing.assert_close(shifted_wavelets(x, 0.0, 2, generator), x)
