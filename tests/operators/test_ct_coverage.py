"""Which lines are missing, against closed forms."""

import math

import pytest

from operators import ConeBeam, FanBeam, Grid, ParallelBeam, angles_over, missing_directions, posed
from operators.ct_coverage import sees


def fan(angles, n=101, **changes):
    """A fan of 2 · 20 degrees."""
    return FanBeam(angles, n, 2 * 200 * math.tan(math.radians(20)) / n, 100.0, 200.0, **changes)


@pytest.mark.parametrize("n", [3, 10, 181])
def test_half_a_turn_is_enough_for_parallel_rays(n):
    assert missing_directions(ParallelBeam(angles_over(n), 64, 1.0)) == 0


@pytest.mark.parametrize("span", [40, 90, 150])
def test_what_parallel_rays_lack(span):
    beam = ParallelBeam(angles_over(180, math.radians(span)), 64, 1.0)
    assert math.degrees(missing_directions(beam)) == pytest.approx(180 - span, abs=1)


@pytest.mark.parametrize("n", [4, 30, 720])
def test_a_full_turn_is_enough_for_a_fan(n):
    assert missing_directions(fan(angles_over(n, 2 * math.pi))) == 0


def test_a_fan_needs_half_a_turn_and_its_opening():
    assert missing_directions(fan(angles_over(440, math.radians(220)))) == 0
    # at the edge, 20 degrees from the central ray, lines miss on both sides
    half = missing_directions(fan(angles_over(360, math.pi)))
    assert math.degrees(half) == pytest.approx(20, abs=1)


def test_the_detector_may_stand_beside_the_central_ray():
    shifted = fan(angles_over(360, 2 * math.pi), column_offset=10.0, axis_shift_mm=3.0)
    assert missing_directions(shifted) == 0


def test_a_gap_inside_counts():
    angles = [angle for angle in angles_over(180) if not 1.0 < angle < 1.5]
    assert missing_directions(ParallelBeam(tuple(angles), 64, 1.0)) == pytest.approx(0.5, abs=0.03)


def test_what_the_rays_pass():
    beam = ParallelBeam(angles_over(12), 20, 1.0)
    assert sees(beam, Grid((4, 4), (1.0, 1.0), (8.0, 0.0)))
    # the diagonal of a pixel of 1 mm is 1.4 mm
    assert sees(beam, Grid((1, 1), (1.0, 1.0), (0.0, 10.1)))
    assert sees(fan((0.0,)), Grid((4, 4), (1.0, 1.0), (35.0, 0.0)))
    assert not sees(fan((0.0,)), Grid((4, 4), (1.0, 1.0), (45.0, 0.0)))
    assert not sees(ParallelBeam((0.0,), 20, 1.0), Grid((4, 4), (1.0, 1.0), (30.0, 0.0)))


@pytest.mark.parametrize(("z", "seen"), [(0.0, True), (30.0, True), (-40.0, False), (45.0, False)])
def test_a_volume_is_seen_where_a_ray_passes_its_box(z, seen):
    cone = ConeBeam((0.3,), 30, 20, 2.0, 2.0, 100.0, 200.0)  # sees 15 mm up and down at the axis
    grid = Grid((10, 10, 30), (1.0, 1.0, 1.0), (0.0, 0.0, z))
    assert sees(cone, grid) == seen
    assert sees(posed(cone), grid) == seen


def test_what_lies_behind_the_source_is_not_seen():
    grid = Grid((4, 4, 4), (1.0, 1.0, 1.0))
    cone = ConeBeam((0.0,), 3, 3, 1.0, 1.0, 50.0, 100.0)
    assert sees(cone, grid)
    assert not sees(cone, Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, -80.0, 0.0)))
    assert sees(posed(ParallelBeam((0.0,), 3, 1.0), 3), Grid((4, 4, 4), (1.0, 1.0, 1.0), (0.0, -80.0, 0.0)))
