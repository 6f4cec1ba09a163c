"""The way of the rays as JSON."""

import json
import math

import numpy as np
import pytest

from dipmed.io.geometry import Description, parse, to_json
from dipmed.io.projection_file import read, save_projections
from dipmed.scan import FormatError, ProjectionScan, ShapeError
from operators import ConeBeam, FanBeam, Grid, ParallelBeam, posed, volume_grid

ANGLES = (0.0, 1.1, 2.5)
CONE = ConeBeam(ANGLES, 4, 6, 1.0, 2.0, 100.0, 200.0, 0.5, -0.25, False, 1.5)
HELIX = ConeBeam(
    ANGLES, 4, 6, 1.0, 2.0, 100.0, 200.0, curved=True, z_mm=(0.0, 2.0, 4.0), source_shift_mm=((0.1, 0.2, 0.3),) * 3
)
BEAMS = {
    "parallel": ParallelBeam(ANGLES, 6, 1.0, 0.5),
    "fan": FanBeam(ANGLES, 6, 1.0, 100.0, 200.0, curved=True),
    "cone": CONE,
    "helix": HELIX,
    "posed": posed(CONE),
    "posed parallel": posed(ParallelBeam(ANGLES, 6, 1.0), 4),
}


@pytest.mark.parametrize("beam", BEAMS.values(), ids=BEAMS.keys())
def test_a_beam_comes_back_as_it_was(beam):
    assert parse(to_json(Description(beam)), "text").beam == beam


@pytest.mark.parametrize("beam", [CONE, HELIX, BEAMS["posed"]], ids=["cone", "helix", "posed"])
def test_a_scan_of_a_volume_comes_back_from_its_file(tmp_path, beam):
    values = np.random.default_rng(0).random((1, *beam.shape), np.float32) + 0.1
    grid = Grid((5, 6, 3), (1.0, 1.0, 2.0), (0.0, 0.0, 1.0))
    scan = ProjectionScan(values, beam, grid, np.diag([1.0, 1.0, 2.0, 1.0]), "test", counts=values + 1)
    save_projections(scan, tmp_path / "scan.h5")
    found = read(tmp_path / "scan.h5")
    assert (found.beam, found.grid, found.ndim, found.n_slices, found.n_views) == (beam, grid, 3, 1, 3)
    assert np.array_equal(found.projections, values)
    assert np.array_equal(found.counts, values + 1)


def test_the_volume_is_that_of_the_beam_unless_it_is_said():
    said = Grid((5, 6, 3), (1.0, 1.0, 2.0))
    assert Description(CONE).grid == volume_grid(CONE)
    assert Description(CONE, image=said).grid == said
    affine = Description(CONE).affine_for(1)
    assert np.abs(np.diag(affine)[:3]) == pytest.approx(volume_grid(CONE).spacing_mm)


def test_angles_may_be_in_degrees():
    text = {"kind": "cone", "angles_deg": [0, 90], "n_rows": 2, "n_columns": 3, "row_mm": 1, "column_mm": 1}
    text |= {"source_to_axis_mm": 10, "source_to_detector_mm": 20}
    assert parse(json.dumps({"beam": text}), "text").beam.angles == pytest.approx((0, math.pi / 2))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"z_mm": [1, 2]}, "z_mm needs one entry"),
        ({"z_mm": 3}, "list of numbers"),
        ({"source_shift_mm": [1, 2, 3]}, "list of numbers"),
        ({"source_shift_mm": [[1, 2]] * 3}, "three finite numbers"),
        ({"source_shift_mm": "near"}, "list of lists"),
        ({"n_rows": 1.5}, "whole number"),
        ({"n_rows": 2**20}, "65535"),
        ({"height": 1}, "unknown: height"),
        ({"kind": "posed"}, "unknown: angles_rad"),
        ({"kind": "pencil"}, "kind is one of parallel, fan, cone, posed"),
    ],
)
def test_what_is_impossible_is_named(changes, match):
    content = json.loads(to_json(Description(CONE)))
    content["beam"] |= changes
    with pytest.raises(FormatError, match=match):
        parse(json.dumps(content), "text")


def test_projections_must_have_the_rows_of_their_beam():
    with pytest.raises(ShapeError, match=r"\(slice, 3, 4, 6\)"):
        ProjectionScan(np.zeros((1, 3, 6), np.float32), CONE, volume_grid(CONE), np.eye(4), "test")
    with pytest.raises(ShapeError, match="does not fit the grid"):
        ProjectionScan(np.zeros((1, 3, 4, 6), np.float32), CONE, Grid((8, 8), (1.0, 1.0)), np.eye(4), "test")
    with pytest.raises(ShapeError, match="one set of projections"):
        ProjectionScan(np.zeros((2, 3, 4, 6), np.float32), CONE, volume_grid(CONE), np.eye(4), "test")
