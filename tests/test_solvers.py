"""Minimisers: the short cut in Fourier space, and what it saves."""

import math

import pytest
import torch

from dipmed import solvers
from operators import FanBeam, FilteredProjector, Grid, ParallelBeam, SliceProjector, StackedProjector, angles_over


@pytest.mark.parametrize("shape", [(12, 15), (9, 8, 10)])
def test_maps_that_do_the_same_to_all_places_are_inverted(shape):
    like = torch.zeros(1, *shape, dtype=torch.float64)
    axes = tuple(range(1, 1 + len(shape)))

    def neighbours(v):  # the sum with each neighbour, which no window cuts much of
        return sum(v.roll(step, axis) for axis in axes for step in (-1, 1)) + 2 * len(axes) * v

    x = torch.randn(like.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    near_inverse = solvers._near_inverse(torch.zeros_like, lambda v: neighbours(v) + v, like)
    torch.testing.assert_close(near_inverse(neighbours(x) + x), x)


@pytest.fixture
def few_views():
    """Eighteen views of a disc with a hole, unfiltered, and what they were taken of."""
    grid = Grid((48, 44), (1.0, 1.0))
    x, y = torch.meshgrid(*[torch.from_numpy(grid.coordinates(axis)).float() for axis in range(2)], indexing="ij")
    disc = ((x / 20) ** 2 + (y / 18) ** 2 < 1).float() - ((x - 5) ** 2 + (y + 3) ** 2 < 30).float()
    projector = SliceProjector(grid, FanBeam(angles_over(18, 2 * math.pi), 70, 1.5, 100.0, 200.0))
    return FilteredProjector(projector, exponent=0), disc[None]


def test_the_short_cut_leads_nearer_to_the_minimum_in_as_many_steps(few_views, monkeypatch):
    A, truth = few_views
    data = A.adjoint(A(truth))

    def image(**settings):
        return solvers.total_variation_image(A, data, 1e-4, coupling=4e-4, tol=0, **settings)[0]

    minimum = image(max_iter=1500, inner=8)
    short_cut = (image(max_iter=30, inner=4) - minimum).norm()
    monkeypatch.setattr(solvers, "_near_inverse", lambda *_: lambda v: v)
    assert short_cut < 0.7 * (image(max_iter=30, inner=4) - minimum).norm()


def test_slices_far_apart_have_the_total_variation_of_slices_by_themselves():
    one = SliceProjector(Grid((14, 12), (1.0, 1.0)), ParallelBeam(angles_over(8, math.pi), 20, 1.0))
    truth = torch.zeros(1, 14, 12, 3)
    truth[:, 4:9, 3:8, 1] = 1
    errors = []
    for pitch in (1.0, 1e6):
        A = StackedProjector(one, 3, pitch)
        image, _ = solvers.total_variation_image(A, A.adjoint(A(truth)), 0.1, weights=solvers.along_axes(A), tol=1e-6)
        alone = [
            solvers.total_variation_image(one, one.adjoint(one(truth[..., z])), 0.1, tol=1e-6)[0] for z in range(3)
        ]
        errors.append(float((image - torch.stack(alone, -1)).norm() / truth.norm()))
    assert errors[0] > 0.05  # of the slice in the middle, something is in its neighbours
    assert errors[1] < 1e-3
