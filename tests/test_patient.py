"""Geometry is tested by where a marked voxel lands in the patient, in mm, not by the numbers in a matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipmed.patient import (
    MrdGeometry,
    affine_from_mrd,
    affine_in_gantry,
    check_directions,
    default_affine,
    directions_from_quaternion,
    lps_to_ras,
    mrd_from_affine,
    plane_affine,
    siemens_image_axes,
    stack_slices,
)
from dipmed.scan import GeometryError

LEFT, BACK, HEAD = np.eye(3)  # unit vectors in LPS
SHAPE = (8, 6, 4)
VOXEL = (2.0, 3.0, 5.0)


def place(affine: np.ndarray, *voxel: float) -> np.ndarray:
    return affine[:3, :3] @ np.array(voxel, dtype=float) + affine[:3, 3]


def geometry(read, phase, slice_, position=(10.0, 20.0, 30.0)) -> MrdGeometry:
    return MrdGeometry(np.array(position), np.array(read), np.array(phase), np.array(slice_), VOXEL)


# position (10, 20, 30) LPS is 10 mm left, 20 mm back, 30 mm up: RAS (-10, -20, 30)
PLANES = {
    "axial": ((LEFT, BACK, HEAD), [(-2, 0, 0), (0, -3, 0), (0, 0, 5)]),
    "sagittal": ((BACK, -HEAD, -LEFT), [(0, -2, 0), (0, 0, -3), (5, 0, 0)]),
    "coronal": ((LEFT, -HEAD, BACK), [(-2, 0, 0), (0, 0, -3), (0, -5, 0)]),
    "mirrored": ((-LEFT, BACK, HEAD), [(2, 0, 0), (0, -3, 0), (0, 0, 5)]),
}


@pytest.mark.parametrize("plane", PLANES)
def test_a_marked_voxel_lands_where_the_header_says(plane):
    directions, steps = PLANES[plane]
    affine = affine_from_mrd(geometry(*directions), SHAPE)
    centre = np.array([-10.0, -20.0, 30.0])
    np.testing.assert_allclose(place(affine, 4, 3, 2), centre)
    for axis, step in enumerate(steps):
        voxel = np.array([4, 3, 2])
        voxel[axis] += 1
        np.testing.assert_allclose(place(affine, *voxel), centre + step, err_msg=f"{plane}, axis {axis}")


def test_an_oblique_voxel_lands_on_the_tilted_plane():
    angle = np.deg2rad(30)  # axial slice tilted about the left-right axis, its back edge towards the head
    phase = np.cos(angle) * BACK + np.sin(angle) * HEAD
    normal = -np.sin(angle) * BACK + np.cos(angle) * HEAD
    affine = affine_from_mrd(geometry(LEFT, phase, normal, (0, 0, 0)), SHAPE)
    moved = place(affine, 4, 3 + 2, 2)
    np.testing.assert_allclose(moved, [0, -6 * np.cos(angle), 6 * np.sin(angle)], atol=1e-12)
    np.testing.assert_allclose(place(affine, 4, 3, 3), [0, 5 * np.sin(angle), 5 * np.cos(angle)], atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 6, 4), (7, 5, 3), (1, 1, 1)])
def test_the_default_place_has_the_fourier_centre_at_the_origin(shape):
    affine = default_affine(VOXEL, shape)
    np.testing.assert_allclose(place(affine, *(n // 2 for n in shape)), 0)
    np.testing.assert_allclose(np.diag(affine), [2, 3, 5, 1])


def test_lps_to_ras_is_its_own_inverse():
    np.testing.assert_array_equal(lps_to_ras([1, 2, 3]), [-1, -2, 3])
    np.testing.assert_array_equal(lps_to_ras(lps_to_ras([[1, 2, 3]])), [[1, 2, 3]])


def test_slices_are_ordered_along_the_normal_whatever_their_order_in_the_file():
    heights = [10.0, 0.0, 15.0, 5.0]
    stack = stack_slices([[0, 0, h] for h in heights], (LEFT, BACK, HEAD), VOXEL, (8, 6))
    assert stack.order == (1, 3, 0, 2)
    assert stack.misfit_mm == pytest.approx(0)
    for k, height in enumerate(sorted(heights)):
        np.testing.assert_allclose(place(stack.affine, 4, 3, k), [0, 0, height], atol=1e-12)


def test_the_spacing_of_slices_is_their_distance_and_not_their_thickness():
    stack = stack_slices([[0, 0, 0], [0, 0, 9]], (LEFT, BACK, HEAD), VOXEL, (8, 6))
    np.testing.assert_allclose(np.linalg.norm(stack.affine[:3, 2]), 9)
    single = stack_slices([[0, 0, 0]], (LEFT, BACK, HEAD), VOXEL, (8, 6))
    np.testing.assert_allclose(np.linalg.norm(single.affine[:3, 2]), 5)


def test_unequal_spacing_is_measured():
    stack = stack_slices([[0, 0, 0], [0, 0, 4], [0, 0, 12]], (LEFT, BACK, HEAD), VOXEL, (8, 6))
    assert stack.misfit_mm == pytest.approx(2)


def test_slices_shifted_in_their_plane_give_a_slanted_stack():
    stack = stack_slices([[0, 0, 0], [1, 0, 5]], (LEFT, BACK, HEAD), VOXEL, (8, 6))
    np.testing.assert_allclose(place(stack.affine, 4, 3, 1), [-1, 0, 5], atol=1e-12)
    assert stack.misfit_mm == pytest.approx(0)


def test_one_slice_of_a_slanted_stack_is_upright():
    stack = stack_slices([[0, 0, 0], [1, 2, 5]], (LEFT, BACK, HEAD), VOXEL, (8, 6))
    plane = plane_affine(stack.affine)
    np.testing.assert_allclose(place(plane, 4, 3, 0), place(stack.affine, 4, 3, 0))
    np.testing.assert_allclose(place(plane, 4, 3, 1) - place(plane, 4, 3, 0), [0, 0, 5], atol=1e-12)


def test_an_affine_without_volume_has_no_plane():
    with pytest.raises(GeometryError, match="volume"):
        plane_affine(np.diag([1.0, 0.0, 1.0, 1.0]))


def test_slices_at_one_place_are_refused():
    with pytest.raises(GeometryError, match="same place"):
        stack_slices(np.zeros((3, 3)), (LEFT, BACK, HEAD), VOXEL, (8, 6))


def test_a_quaternion_of_a_quarter_turn_about_the_head_axis():
    # phase to the back, read to the right: an axial scan with phase encoding from front to back
    read, phase, normal = directions_from_quaternion([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    np.testing.assert_allclose(read, -LEFT, atol=1e-12)
    np.testing.assert_allclose(phase, BACK, atol=1e-12)
    np.testing.assert_allclose(normal, HEAD, atol=1e-12)


def test_the_image_of_a_siemens_scan_runs_against_its_encoding_directions():
    directions = directions_from_quaternion([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    x, y, z = siemens_image_axes(directions, three_d=False)
    np.testing.assert_allclose([x, y, z], [LEFT, -BACK, HEAD], atol=1e-12)
    np.testing.assert_allclose(siemens_image_axes(directions, three_d=True)[2], -HEAD, atol=1e-12)


unit_quaternions = st.tuples(*[st.floats(-1, 1, allow_nan=False)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(unit_quaternions, st.tuples(*[st.floats(-500, 500)] * 3), st.tuples(*[st.integers(1, 9)] * 3))
def test_mrd_and_affine_say_the_same(quaternion, position, shape):
    quaternion = np.array(quaternion) / np.linalg.norm(quaternion)
    directions = directions_from_quaternion(quaternion)
    check_directions(*directions)
    affine = affine_from_mrd(MrdGeometry(np.array(position), *directions, VOXEL), shape)
    back = mrd_from_affine(affine, shape)
    np.testing.assert_allclose(back.position, position, atol=1e-9)
    np.testing.assert_allclose(back.voxel_mm, VOXEL)
    np.testing.assert_allclose([back.read_dir, back.phase_dir, back.slice_dir], directions, atol=1e-9)


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        ((LEFT, LEFT, HEAD), "perpendicular"),
        ((2 * LEFT, BACK, HEAD), "unit"),
        ((np.zeros(3), np.zeros(3), np.zeros(3)), "unit"),
        ((np.array([np.nan, 0, 0]), BACK, HEAD), "finite"),
    ],
)
def test_impossible_directions_are_refused(directions, message):
    with pytest.raises(GeometryError, match=message):
        affine_from_mrd(geometry(*directions), SHAPE)


@pytest.mark.parametrize("voxel", [(0, 1, 1), (1, -1, 1), (1, np.inf, 1), (1, 1)])
def test_impossible_voxels_are_refused(voxel):
    with pytest.raises(GeometryError, match="positive"):
        default_affine(voxel, SHAPE)


def test_a_sheared_affine_has_no_place_in_mrd():
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    with pytest.raises(GeometryError, match="perpendicular"):
        mrd_from_affine(sheared, SHAPE)


def test_a_quaternion_that_is_no_rotation_is_refused():
    with pytest.raises(GeometryError, match="unit quaternion"):
        directions_from_quaternion([0, 0, 0, 0])


@pytest.mark.parametrize("way", ["HF", "FF"])
@pytest.mark.parametrize(("lies_on", "side"), [("S", "P"), ("P", "A"), ("DL", "L"), ("DR", "R")])
def test_voxels_in_a_gantry(way, lies_on, side):
    # down is the side that the patient lies on, and the head or the feet go in first
    lps = {"P": (0, 1, 0), "A": (0, -1, 0), "L": (1, 0, 0), "R": (-1, 0, 0), "HF": (0, 0, 1), "FF": (0, 0, -1)}
    down, inwards = np.array(lps[side]), np.array(lps[way])
    right = np.cross(down, inwards)
    affine = affine_in_gantry(way + lies_on, (1.0, 2.0, 3.0), (10.0, 20.0, 30.0))
    voxel = np.array([4, 5, 6])
    expected = (10 + 4) * right + (20 + 2 * 5) * down + (30 + 3 * 6) * inwards
    assert (affine @ [*voxel, 1])[:3] == pytest.approx(lps_to_ras(expected))


def test_an_unknown_position_in_a_gantry():
    with pytest.raises(GeometryError, match="'XYZ' is unknown; expected one of HFS"):
        affine_in_gantry("XYZ", (1, 1, 1), (0, 0, 0))
