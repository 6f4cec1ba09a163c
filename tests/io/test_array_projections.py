"""NumPy and TIFF files whose geometry stands in JSON beside them."""

import json
import math
import struct

import numpy as np
import pytest
from PIL import Image

from dipmed.io import load
from dipmed.io.sniff import sniff
from dipmed.io.tiff import read_tiff, tiff_files
from dipmed.scan import FormatError, GeometryError, KSpaceScan, ShapeError
from operators import ConeBeam, FanBeam, ParallelBeam, angles_over

N_VIEWS, N_ROWS, N_COLUMNS = 6, 3, 8
DEGREES = [30.0 * view for view in range(N_VIEWS)]
PARALLEL = {"kind": "parallel", "angles_deg": DEGREES, "n_columns": N_COLUMNS, "column_mm": 0.5}
FAN = {
    "kind": "fan",
    "angles_deg": [60.0 * view for view in range(N_VIEWS)],
    "n_columns": N_COLUMNS,
    "column_mm": 2.0,
    "source_to_axis_mm": 100,
    "source_to_detector_mm": 200,
}
CONE = {**FAN, "kind": "cone", "n_rows": N_ROWS, "row_mm": 2.0}


def integrals():
    """Line integrals, ``(view, row, column)``."""
    return np.random.default_rng(0).uniform(0.1, 2, (N_VIEWS, N_ROWS, N_COLUMNS)).astype(np.float32)


def save_npy(path, array):
    with path.open("wb") as file:
        np.save(file, array)


def save_tiff(path, array, **options):
    pages = [Image.fromarray(page) for page in array]
    pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:], **options)


SAVERS = {".npy": save_npy, ".tif": save_tiff}


def write(folder, ending, array, **description):
    path = folder / f"scan{ending}"
    SAVERS[ending](path, array)
    path.with_suffix(".json").write_text(json.dumps(description))
    return path


@pytest.mark.parametrize("ending", SAVERS)
def test_rows_of_parallel_rays_are_slices(tmp_path, ending):
    path = write(tmp_path, ending, integrals(), beam=PARALLEL, slice_mm=2.5, water_per_mm=0.02)
    scan = load(path)
    assert scan.source == sniff(path)
    assert scan.beam == ParallelBeam(angles_over(N_VIEWS), N_COLUMNS, 0.5)
    np.testing.assert_array_equal(scan.projections, integrals().transpose(1, 0, 2))
    assert np.linalg.norm(scan.affine[:3, 2]) == 2.5
    assert (scan.water_per_mm, scan.centre_known) == (0.02, True)
    assert "were taken as (view, row, column)" in scan.assumptions[0]


@pytest.mark.parametrize("ending", SAVERS)
def test_a_cone(tmp_path, ending):
    scan = load(write(tmp_path, ending, integrals(), beam=CONE, axes=["view", "row", "column"]))
    assert isinstance(scan.beam, ConeBeam)
    np.testing.assert_array_equal(scan.projections, integrals()[None])


def test_named_axes_are_put_in_order(tmp_path):
    stored = integrals().transpose(2, 0, 1)  # (column, view, slice)
    scan = load(write(tmp_path, ".npy", stored, beam=FAN, axes=["column", "view", "slice"], centre_known=False))
    assert isinstance(scan.beam, FanBeam)
    np.testing.assert_array_equal(scan.projections, integrals().transpose(1, 0, 2))
    assert not scan.centre_known
    assert not any("axes" in sentence for sentence in scan.assumptions)


def test_one_page_or_two_axes_are_one_slice(tmp_path):
    for ending, array in ((".npy", integrals()[:, 0]), (".tif", integrals()[:, :1].transpose(1, 0, 2))):
        scan = load(write(tmp_path, ending, array, beam=PARALLEL))
        np.testing.assert_array_equal(scan.projections[0], integrals()[:, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.int32, np.float32])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate"])
def test_counts_of_every_kind(tmp_path, dtype, compression):
    counts = np.random.default_rng(0).integers(20, 200, (N_VIEWS, N_ROWS, N_COLUMNS)).astype(dtype)
    path = tmp_path / "scan.tif"
    save_tiff(path, counts.astype(np.uint16) if dtype == ">u2" else counts, compression=compression)
    description = {"beam": PARALLEL, "values": "counts", "flat": 250, "dark": 10}
    path.with_suffix(".json").write_text(json.dumps(description))
    scan = load(path)
    expected = counts.astype(np.float64).transpose(1, 0, 2)
    np.testing.assert_allclose(scan.projections, -np.log((expected - 10) / 240), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scan.counts, expected - 10, rtol=1e-6)


def test_a_folder_of_pictures_by_their_numbers(tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    for view, page in enumerate(integrals()):
        Image.fromarray(page).save(folder / f"view{view + 8}.tif")
    (folder / "log.txt").write_text("ten follows nine")
    assert [path.name for path in tiff_files(folder)][:3] == ["view8.tif", "view9.tif", "view10.tif"]
    with pytest.raises(FormatError, match=r"scan\.json beside it has to say how their rays ran"):
        load(folder)
    (tmp_path / "scan.json").write_text(json.dumps({"beam": PARALLEL}))
    np.testing.assert_array_equal(load(folder).projections, integrals().transpose(1, 0, 2))
    Image.fromarray(integrals()[0, :2]).save(folder / "view99.tif")
    with pytest.raises(ShapeError, match="different sizes"):
        load(folder)


def test_a_sidecar_without_a_beam_describes_kspace(tmp_path):
    kspace = integrals() + 1j
    assert isinstance(load(write(tmp_path, ".npy", kspace, axes=["coil", "x", "y"])), KSpaceScan)


BROKEN = {
    "angles": ({"beam": {**PARALLEL, "angles_deg": DEGREES[:5]}}, ShapeError, "has 6 views, but there are 5 angles"),
    "columns": ({"beam": {**PARALLEL, "n_columns": 9}}, ShapeError, "has 8 columns, but there are 9 columns"),
    "NaN": ({"beam": {**PARALLEL, "angles_deg": [math.nan] * 6}}, FormatError, "finite number"),
    "one angle": ({"beam": {**PARALLEL, "angles_deg": [5.0] * 6}}, GeometryError, "all 6 views have the same angle"),
    "nothing seen": ({"beam": {**PARALLEL, "column_offset": 9.0}}, GeometryError, "no point is seen by every view"),
    "rows of a fan": ({"beam": FAN}, ShapeError, "has rows of a fan"),
    "two names": ({"beam": PARALLEL, "axes": ["view", "column"]}, ShapeError, "names view, column"),
    "slices of a cone": ({"beam": CONE, "axes": ["view", "slice", "column"]}, ShapeError, "but also has slice"),
    "no flat": ({"beam": PARALLEL, "values": "counts"}, FormatError, 'counts need a "flat"'),
    "flat": ({"beam": PARALLEL, "flat": 3.0}, FormatError, 'is for "values": "counts"'),
    "dark": ({"beam": PARALLEL, "values": "counts", "flat": 1.0, "dark": 2.0}, FormatError, "above the dark"),
    "bright": ({"beam": PARALLEL, "values": "counts", "flat": 0.05}, FormatError, "brighter than the flat"),
    "misspelled": ({"beam": PARALLEL, "slice": 2.5}, FormatError, "'slice'"),
}


@pytest.mark.parametrize("ending", SAVERS)
@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(tmp_path, ending, case):
    description, error, message = BROKEN[case]
    with pytest.raises(error, match=message):
        load(write(tmp_path, ending, integrals(), **description))


def test_pictures_that_are_no_readings(tmp_path):
    path = write(tmp_path, ".tif", integrals(), beam=PARALLEL)
    Image.new("RGB", (8, 6)).save(path)
    with pytest.raises(FormatError, match="one number for each pixel, but is RGB"):
        load(path)
    Image.new("L", (64, 64)).save(path, compression="jpeg")
    with pytest.raises(FormatError, match="packed by jpeg"):
        load(path)
    pages = [Image.fromarray(integrals()[0]), Image.fromarray(integrals()[0, :2])]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(ShapeError, match="page 2 differs"):
        load(path)


def test_a_picture_that_unpacks_to_far_more_than_it_holds(tmp_path):
    path = tmp_path / "bomb.tif"
    Image.new("L", (12000, 12000)).save(path, compression="tiff_adobe_deflate")
    assert path.stat().st_size < 2**20
    with pytest.raises(FormatError, match=r"asks for .* but only"):
        read_tiff(path)


def test_pages_that_follow_each_other_in_a_circle(tmp_path):
    path = tmp_path / "circle.tif"
    save_tiff(path, integrals(), compression="raw")
    content = bytearray(path.read_bytes())
    first = struct.unpack_from("<I", content, 4)[0]
    n_entries = struct.unpack_from("<H", content, first)[0]
    struct.pack_into("<I", content, first + 2 + 12 * n_entries, first)
    path.write_bytes(content)
    assert len(read_tiff(path)) == 1


@pytest.mark.parametrize("kept", [6, 20, 100, 300])
def test_truncated_pictures(tmp_path, kept):
    path = write(tmp_path, ".tif", integrals(), beam=PARALLEL)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(FormatError, match="truncated or damaged"):
        load(path)
