"""Filtered back-projection of cones, on a ball whose line integrals are known."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from operators import (
    ConeBeam,
    DipmedError,
    Grid,
    ParallelBeam,
    ShapeError,
    angles_over,
    feldkamp,
    filtered_back_projection,
    posed,
)

CENTRE, RADIUS = np.array([4.0, -3.0, 5.0]), 12.0
GRID = Grid((40, 38, 36), (1.0, 1.1, 1.0), (1.0, 0.5, 1.0))
FULL = ConeBeam(angles_over(180, 2 * math.pi), 80, 90, 1.2, 1.2, 150.0, 260.0)
SHORT = replace(FULL, angles=angles_over(150, math.radians(225), 0.4))
BEAMS = {
    "flat": replace(FULL, row_offset=0.4, column_offset=-0.3),
    "curved": replace(FULL, curved=True, column_offset=0.4),
    "raised, shifted axis": replace(FULL, z_mm=(2.0,) * 180, axis_shift_mm=2.0),
    "short scan": SHORT,
    "short scan, curved": replace(SHORT, curved=True),
}
in_all_beams = pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())


def ball_integrals(beam, centre=CENTRE, radius=RADIUS):
    """Line integrals of a ball of ones, ``(1, view, row, column)``."""
    chords = []
    for view in range(beam.shape[0]):
        points, directions = beam.rays(view, *(np.arange(float(n)) for n in beam.shape[1:]))
        distance = np.linalg.norm(np.cross(centre - points, directions), axis=-1)
        chords.append(2 * np.sqrt(np.clip(radius**2 - distance**2, 0, None)))
    return torch.tensor(np.array(chords), dtype=torch.float32)[None]


def distances(grid):
    x, y, z = (grid.coordinates(axis) - CENTRE[axis] for axis in range(3))
    return np.sqrt(x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2)


@in_all_beams
def test_a_ball_comes_back_with_its_value_at_its_place(beam):
    image = feldkamp(0.02 * ball_integrals(beam), beam, GRID)[0].numpy() / 0.02
    distance = distances(GRID)
    inside, outside = image[distance < RADIUS - 2], image[distance > RADIUS + 2]
    assert inside.mean() == pytest.approx(1, abs=0.01)
    assert inside.std() < 0.02
    assert abs(outside.mean()) < 0.01
    # the centre of what is above one half is that of the ball
    places = np.argwhere(image > 0.5)
    found = [GRID.coordinates(axis)[places[:, axis]].mean() for axis in range(3)]
    assert found == pytest.approx(CENTRE, abs=0.1)


@pytest.mark.parametrize("curved", [False, True])
def test_the_plane_of_the_source_is_that_of_a_fan(curved):
    beam = replace(FULL, n_rows=81, curved=curved)
    integrals = ball_integrals(beam)
    flat = Grid((40, 38, 1), (1.0, 1.1, 1.0))
    volume = feldkamp(integrals, beam, flat, "hann")
    slice_ = filtered_back_projection(
        integrals[:, :, 40], beam.mid_plane, Grid(flat.shape[:2], flat.spacing_mm[:2]), "hann"
    )
    torch.testing.assert_close(volume[..., 0], slice_, rtol=1e-3, atol=1e-3)


@in_all_beams
def test_compiled_and_plain_code_agree_in_batches_and_parts(beam, monkeypatch):
    beam = replace(beam, angles=beam.angles[::20], z_mm=beam.z_mm[::20])
    integrals = ball_integrals(beam)
    batch = torch.stack([integrals, 2 * integrals])
    expected = feldkamp(batch, beam, GRID)
    monkeypatch.setattr("operators.fdk._SLAB", 3000)
    monkeypatch.setitem(sys.modules, "operators.fdk_numba", None)
    found = feldkamp(integrals, beam, GRID)
    torch.testing.assert_close(expected, torch.stack([found, 2 * found]), rtol=1e-3, atol=1e-3)


def test_a_limited_angle_is_named():
    beam = replace(FULL, angles=angles_over(60, 2.0))
    with pytest.warns(UserWarning, match="limited angle"):
        feldkamp(torch.zeros(1, *beam.shape), beam, Grid((4, 4, 4), (1.0, 1.0, 1.0)))


NOTHING = torch.zeros(1, *FULL.shape)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: feldkamp(NOTHING, replace(FULL, z_mm=angles_over(180)), GRID), DipmedError, "sirt, cg-tv or dip"),
        (
            lambda: feldkamp(NOTHING, replace(FULL, source_shift_mm=((1.0, 0.0, 0.0),) * 180), GRID),
            DipmedError,
            "flying focal spot",
        ),
        (lambda: feldkamp(NOTHING, posed(ParallelBeam((0.0,), 4, 1.0), 3), GRID), DipmedError, "on a circle"),
        (lambda: feldkamp(NOTHING[:, 1:], FULL, GRID), ShapeError, "projections must be real"),
        (lambda: feldkamp(NOTHING, FULL, Grid((4, 4), (1.0, 1.0))), ShapeError, "three axes"),
        (lambda: feldkamp(NOTHING, FULL, GRID, "box"), DipmedError, "box"),
    ],
)
def test_bad_input_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()
