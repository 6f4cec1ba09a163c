import numpy as np
import pytest
import torch

from operators import CartesianMRI, make_mask


@pytest.fixture
def small_scan():
    """A 4-coil phantom of 24 x 20 pixels, twice undersampled, with a little noise: (y, A, truth, noise variance)."""
    n_x, n_y, n_coils = 24, 20, 4
    x, y = np.meshgrid(np.linspace(-1, 1, n_x), np.linspace(-1, 1, n_y), indexing="ij")
    truth = ((x / 0.8) ** 2 + (y / 0.7) ** 2 < 1) * 1.0 + ((x + 0.2) ** 2 + y**2 < 0.05) * 0.5
    centres = np.exp(2j * np.pi * np.arange(n_coils) / n_coils) * 1.2
    maps = np.stack([np.exp(-(np.abs(x + 1j * y - c) ** 2) / 2) * np.exp(1j * (x * c.real)) for c in centres])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    A = CartesianMRI(torch.from_numpy(maps.astype(np.complex64)), make_mask("random:R=2,acs=8,seed=0", (n_x, n_y)))
    image = torch.from_numpy(truth.astype(np.complex64))[None]
    sigma = 0.02
    noise = torch.randn(A.range.shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(5))
    data = (A(image) + sigma * noise) * A.mask
    return data, A, image, sigma**2
