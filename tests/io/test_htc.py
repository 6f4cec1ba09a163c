"""Structures of the Helsinki Tomography Challenge: values, and which way round the image is."""

import math
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from dipmed.ct_baselines import SIRT
from dipmed.io import load
from dipmed.io.mat5 import list_structures, read_structure
from dipmed.io.sniff import sniff
from dipmed.scan import FormatError, GeometryError, ShapeError
from operators import FanBeam, SliceProjector, filtered_back_projection, slice_grid

DISC = (9.0, -6.0, 7.0, 0.03)  # x, y, radius in mm, attenuation in 1/mm
R, D, COLUMN, N_COLUMNS = 100.0, 150.0, 0.75, 101
DEGREES = np.arange(0, 360, 3.0)


def disc_sinogram():
    """Chords of the challenge's own geometry (ASTRA's fanflat): source (R sin, -R cos), columns along (cos, sin)."""
    x, y, radius, attenuation = DISC
    angle = np.radians(DEGREES)[:, None]
    s = (np.arange(N_COLUMNS) - (N_COLUMNS - 1) / 2) * COLUMN
    source = np.stack([R * np.sin(angle), -R * np.cos(angle)])
    cell = np.stack([-(D - R) * np.sin(angle) + s * np.cos(angle), (D - R) * np.cos(angle) + s * np.sin(angle)])
    ray = cell - source
    away = ((x - source[0]) * ray[1] - (y - source[1]) * ray[0]) / np.hypot(*ray)
    return 2 * attenuation * np.sqrt(np.clip(radius**2 - away**2, 0, None))


def contents(**changes):
    parameters = {
        "distanceSourceOrigin": R,
        "distanceSourceDetector": D,
        "distanceUnit": "mm",
        "scanner": "simulated in a test, with a name of many characters",
        "angles": DEGREES,
        "pixelSizePost": COLUMN,
        "numDetectorsPost": float(N_COLUMNS),
    }
    structure = {
        "type": "2D",
        "sinogram": disc_sinogram(),
        "parameters": {**parameters, **changes.pop("parameters", {})},
    }
    structure["parameters"] = {name: value for name, value in structure["parameters"].items() if value is not None}
    return {**structure, **changes}


def write_hdf5(group, name, value):
    if isinstance(value, dict):
        inner = group.create_group(name)
        for field, entry in value.items():
            write_hdf5(inner, field, entry)
    elif isinstance(value, str):
        group[name] = np.array([[ord(character)] for character in value], np.uint16)
    else:
        group[name] = np.atleast_2d(value).T


def write(path, version, **variables):
    if version != "v7.3":
        with path.open("wb") as file:
            savemat(file, variables, do_compression=version == "v7")
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_group("#refs#")
        for name, value in variables.items():
            write_hdf5(file, name, value)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


versions = pytest.mark.parametrize("version", ["v6", "v7", "v7.3"])


@versions
@pytest.mark.parametrize("name", ["CtDataFull", "CtDataLimited", "mine"])
def test_values_and_geometry(tmp_path, version, name):
    path = write(tmp_path / "scan", version, **{name: contents(), "other": np.zeros((2, 3))})
    assert sniff(path) == "htc"
    scan = load(path)
    angles = tuple(np.radians(DEGREES).tolist())
    assert scan.beam == FanBeam(angles, N_COLUMNS, COLUMN, R, D)
    np.testing.assert_allclose(scan.projections[0], disc_sinogram(), rtol=1e-6)
    assert scan.source == "htc"


def test_the_disc_is_where_it_was_and_not_mirrored(tmp_path):
    scan = load(write(tmp_path / "scan.mat", "v7", CtDataFull=contents()))
    image = filtered_back_projection(torch.from_numpy(scan.projections), scan.beam, scan.grid)[0].numpy()
    x, y, radius, attenuation = DISC
    inside = np.argwhere(image > attenuation / 2)
    assert (scan.affine @ [*inside.mean(axis=0), 0, 1])[:2] == pytest.approx((x, y), abs=0.15)
    assert len(inside) * np.prod(scan.grid.spacing_mm) == pytest.approx(math.pi * radius**2, rel=0.03)
    assert image[image > attenuation / 2].mean() == pytest.approx(attenuation, rel=0.03)


BROKEN = {
    "no distance": ({"distanceSourceOrigin": None}, FormatError, "'distanceSourceOrigin'"),
    "no angles": ({"angles": None}, FormatError, "'angles'"),
    "NaN": ({"angles": np.full(120, np.nan)}, GeometryError, "finite angles"),
    "too few angles": ({"angles": DEGREES[:100]}, ShapeError, "has 120 views, but there are 100 angles"),
    "columns": ({"numDetectorsPost": 100.0}, ShapeError, "101 columns, but numDetectorsPost is 100"),
    "unit": ({"distanceUnit": "cm"}, GeometryError, "should be in mm, but are in 'cm'"),
    "negative": ({"pixelSizePost": -1.0}, GeometryError, "positive width"),
    "two distances": ({"distanceSourceDetector": np.array([1.0, 2.0])}, FormatError, "one finite number"),
    "a text": ({"pixelSizePost": "small"}, FormatError, "'pixelSizePost'"),
}


@versions
@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(tmp_path, version, case):
    parameters, error, message = BROKEN[case]
    path = write(tmp_path / "scan.mat", version, CtDataFull=contents(parameters=parameters))
    if (version, case) == ("v7.3", "a text"):  # characters are numbers there
        message = "one finite number"
    with pytest.raises(error, match=message):
        load(path)


@versions
def test_other_structures(tmp_path, version):
    three = contents(sinogram=np.ones((3, 120, 101)))
    with pytest.raises(ShapeError, match=r"should be \(view, column\)"):
        load(write(tmp_path / "a.mat", version, CtData=three))
    two = write(tmp_path / "b.mat", version, first=contents(), second=contents())
    with pytest.raises(FormatError, match="should hold one structure"):
        load(two)
    without = {name: value for name, value in contents().items() if name != "parameters"}
    assert sniff(write(tmp_path / "c.mat", version, CtData=without)) == "matlab"
    nothing = write(tmp_path / "d.mat", version, CtData={"sinogram": "none", "parameters": np.zeros(3)})
    with pytest.raises((FormatError, ShapeError)):
        load(nothing)


def test_structures_in_structures(tmp_path):
    deep = {
        "a": {"b": {"c": {"d": {"e": 1.0}}}},
        "text": "µ and ü",
        "numbers": np.arange(6, dtype=np.int16).reshape(2, 3),
    }
    path = write(tmp_path / "a.mat", "v7", deep=deep, array=np.zeros(3), words="text")
    structures = list_structures(path)
    assert {name: entry.fields for name, entry in structures.items()} == {"deep": ("a", "text", "numbers")}
    found = read_structure(path, structures["deep"])
    assert found["text"] == "µ and ü"
    np.testing.assert_array_equal(found["numbers"], deep["numbers"])
    assert found["a"]["b"]["c"] == {"d": None}  # deeper than anything real


def test_a_structure_cut_short(tmp_path):
    path = write(tmp_path / "a.mat", "v6", CtData=contents())
    content = path.read_bytes()
    for kept in range(200, 2000, 90):
        path.write_bytes(content[:132] + (kept - 136).to_bytes(4, "little") + content[136:kept])
        with pytest.raises(FormatError):
            load(path)


def test_a_structure_of_impossible_size(tmp_path):
    path = write(tmp_path / "a.mat", "v7", CtData=contents())
    content = path.read_bytes()
    inner = zlib.decompress(content[136:])
    packed = zlib.compress(inner[:4] + (2**31).to_bytes(4, "little") + inner[8:])
    path.write_bytes(content[:132] + len(packed).to_bytes(4, "little") + packed)
    with pytest.raises(FormatError, match="asks for"):
        load(path)


@pytest.mark.parametrize(("name", "n_views", "missing"), [("htc2022_tb_merged", 549, 19), ("tb_subsample_90", 181, 90)])
def test_measured_scans(data_dir, name, n_views, missing):
    scan = load(data_dir / "ct_htc_tb_fan" / f"{name}.mat")
    assert scan.projections.shape == (1, n_views, 560)
    assert scan.beam.source_to_axis_mm == 410.66
    assert f"Limited angle: no ray ran along {missing} of 180 degrees" in scan.assumptions[-1]


def test_the_measured_disc_fits_in_this_direction_alone(data_dir):
    scan = load(data_dir / "ct_htc_tb_fan" / "htc2022_tb_merged.mat")
    views = list(range(0, 549, 6))
    # pairs of columns, for speed
    measured = torch.from_numpy(scan.projections[:, views]).unflatten(-1, (280, 2)).mean(dim=-1)
    beam = replace(scan.beam.with_views(views), n_columns=280, column_mm=0.4)
    A = SliceProjector(slice_grid(beam, 128), beam)

    def fit(sinogram):
        image = SIRT(40)(sinogram, A).image
        return float((A(image) - sinogram).norm() / sinogram.norm()), image[0]

    right, image = fit(measured)
    wrong, _ = fit(measured.flip(-1))
    assert wrong > 1.4 * right
    # an acrylic disc of 70 mm with holes, blurred where views are missing, about 0.03 / mm at this voltage
    solid = image > 0.015
    for axis in (0, 1):
        covered = torch.nonzero(solid.any(dim=axis))
        assert float(covered.max() - covered.min() + 1) * A.grid.spacing_mm[0] == pytest.approx(70, abs=3.5)
    assert float(image[solid].median()) == pytest.approx(0.03, rel=0.1)
