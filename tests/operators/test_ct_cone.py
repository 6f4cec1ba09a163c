"""Geometry of cone beams and posed beams: where sources and cells stand, and what is in view."""

import math
from dataclasses import replace

import numpy as np
import pytest

from operators import (
    ConeBeam,
    DipmedError,
    FanBeam,
    ParallelBeam,
    PosedBeam,
    ShapeError,
    angles_over,
    field_of_view_mm,
    posed,
    slice_grid,
    volume_grid,
    volume_of_view_mm,
)

CONE = ConeBeam(
    (0.0, math.pi / 2, 2.0),
    n_rows=5,
    n_columns=8,
    row_mm=3.0,
    column_mm=2.0,
    source_to_axis_mm=100.0,
    source_to_detector_mm=150.0,
    row_offset=0.5,
    column_offset=-1.0,
    axis_shift_mm=4.0,
    z_mm=(0.0, 10.0, 20.0),
)
ALL = np.arange(5.0), np.arange(8.0)


def test_source_and_cells_stand_where_the_drawing_shows_them():
    assert CONE.shape == (3, 5, 8)
    # at 0 the columns run along x and the rays along y
    np.testing.assert_allclose(CONE.source(0), (4, -100, 0), atol=1e-12)
    np.testing.assert_allclose(CONE.cells(0, np.array([2.0]), np.array([3.5]))[0, 0], (4 - 2.0, 50, 1.5), atol=1e-12)
    # a quarter turn later the columns run along y and the rays along -x
    np.testing.assert_allclose(CONE.source(1), (100, 4, 10), atol=1e-12)
    np.testing.assert_allclose(CONE.cells(1, np.array([3.0]), np.array([4.5]))[0, 0], (-50, 4, 14.5), atol=1e-12)


def test_a_curved_detector_is_at_one_distance_from_the_nominal_source():
    curved = replace(CONE, curved=True, source_shift_mm=((1.0, 2.0, 3.0),) * 3)
    cells = curved.cells(2, *ALL)
    nominal = replace(curved, source_shift_mm=()).source(2)
    distance = np.hypot(*np.moveaxis(cells - nominal, -1, 0)[:2])
    np.testing.assert_allclose(distance, 150)
    steps = np.diff(cells[0], axis=0)
    np.testing.assert_allclose(2 * 150 * np.arcsin(np.linalg.norm(steps, axis=1) / 300), 2.0)
    np.testing.assert_allclose(np.diff(cells, axis=0), np.broadcast_to((0, 0, 3.0), (4, 8, 3)), atol=1e-12)


def test_the_focal_spot_moves_in_the_axes_of_its_view():
    flying = replace(CONE, source_shift_mm=((1.0, 2.0, 3.0),) * 3)
    np.testing.assert_allclose(flying.source(1) - CONE.source(1), (-2, 1, 3), atol=1e-12)
    np.testing.assert_array_equal(flying.cells(1, *ALL), CONE.cells(1, *ALL))
    assert not flying.is_circular
    assert replace(CONE, z_mm=()).is_circular
    assert not CONE.is_circular


def test_a_cone_of_one_row_is_a_fan():
    for curved in (False, True):
        cone = replace(CONE, n_rows=1, row_offset=0.0, z_mm=(), curved=curved)
        fan = cone.mid_plane
        assert isinstance(fan, FanBeam)
        for view in range(3):
            points, directions = cone.rays(view, np.zeros(1), ALL[1])
            fan_points, fan_directions = fan.rays(view, fan.columns_mm)
            np.testing.assert_allclose(points[0, :, :2], fan_points, atol=1e-12)
            np.testing.assert_allclose(directions[0, :, :2], fan_directions, atol=1e-12)
            assert not directions[..., 2].any()


def test_poses_describe_the_same_rays():
    poses = posed(CONE)
    assert poses.shape == CONE.shape
    for view in range(3):
        np.testing.assert_allclose(poses.source(view), CONE.source(view))
        np.testing.assert_allclose(poses.cells(view, *ALL), CONE.cells(view, *ALL), atol=1e-9)
    few = poses.with_views([2, 0])
    np.testing.assert_array_equal(few.cells(0, *ALL), poses.cells(2, *ALL))
    with pytest.raises(DipmedError, match="not flat"):
        posed(replace(CONE, curved=True))


def test_parallel_rows_lie_upon_each_other():
    beam = ParallelBeam((0.3, 1.0), 8, 2.0, 0.5)
    stack = posed(beam, 3, 4.0)
    assert stack.shape == (2, 3, 8)
    points, directions = stack.rays(1, np.arange(3.0), ALL[1])
    flat_points, flat_directions = beam.rays(1, beam.columns_mm)
    np.testing.assert_allclose(points[..., :2], np.broadcast_to(flat_points, (3, 8, 2)))
    np.testing.assert_allclose(points[..., 2], np.array([[-4.0], [0], [4]]) * np.ones(8))
    np.testing.assert_allclose(directions[0, :, :2], flat_directions)


def test_views_are_kept_with_their_heights_and_shifts():
    flying = replace(CONE, source_shift_mm=((1.0, 0, 0), (2.0, 0, 0), (3.0, 0, 0)))
    few = flying.with_views([2, 0])
    assert (few.angles, few.z_mm) == ((2.0, 0.0), (20.0, 0.0))
    assert few.source_shift_mm == ((3.0, 0, 0), (1.0, 0, 0))
    np.testing.assert_array_equal(few.source(0), flying.source(2))


@pytest.mark.parametrize("curved", [False, True])
def test_the_view_of_a_cone_is_that_of_its_fan(curved):
    cone = ConeBeam(angles_over(12, 2 * math.pi), 40, 60, 1.5, 2.0, 200, 300, 1.0, 2.0, curved, 3.0)
    radius, low, high = volume_of_view_mm(cone)
    # the height at the axis is that of the middle column, which the shift and the offset move
    assert radius == pytest.approx(field_of_view_mm(cone.mid_plane), rel=1e-9)
    assert (low, high) == pytest.approx((-28.5 / 1.5, 31.5 / 1.5), rel=2e-3)
    grid, fan_grid = volume_grid(cone), slice_grid(cone.mid_plane)
    assert grid.shape[:2] == fan_grid.shape
    assert grid.shape[2] == 40
    assert grid.spacing_mm[2] == pytest.approx(1.0, rel=1e-2)
    assert grid.centre_mm[2] == pytest.approx((low + high) / 2)
    half = volume_grid(cone, grid.shape[0] // 2)
    assert half.shape[2] == 20


def test_a_helix_is_seen_from_its_lowest_to_its_highest_view():
    _, low, high = volume_of_view_mm(CONE)
    assert (low, high) == pytest.approx((-4.0, 26.0), rel=1e-2)


ONE = ((0.0, 0.0, 1.0),)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: replace(CONE, angles=()), DipmedError, "one or more finite angles"),
        (lambda: replace(CONE, n_rows=0), DipmedError, "rows of positive height"),
        (lambda: replace(CONE, row_mm=math.nan), DipmedError, "rows of positive height"),
        (lambda: replace(CONE, row_offset=math.inf), DipmedError, "offset of the rows"),
        (lambda: replace(CONE, column_mm=-1.0), DipmedError, "positive width"),
        (lambda: replace(CONE, source_to_axis_mm=0.0), DipmedError, "distances"),
        (lambda: replace(CONE, z_mm=(0.0, 1.0)), DipmedError, "z_mm needs one entry for each of 3 views"),
        (lambda: replace(CONE, source_shift_mm=((0.0, 0.0, 0.0),)), DipmedError, "source_shift_mm needs one entry"),
        (lambda: replace(CONE, source_shift_mm=((0.0, 0.0),) * 3), ShapeError, "three finite numbers"),
        (lambda: replace(CONE, n_columns=4000, curved=True), DipmedError, "around the source"),
        (lambda: PosedBeam((), (), (), (), 2, 2), DipmedError, "one entry for each view"),
        (lambda: PosedBeam(ONE * 2, ONE, ONE, ONE, 2, 2), DipmedError, "one entry for each view"),
        (lambda: PosedBeam(ONE, ((0, 0, 9),), ONE, ((1, 0, 0),), 2, 2), DipmedError, "seen from its edge"),
        (lambda: PosedBeam(ONE, ((0, 0, 9),), ((0, 1, 0),), ((1, 0, 0),), 0, 2), DipmedError, "rows and columns"),
        (lambda: PosedBeam(ONE, ONE, ((0, 1, 0),), ((1, 0, math.nan),), 2, 2), ShapeError, "three finite numbers"),
        (lambda: volume_grid(replace(CONE, column_offset=50.0)), DipmedError, "no point"),
        (
            lambda: volume_grid(PosedBeam(ONE, ONE, ((0, 1, 0),), ((1, 0, 0),), 2, 2, parallel=True)),
            DipmedError,
            "along the rotation axis",
        ),
    ],
)
def test_bad_input_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
