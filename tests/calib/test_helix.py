"""Slices from a helix, against the chords of cylinders and balls."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dipmed.calib.helix import rebin_helix
from dipmed.io.geometry import Description
from dipmed.scan import DipmedError, ProjectionScan
from operators import ConeBeam, FanBeam, filtered_back_projection

X, Y, Z, RADIUS, ATTENUATION = 15.0, -10.0, 4.0, 14.0, 0.02
PITCH = 12.0  # mm a turn
N_TURN = 60


def helix(n_turns=4.0, direction=1, climb=1, **changes):
    n_views = round(n_turns * N_TURN)
    turn = np.arange(n_views) / N_TURN
    beam = ConeBeam(
        angles=tuple(0.4 + direction * 2 * math.pi * turn),
        n_rows=8,
        n_columns=64,
        row_mm=4.0,
        column_mm=3.0,
        source_to_axis_mm=200.0,
        source_to_detector_mm=400.0,
        column_offset=0.25,
        row_offset=0.3,
        axis_shift_mm=2.0,
        z_mm=tuple(climb * PITCH * (turn - n_turns / 2)),
    )
    return replace(beam, **changes)


def measure(beam, away_and_slope):
    """Line integrals ``(1, view, row, column)`` of a function of a ray's points and directions."""
    rows, columns = (np.arange(float(n)) for n in beam.shape[1:])
    return np.stack([away_and_slope(*beam.rays(view, rows, columns)) for view in range(beam.shape[0])])[None]


def cylinder(points, directions):
    """Chords of a cylinder along the axis, longer the more a ray climbs."""
    across = np.hypot(directions[..., 0], directions[..., 1])
    away = (X - points[..., 0]) * directions[..., 1] - (Y - points[..., 1]) * directions[..., 0]
    return 2 * ATTENUATION * np.sqrt(np.clip(RADIUS**2 - (away / across) ** 2, 0, None)) / across


def ball(points, directions):
    away = np.linalg.norm(np.cross(np.array([X, Y, Z]) - points, directions), axis=-1)
    return 2 * ATTENUATION * np.sqrt(np.clip(RADIUS**2 - away**2, 0, None))


def make_scan(beam, integrals, **changes):
    described = Description(beam)
    scan = ProjectionScan(
        measure(beam, integrals).astype(np.float32), beam, described.grid, described.affine_for(1), "test"
    )
    return scan.replace(**changes)


@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize(("direction", "climb"), [(1, 1), (-1, 1), (1, -1)])
def test_what_does_not_change_along_the_axis_is_exact(curved, direction, climb):
    # steep rays, whose slope matters
    beam = helix(direction=direction, climb=climb, curved=curved, row_mm=16.0)
    beam = replace(beam, z_mm=tuple(4 * z for z in beam.z_mm))
    scan = make_scan(beam, cylinder)
    scan = scan.replace(counts=np.exp(-scan.projections))
    slices = rebin_helix(scan)
    assert isinstance(slices.beam, FanBeam)
    assert slices.beam.shape == (N_TURN, 64)
    points, directions = zip(*(slices.beam.rays(view, slices.beam.columns_mm) for view in range(N_TURN)), strict=True)
    flat = [np.concatenate([part, np.zeros((N_TURN, 64, 1))], axis=-1) for part in (points, directions)]
    expected = cylinder(*flat)
    # between rows the values are interpolated
    for found in slices.projections:
        np.testing.assert_allclose(found, expected, atol=5e-4)
    np.testing.assert_allclose(slices.counts, np.exp(-slices.projections), atol=5e-3)
    # views for half a turn are needed on either side
    covered = (4 - 1 - 1 / N_TURN) * 4 * PITCH
    assert slices.n_slices == int(covered // scan.grid.spacing_mm[2]) + 1


@pytest.mark.parametrize("slice_mm", [None, 2.0])
def test_a_ball_is_where_it_was(slice_mm):
    scan = make_scan(helix(), ball)
    slices = rebin_helix(scan, slice_mm)
    stack = filtered_back_projection(torch.from_numpy(slices.projections[:, None]), slices.beam, slices.grid)
    image = np.moveaxis(stack[:, 0].numpy(), 0, -1)
    inside = np.argwhere(image > ATTENUATION / 2)
    # the affine of the volume puts the axis at the origin, along the body
    assert (slices.affine @ [*inside.mean(axis=0), 1])[:3] == pytest.approx((X, Y, Z), abs=0.4)
    volume = len(inside) * abs(np.linalg.det(slices.affine[:3, :3]))
    assert volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.06)
    if slice_mm is not None:
        assert np.linalg.norm(slices.affine[:3, 2]) == pytest.approx(2.0)


def test_wrapped_angles_are_the_same():
    scan = make_scan(helix(), cylinder)
    wrapped = scan.replace(beam=replace(scan.beam, angles=tuple(np.array(scan.beam.angles) % (2 * math.pi))))
    np.testing.assert_allclose(rebin_helix(wrapped).projections, rebin_helix(scan).projections, atol=1e-6)


def test_what_is_assumed():
    scan = make_scan(helix(), cylinder)
    assert len(rebin_helix(scan).assumptions) == 1
    flying = replace(scan.beam, source_shift_mm=((0.6, 0.0, 0.8),) * len(scan.beam.angles))
    assert "moves by up to 1.00 mm" in rebin_helix(scan.replace(beam=flying)).assumptions[-1]
    steep = make_scan(replace(helix(), z_mm=tuple(8 * z for z in helix().z_mm)), cylinder)
    assert "rays of the slices were not measured" in rebin_helix(steep).assumptions[-1]


def test_scans_that_are_no_helix():
    circle = make_scan(helix(z_mm=()), cylinder)
    with pytest.raises(DipmedError, match="on a helix"):
        rebin_helix(circle)
    with pytest.raises(DipmedError, match=r"0\.88 turns"):
        rebin_helix(make_scan(helix(0.9), cylinder))
    back_and_forth = helix()
    back_and_forth = replace(back_and_forth, z_mm=tuple(abs(z) for z in back_and_forth.z_mm))
    with pytest.raises(DipmedError, match="move one way"):
        rebin_helix(make_scan(back_and_forth, cylinder))
