"""Pixels as means of smaller ones, against a disc in closed form."""

import math

import pytest
import torch

from operators import (
    DipmedError,
    FanBeam,
    Grid,
    ParallelBeam,
    SliceProjector,
    StackedProjector,
    angles_over,
    block_means,
    can_be_divided,
    dot_test,
    subdivided,
    through_parts,
)

GRID = Grid((24, 20), (2.0, 2.4), (1.0, -1.0))
BEAMS = {
    "parallel": ParallelBeam(angles_over(40), 50, 2.0, 0.3),
    "fan": FanBeam(angles_over(40, 2 * math.pi), 50, 4.0, 100.0, 200.0, curved=True),
}
in_all_beams = pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())


def disc(grid, radius=17.0):
    """One where the middle of a pixel is in the disc, ``(1, x, y)``."""
    x, y = (torch.from_numpy(grid.coordinates(axis)) for axis in (0, 1))
    return ((x[:, None] ** 2 + y[None, :] ** 2) < radius**2).float()[None]


def mean_chords(beam, radius=17.0, n=64):
    """Chords through a disc about the axis, averaged over each column, ``(1, view, column)``."""
    steps = (torch.arange(n) + 0.5) / n - 0.5
    places = torch.from_numpy(beam.columns_mm)[:, None] + steps * beam.column_mm
    points, directions = beam.rays(0, places.flatten().numpy())
    distance = torch.from_numpy(points[:, 0] * directions[:, 1] - points[:, 1] * directions[:, 0])
    chords = 2 * (radius**2 - distance**2).clamp(min=0).sqrt().reshape(places.shape).mean(-1)
    return chords.float().expand(1, len(beam.angles), -1)


def test_parts_lie_within_their_pixel():
    fine = subdivided(GRID, 3)
    assert fine.shape == (72, 60)
    assert fine.spacing_mm == pytest.approx((2 / 3, 0.8))
    for axis in (0, 1):
        means = fine.coordinates(axis).reshape(-1, 3).mean(1)
        assert means == pytest.approx(GRID.coordinates(axis))


@in_all_beams
def test_one_image_in_whole_pixels_and_in_parts_has_one_sinogram(beam, generator):
    A = SliceProjector(GRID, beam, weights="strip")
    image = torch.rand(A.domain.shape, generator=generator)
    parts = image.repeat_interleave(3, 1).repeat_interleave(3, 2)
    assert torch.allclose(block_means(parts, 3, (-2, -1)), image)
    torch.testing.assert_close(through_parts(A, 3)(parts), A(image), rtol=2e-3, atol=1e-2)


@in_all_beams
def test_slices_of_a_stack_run_through_parts_of_their_own(beam, generator):
    A = SliceProjector(GRID, beam)
    stack = through_parts(StackedProjector(A, 3, pitch=2.5), 2)
    assert stack.domain.shape == (1, 48, 40, 3)
    assert stack.pitch == 2.5
    x = torch.rand(stack.domain.shape, generator=generator)
    one = through_parts(A, 2)
    for z in range(3):
        torch.testing.assert_close(stack(x)[:, :, z], one(x[..., z]))


@in_all_beams
def test_the_finer_the_parts_the_nearer_is_the_sinogram_of_a_disc(beam):
    truth = mean_chords(beam)
    A = SliceProjector(GRID, beam)
    errors = []
    for parts in (1, 2, 8):
        fine = through_parts(A, parts)
        errors.append(float((fine(disc(fine.grid)) - truth).norm() / truth.norm()))
    assert errors[2] < 0.5 * errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.01


def test_the_adjoint_through_parts_is_exact(generator):
    dot_test(through_parts(SliceProjector(GRID, BEAMS["fan"]), 2), generator=generator)


def test_large_matrices_are_seen_before_they_are_made():
    assert can_be_divided(GRID, BEAMS["fan"], 2)
    many = FanBeam(angles_over(2000, 2 * math.pi), 900, 1.0, 600.0, 1000.0)
    large = Grid((512, 512), (0.8, 0.8))
    assert not can_be_divided(large, many, 2)
    assert can_be_divided(large, many, 2, memory_gib=1e3)


def test_no_parts_are_refused():
    with pytest.raises(DipmedError, match="one part or more"):
        subdivided(GRID, 0)


@in_all_beams
def test_the_estimate_of_memory_is_near_what_is_taken(beam):
    from operators.ct_sparse import pair_gib

    fine = through_parts(SliceProjector(GRID, beam), 2)
    taken = sum(part.numel() * part.element_size() for part in fine.buffers()) / 2**30
    assert 0.5 * taken < pair_gib(fine.grid, beam, "strip") < 3 * taken
