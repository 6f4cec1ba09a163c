import math

import pytest
import torch

from operators import DipmedError, NonCartesianMRI, density_compensation, radial, spiral
from operators.trajectories import GOLDEN_ANGLE

MATRIX = (48, 40)


def smooth_object():
    x, y = torch.meshgrid(*[(torch.arange(n) - n // 2) / n for n in MATRIX], indexing="ij")
    return (torch.exp(-(x**2 + y**2) / 0.03) * (1 + 0.3 * torch.cos(30 * x))).to(torch.complex64)[None]


def test_spokes_run_through_the_centre_at_equal_angles():
    spokes = radial((32, 32), 8, 16)
    assert spokes.shape == (8, 16, 2)
    assert not spokes[:, 8].any()
    torch.testing.assert_close(spokes[:, 0].norm(dim=-1), torch.full((8,), 16.0, dtype=torch.float64))
    angles = torch.atan2(spokes[:, -1, 1], spokes[:, -1, 0])
    torch.testing.assert_close(angles, torch.arange(8, dtype=torch.float64) * math.pi / 8)


def test_golden_spokes_turn_by_the_golden_angle():
    spokes = radial((32, 32), 5, 16, golden=True)
    turns = torch.view_as_complex(spokes[:, -1].contiguous())
    steps = torch.angle(turns[1:] / turns[:-1])
    expected = math.remainder(GOLDEN_ANGLE, 2 * math.pi)
    torch.testing.assert_close(steps, torch.full((4,), expected, dtype=torch.float64))
    assert math.degrees(GOLDEN_ANGLE) == pytest.approx(111.246, abs=1e-3)


def test_unequal_sides_reach_their_own_edges():
    spokes = radial(MATRIX, 2, 10)
    assert spokes.abs().amax(dim=(0, 1)).tolist() == [24, 20]


def test_spiral_arms_are_one_cycle_apart():
    arms = spiral((32, 32), 4, 500)
    radius = arms.norm(dim=-1)
    assert float(radius.max()) < 16
    # along one direction the arms cross one after the other, a cycle further out each
    angle = torch.atan2(arms[..., 1], arms[..., 0])
    crossings = radius[:, 1:][(angle[:, :-1] < 0) & (angle[:, 1:] >= 0) & (angle.diff(dim=1).abs() < 1)].sort()[0]
    torch.testing.assert_close(
        crossings[2:].diff(), torch.ones(len(crossings) - 3, dtype=torch.float64), atol=0.1, rtol=0
    )


def test_a_cartesian_grid_needs_no_compensation():
    axes = [torch.arange(n) - n // 2 for n in (9, 8)]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    torch.testing.assert_close(density_compensation(grid, (9, 8)), torch.ones(72), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "trajectory",
    [radial(MATRIX, 80), radial(MATRIX, 90, golden=True), spiral(MATRIX, 12, 600)],
    ids=["radial", "golden", "spiral"],
)
def test_a_well_sampled_object_comes_back(trajectory):
    trajectory = trajectory.reshape(-1, 2)
    x = smooth_object()
    weights = density_compensation(trajectory, MATRIX)
    A = NonCartesianMRI(torch.ones(1, *MATRIX, dtype=torch.complex64), trajectory, weights)
    assert float((A.N(x) - x).norm() / x.norm()) < 0.02
    plain = NonCartesianMRI(A.maps, trajectory).N(x)
    plain = plain * (x.norm() / plain.norm())
    assert float((plain - x).norm() / x.norm()) > 0.1


@pytest.mark.parametrize("call", [lambda: radial(MATRIX, 0), lambda: spiral(MATRIX, 3, 10, exponent=math.nan)])
def test_impossible_numbers_are_refused(call):
    with pytest.raises(DipmedError, match="positive number"):
        call()
