"""Our own file of projections: what is written comes back, and what somebody changed does not pass unnoticed."""

import json
import math

import h5py
import numpy as np
import pytest

from dipmed.io import load
from dipmed.io.projection_file import save_projections
from dipmed.io.sniff import sniff
from dipmed.scan import FormatError, GeometryError, OutputError, ProjectionScan, ShapeError
from operators import FanBeam, Grid, ParallelBeam, angles_over

BEAMS = {
    "parallel": ParallelBeam(angles_over(6), 8, 1.5, column_offset=0.25),
    "fan": FanBeam(angles_over(6, 2 * math.pi), 8, 1.5, 60.0, 100.0, 0.25, curved=True, axis_shift_mm=0.5),
}


def make_scan(kind="fan", **changes):
    rng = np.random.default_rng(0)
    integrals = rng.uniform(0.1, 2, (3, 6, 8)).astype(np.float32)
    affine = np.array([[0, -1.0, 0, 5], [-1.2, 0, 0, -7], [0, 0, 2.5, 11], [0, 0, 0, 1]])
    scan = ProjectionScan(
        integrals, BEAMS[kind], Grid((5, 6), (1.2, 1.0), (0.5, 0.0)), affine, "test", np.exp(-integrals), False, 0.019
    )
    return scan.replace(**changes)


@pytest.fixture
def path(tmp_path):
    save_projections(make_scan(), tmp_path / "scan.h5")
    return tmp_path / "scan.h5"


def rewrite(path, name, value):
    with h5py.File(path, "r+") as file:
        del file[name]
        if value is not None:
            file[name] = value


def redescribe(path, **changes):
    with h5py.File(path) as file:
        content = json.loads(file["description"][()])
    for name, value in changes.items():
        part = content["beam"] if name in ("angles_rad", "column_offset") else content
        part[name] = value
    rewrite(path, "description", np.bytes_(json.dumps(content)))


@pytest.mark.parametrize("kind", BEAMS)
@pytest.mark.parametrize("changes", [{}, {"counts": None, "water_per_mm": None, "centre_known": True}])
def test_what_is_written_comes_back(tmp_path, kind, changes):
    scan = make_scan(kind, **changes)
    save_projections(scan, tmp_path / "any name")
    assert sniff(tmp_path / "any name") == "projections"
    again = load(tmp_path / "any name")
    assert again.source == "dipmed-projections"
    assert (again.beam, again.grid) == (scan.beam, scan.grid)
    assert (again.water_per_mm, again.centre_known) == (scan.water_per_mm, scan.centre_known)
    np.testing.assert_array_equal(again.projections, scan.projections)
    np.testing.assert_array_equal(again.affine, scan.affine)
    assert (again.counts is None) == (scan.counts is None)
    if scan.counts is not None:
        np.testing.assert_array_equal(again.counts, scan.counts)
    assert again.assumptions == ()


def test_an_existing_file_is_kept(path):
    with pytest.raises(OutputError, match="exists"):
        save_projections(make_scan(), path)
    save_projections(make_scan("parallel"), path, force=True)
    assert load(path).beam == BEAMS["parallel"]


def test_a_newer_version_is_refused(path):
    rewrite(path, "format", np.bytes_("dipmed projections 2"))
    with pytest.raises(FormatError, match="says 'dipmed projections 2', but this version of dipmed reads"):
        load(path)


@pytest.mark.parametrize("name", ["projections", "description"])
def test_missing_parts(path, name):
    rewrite(path, name, None)
    with pytest.raises(FormatError, match="should hold 'format', 'description' and 'projections'"):
        load(path)


def test_another_files_name_is_not_ours(path):
    rewrite(path, "format", np.bytes_("something else"))
    with pytest.raises(FormatError, match="without k-space or projections"):
        load(path)


BROKEN = {
    "shape": ("projections", np.ones((3, 5, 8), np.float32), ShapeError, "has 5 views, but there are 6 angles"),
    "columns": ("projections", np.ones((3, 6, 9), np.float32), ShapeError, "9 columns, but there are 8"),
    "axes": ("projections", np.ones((6, 8), np.float32), ShapeError, r"should be \(slice, view, column\)"),
    "complex": ("projections", np.ones((3, 6, 8), np.complex64), FormatError, "real numbers"),
    "NaN": ("projections", np.full((3, 6, 8), np.nan, np.float32), FormatError, "144 of 144 line integrals are NaN"),
    "zero": ("projections", np.zeros((3, 6, 8), np.float32), FormatError, "nothing to reconstruct"),
    "counts": ("counts", np.ones((3, 6, 7), np.float32), ShapeError, "counts must be"),
    "negative": ("counts", -np.ones((3, 6, 8), np.float32), FormatError, "not negative"),
    "no JSON": ("description", np.bytes_("{"), FormatError, "no JSON"),
    "list": ("description", np.bytes_("[]"), FormatError, "JSON object"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(path, case):
    name, value, error, message = BROKEN[case]
    rewrite(path, name, value)
    with pytest.raises(error, match=message):
        load(path)


def test_geometries_that_cannot_be(path):
    redescribe(path, angles_rad=[0.0, math.nan, 1.0, 2.0, 3.0, 4.0])
    with pytest.raises(FormatError, match="finite number"):
        load(path)
    redescribe(path, angles_rad=[1.0] * 6)
    with pytest.raises(GeometryError, match="all 6 views have the same angle"):
        load(path)
    redescribe(path, angles_rad=list(angles_over(6, 2 * math.pi)), column_offset=20.0)
    with pytest.raises(GeometryError, match="no ray passes the image"):
        load(path)


def test_repeated_angles_and_limited_angle_are_stated(path):
    redescribe(path, angles_rad=[0.0, 0.1, 0.2, 0.2, 0.3, 0.4])
    repeated, limited = load(path).assumptions
    assert repeated.startswith("Angles come twice for 1 of 6 views")
    assert limited.startswith("Limited angle: no ray ran along")


def test_an_array_that_lies_elsewhere_is_not_read(path, tmp_path):
    save_projections(make_scan(), tmp_path / "other.h5")
    rewrite(path, "projections", h5py.ExternalLink("other.h5", "/projections"))
    with pytest.raises(FormatError, match="lies in another file"):
        load(path)


def test_sizes_without_bytes_behind_them(path):
    with h5py.File(path, "r+") as file:
        del file["projections"]
        file.create_dataset("projections", shape=(2**20, 6, 2**20), dtype=np.float32, chunks=(1, 6, 1024))
    with pytest.raises(FormatError, match="asks for"):
        load(path)
