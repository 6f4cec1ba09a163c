"""Random images for pre-training: a body of ellipsoids and polytopes with soft edges, and their simulated scans."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.inputs import first_image
from dipmed.dip.problem import make_problem
from operators import (
    CartesianMRI,
    FanBeam,
    Grid,
    LinearOperator,
    ParallelBeam,
    SliceProjector,
    angles_over,
    make_mask,
)

SHAPES = (10, 60)
"""Fewest and most parts of a body."""

EDGE = 1.0
"""Width of an edge in pixels."""

COILS = 6
MOST_ACCELERATION = 6
MOST_NOISE_MRI = 0.03
MOST_NOISE_CT = 0.01
FEWEST_VIEWS, MOST_VIEWS = 20, 90
N_PROJECTORS = 16
WATER_PER_MM = 0.02


def uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw one number."""
    return low + (high - low) * float(torch.rand((), generator=generator))


def places(shape: tuple[int, ...]) -> Tensor:
    """Places of the pixels, -1 to 1 along each axis, ``(axis, x, y[, z])``."""
    return torch.stack(torch.meshgrid(*[(torch.arange(n) + 0.5) * 2 / n - 1 for n in shape], indexing="ij"))


def smooth_field(shape: tuple[int, ...], generator: torch.Generator, waves: int = 3) -> Tensor:
    """Sum a few cosines of random height, ``(x, y[, z])``, to a variance of about one."""
    field = torch.randn((waves,) * len(shape), generator=generator)
    for n in shape:  # the axis in front is replaced by the pixels, and the next one comes to the front
        cosines = torch.cos(math.pi * torch.outer(torch.arange(waves), (torch.arange(n) + 0.5) / n))
        field = torch.tensordot(field, cosines / waves**0.5, dims=([0], [0]))
    return field * 2 ** (len(shape) / 2)


def inside_shape(at: Tensor, centre: Tensor, size: float, edge: float, generator: torch.Generator) -> Tensor:
    """How much of each pixel, 0 to 1, lies in an ellipsoid or a polytope of about this ``size``."""
    ndim = len(at)
    offset = (at - centre.reshape(-1, *[1] * ndim)).flatten(1)
    if torch.rand((), generator=generator) < 0.6:
        rotation = torch.linalg.qr(torch.randn(ndim, ndim, generator=generator))[0]
        axes = size * (0.35 + 0.65 * torch.rand(ndim, generator=generator))
        depth = (1 - (rotation @ offset / axes[:, None]).norm(dim=0)) * axes.min()
    else:
        n_faces = int(torch.randint(ndim + 1, 3 * ndim + 1, (), generator=generator))
        normals = torch.nn.functional.normalize(torch.randn(n_faces, ndim, generator=generator), dim=1)
        far = size * (0.3 + 0.5 * torch.rand(n_faces, 1, generator=generator))
        # the ball keeps it closed where the faces do not
        depth = torch.minimum((far - normals @ offset).amin(0), size - offset.norm(dim=0))
    return torch.sigmoid(depth * 4 / edge).reshape(at.shape[1:])


def random_image(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A body that fills most of the field of view, full of smaller parts, ``(x, y[, z])``, 0 to about 1."""
    at, edge = places(shape), 2 * EDGE / max(shape)
    axes = torch.tensor([uniform(0.65, 0.9, generator) for _ in shape]).reshape(-1, *[1] * len(shape))
    body = torch.sigmoid((1 - (at / axes).norm(dim=0)) * 4 * 0.75 / edge)
    image = torch.full(shape, uniform(0.2, 0.7, generator))
    for _ in range(int(torch.randint(*SHAPES, (), generator=generator))):
        centre = (torch.rand(len(shape), generator=generator) * 2 - 1) * 0.75
        share = inside_shape(at, centre, 0.5 * uniform(0.06, 1, generator) ** 1.5, edge, generator)
        # some parts replace what is there, others add to it
        target = uniform(0, 1, generator)
        image = image + share * (target - (image if torch.rand((), generator=generator) < 0.5 else 0.5))
    texture = 1 + 0.1 * smooth_field(shape, generator, waves=8)
    return body * (image * texture).clamp(min=0)


def coil_maps(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Sensitivities of coils around the body, ``(coil, x, y[, z])`` with ``Σ|s|² = 1``."""
    at = places(shape)
    maps = []
    for _ in range(COILS):
        direction = torch.nn.functional.normalize(torch.randn(len(shape), generator=generator), dim=0)
        distance = (at - 1.3 * direction.reshape(-1, *[1] * len(shape))).norm(dim=0)
        slope = torch.randn(len(shape), generator=generator).reshape(-1, *[1] * len(shape))
        maps.append(torch.polar((-(distance**2) / 2).exp(), (slope * at).sum(0)))
    stacked = torch.stack(maps)
    return stacked / stacked.abs().square().sum(0).sqrt()


def mri_scan(shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, LinearOperator, Tensor]:
    """Image with a smooth phase, seen by a few coils, lines left out at random: ``(y, A, image)``."""
    image = torch.polar(random_image(shape, generator), smooth_field(shape, generator))[None]
    acceleration = uniform(2, MOST_ACCELERATION, generator)
    acs = round(shape[-1] * uniform(0.06, 0.12, generator))
    seed = int(torch.randint(2**31, (), generator=generator))
    A = CartesianMRI(
        coil_maps(shape, generator), make_mask(f"random:R={acceleration:.2f},acs={acs},seed={seed}", shape)
    )
    noise = uniform(0, MOST_NOISE_MRI, generator) * A.range.randn(generator=generator)
    return (A(image) + noise) * A.mask, A, image


@lru_cache
def projector(shape: tuple[int, ...], number: int) -> SliceProjector:
    """One of a few projectors, of views in a fan or in parallel: building one takes longer than using it."""
    generator = torch.Generator().manual_seed(number)
    n_views, n_columns = int(torch.randint(FEWEST_VIEWS, MOST_VIEWS, (), generator=generator)), round(1.5 * max(shape))
    beam: ParallelBeam | FanBeam
    if number % 2:
        beam = ParallelBeam(angles_over(n_views, math.pi), n_columns, 1.0)
    else:
        beam = FanBeam(angles_over(n_views, 2 * math.pi), n_columns, 2.0, 3.0 * max(shape), 6.0 * max(shape))
    return SliceProjector(Grid(shape, (1.0, 1.0)), beam)


def ct_scan(shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, LinearOperator, Tensor]:
    """Attenuation of a slice, seen from few sides: ``(y, A, image)``."""
    image = WATER_PER_MM * random_image(shape, generator)[None]
    A = projector(shape, int(torch.randint(N_PROJECTORS, (), generator=generator)))
    y = A(image)
    noise = uniform(0, MOST_NOISE_CT, generator) * float(y.max()) * A.range.randn(generator=generator)
    return y + noise, A, image


def make_scan(
    modality: str, shape: tuple[int, ...], generator: torch.Generator
) -> tuple[Tensor, LinearOperator, Tensor]:
    """A simulated scan of a random image: ``(y, A, image)``."""
    return (mri_scan if modality == "mri" else ct_scan)(shape, generator)


def training_pair(modality: str, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """What a fit would show its network, and what it should answer, both ``(1, x, y[, z])`` in the units of a fit."""
    y, A, image = make_scan(modality, shape, generator)
    problem = make_problem(y, A, kspace_exponent=0.0, held_out=None, noise_variance=None, generator=generator)
    name = "zero-filled" if modality == "mri" else "fbp"
    return first_image(name, problem, FitConfig(), generator), image * problem.scale
