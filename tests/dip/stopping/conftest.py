import math

import numpy as np
import pytest
import torch

from dipmed.dip.problem import make_problem
from operators import CartesianMRI, FanBeam, Grid, Identity, NonCartesianMRI, SliceProjector, angles_over, make_mask

SIZE = 40
SIGMA = 0.05


def body():
    """A body with an inlay and a hole, ``(1, 40, 40)``."""
    x, y = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    inside = ((x / 0.8) ** 2 + (y / 0.9) ** 2 < 1).float()
    inlay = ((x - 0.2).abs() < 0.2) & ((y + 0.1).abs() < 0.3)
    hole = (x + 0.3) ** 2 + (y - 0.3) ** 2 < 0.05
    return (0.6 * inside + 0.3 * inlay - 0.4 * hole)[None]


def maps():
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    centres = np.exp(2j * np.pi * np.arange(4) / 4) * 1.2
    found = np.stack([np.exp(-(np.abs(x + 1j * y - c) ** 2) / 2) for c in centres])
    return torch.from_numpy((found / np.sqrt((found**2).sum(0))).astype(np.complex64))


def cartesian():
    return CartesianMRI(maps(), make_mask("random:R=2,acs=8,seed=0", (SIZE, SIZE)))


def radial():
    """48 spokes through the centre, their samples weighted by the distance from it."""
    angles = torch.arange(48) * math.pi / 48
    along = torch.linspace(-SIZE / 2, SIZE / 2 - 1, SIZE)
    positions = (along[None, :, None] * torch.stack([angles.cos(), angles.sin()], -1)[:, None]).reshape(-1, 2)
    return NonCartesianMRI(maps(), positions, ((positions.norm(dim=1) + 0.5) / SIZE**2).float())


def projector():
    return SliceProjector(Grid((SIZE, SIZE), (1.0, 1.0)), FanBeam(angles_over(24, 2 * math.pi), 48, 2.0, 100.0, 200.0))


def ray_weights(A):
    """As of photons that are few in the middle of the detector."""
    column = torch.linspace(-1, 1, A.range.shape[-1])
    return (0.2 + 0.8 * column.abs()).expand(A.range.shape[1:]).contiguous()


def make_data(kind, seed=0, sigma=SIGMA):
    """Data of one kind with noise of a known level: ``(operator, data, ray weights)``."""
    generator = torch.Generator().manual_seed(seed)
    A = {"image": lambda: Identity((1, SIZE, SIZE)), "cartesian": cartesian, "radial": radial}.get(kind, projector)()
    truth = body().to(torch.complex64 if A.domain.is_complex else torch.float32)
    noise = sigma * A.range.randn(generator=generator)
    weights = ray_weights(A) if kind == "weighted projections" else None
    if weights is not None:
        noise = noise / weights
    if isinstance(A, NonCartesianMRI):
        noise = A.weigh(noise)
    if isinstance(A, CartesianMRI):
        noise = noise * A.mask
    return A, A(truth) + noise, weights


KINDS = ["image", "cartesian", "radial", "projections", "weighted projections"]


def make_scaled(kind, *, seed=0, sigma=SIGMA, known=True, held_out=None):
    """The scaled problem of such data, and the scaled true image."""
    A, y, weights = make_data(kind, seed, sigma)
    problem = make_problem(
        y,
        A,
        kspace_exponent=0.25,
        held_out=held_out,
        noise_variance=sigma**2 if known else None,
        needs_noise=True,
        generator=torch.Generator().manual_seed(0),
        ray_weights=weights,
    )
    truth = body().to(torch.complex64 if A.domain.is_complex else torch.float32)
    return problem, problem.scale * truth[None]


@pytest.fixture(scope="session")
def problem_of():
    return make_scaled


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param
