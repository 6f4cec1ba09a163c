import math

import pytest
import torch
from torch import nn

from operators import CartesianMRI, ParallelBeam, SliceProjector, angles_over, make_mask, norm_bound, slice_grid


class LinearNetwork(nn.Module):
    """``z + Mθ``, whose kernel is ``M Mᵀ`` and whose linear model is exact."""

    def __init__(self, shape, n_weights, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = math.prod(shape)
        mixing = torch.randn((size, n_weights), dtype=torch.float64, generator=generator) / math.sqrt(size)
        self.register_buffer("mixing", mixing)
        self.weights = nn.Parameter(torch.randn(n_weights, dtype=torch.float64, generator=generator))

    def forward(self, z):
        return z + (self.mixing @ self.weights).reshape(z.shape)


def mri(shape=(8, 6), n_coils=2):
    maps = torch.randn((n_coils, *shape), dtype=torch.complex64, generator=torch.Generator().manual_seed(1))
    maps = maps / maps.abs().square().sum(0).sqrt()
    return CartesianMRI(maps, make_mask("random:R=3,acs=2,seed=0", shape))


def ct(n=8, n_views=4):
    beam = ParallelBeam(angles_over(n_views), n + 4, 1.0)
    A = SliceProjector(slice_grid(beam, n), beam)
    return (1 / norm_bound(A)) * A


OPERATORS = {"mri": mri, "ct": ct}


@pytest.fixture(params=OPERATORS)
def operator(request):
    """Few data of a small image, complex and real."""
    return OPERATORS[request.param]()


@pytest.fixture
def linear_network():
    """Makes a network that is linear in its weights, and its input, for an operator."""

    def make(A, n_weights=None, seed=0):
        channels = 2 if A.domain.is_complex else 1
        shape = (1, channels, *A.domain.shape[1:])
        z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
        return LinearNetwork(shape, n_weights or 2 * math.prod(shape), seed), z

    return make


@pytest.fixture
def double(generator):
    """Draws from a space in double precision."""

    def draw(space, batch=()):
        dtype = torch.complex128 if space.is_complex else torch.float64
        return space.randn(batch, dtype=dtype, generator=generator)

    return draw
