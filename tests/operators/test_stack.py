"""Slices as one volume: what each slice measures is what its own operator measures of it."""

import pytest
import torch

from operators import CartesianMRI, Grid, ParallelBeam, ShapeError, SliceProjector, Slices, StackedProjector, make_mask

MATRIX = (12, 10)


def mri(generator, n_slices):
    maps = torch.randn(n_slices, 3, *MATRIX, dtype=torch.complex64, generator=generator)
    masks = [make_mask(f"random:R=2,acs=2,seed={index}", MATRIX) for index in range(n_slices)]
    return Slices([CartesianMRI(*pair) for pair in zip(maps, masks, strict=True)])


def test_slices_of_kspace_are_measured_each_by_itself(generator):
    A = mri(generator, 4)
    x = A.domain.randn((2,), generator=generator)
    y = A(x)
    for z, (one, data) in enumerate(zip(A.operators, A.data_of(y), strict=True)):
        torch.testing.assert_close(data, one(x[..., z]))
    assert A.ndim == 3
    assert A.mask.shape == (4, *MATRIX)
    seen = torch.rand(A.mask.shape, generator=generator) < 0.5
    torch.testing.assert_close(A.with_mask(seen & A.mask)(x), y * seen)


def test_slices_of_projections_are_measured_each_by_itself(generator):
    one = SliceProjector(Grid(MATRIX, (1.0, 1.0)), ParallelBeam((0.0, 0.4, 1.3), 16, 1.0))
    A = StackedProjector(one, 5)
    x = A.domain.randn(generator=generator)
    for z, data in enumerate(A.data_of(A(x))):
        torch.testing.assert_close(data, one(x[..., z]))


def test_an_empty_stack_is_refused():
    one = SliceProjector(Grid(MATRIX, (1.0, 1.0)), ParallelBeam((0.0,), 16, 1.0))
    with pytest.raises(ShapeError, match="at least one slice"):
        StackedProjector(one, 0)


def test_slices_in_one_place_are_refused():
    one = SliceProjector(Grid(MATRIX, (1.0, 1.0)), ParallelBeam((0.0,), 16, 1.0))
    with pytest.raises(ShapeError, match=r"above zero, got 0\.0"):
        StackedProjector(one, 2, 0.0)
