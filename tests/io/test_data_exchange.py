"""Readings, flats and darks of a synchrotron: line integrals against closed forms, and a measured tooth."""

import math

import h5py
import numpy as np
import pytest
import torch

from dipmed.calib.projections import centre_rotation
from dipmed.io import load
from dipmed.recon import reconstruct
from dipmed.scan import FormatError, GeometryError, ShapeError
from dipmed.settings import ReconSettings
from operators import Grid, ParallelBeam, angles_over, filtered_back_projection

N_VIEWS, N_ROWS, N_COLUMNS = 60, 2, 96
ANGLES = np.array(angles_over(N_VIEWS))
CENTRE = 50.25  # column of the rotation axis
DISC = (9.0, -6.0, 12.0, 0.03)  # x, y, radius, attenuation: columns are 1 mm


def disc_integrals():
    """Chords through a disc, ``(view, column)``."""
    x, y, radius, attenuation = DISC
    s = np.arange(N_COLUMNS) - CENTRE
    away = s[None] - (x * np.cos(ANGLES) + y * np.sin(ANGLES))[:, None]
    return 2 * attenuation * np.sqrt(np.clip(radius**2 - away**2, 0, None))


def contents():
    """A detector of uneven gain and offset; the second row is twice as sensitive."""
    rng = np.random.default_rng(0)
    flat = rng.uniform(8000, 12000, (N_ROWS, N_COLUMNS)) * np.array([[1], [2]])
    dark = rng.uniform(80, 120, (N_ROWS, N_COLUMNS))
    readings = dark + (flat - dark) * np.exp(-disc_integrals())[:, None]
    scatter = rng.normal(0, 5, (10, 1, 1))
    scatter -= scatter.mean()
    return {
        "data": readings.astype(np.float32),
        "data_white": (flat + scatter).astype(np.float32),
        "data_dark": (dark + scatter).astype(np.float32),
        "theta": np.degrees(ANGLES),
    }


def write(path, **changes):
    with h5py.File(path, "w") as file:
        group = file.create_group("exchange")
        for name, value in {**contents(), **changes}.items():
            if value is not None:
                group[name] = value
    return path


def test_line_integrals_and_weights(tmp_path):
    scan = load(write(tmp_path / "a.h5"))
    assert scan.source == "data-exchange"
    assert scan.beam == ParallelBeam(tuple(np.radians(np.degrees(ANGLES)).tolist()), N_COLUMNS, 1.0)
    assert not scan.centre_known
    for row in range(N_ROWS):
        np.testing.assert_allclose(scan.projections[row], disc_integrals(), atol=1e-4)
    given = contents()
    dark = given["data_dark"].mean(axis=0)
    np.testing.assert_allclose(scan.counts[1], given["data"][:, 1] - dark[1], rtol=1e-3)
    assert any("size of a detector element is unknown" in sentence for sentence in scan.assumptions)
    assert any("rotation axis was put at the origin" in sentence for sentence in scan.assumptions)


def test_the_disc_is_where_it_was(tmp_path):
    scan = centre_rotation(load(write(tmp_path / "a.h5")))
    assert scan.beam.column_offset == pytest.approx((N_COLUMNS - 1) / 2 - CENTRE, abs=0.05)
    image = filtered_back_projection(torch.from_numpy(scan.projections[:1]), scan.beam, scan.grid)[0].numpy()
    x, y, radius, attenuation = DISC
    voxels = np.argwhere(image > attenuation / 2)
    where = scan.affine @ [*voxels.mean(axis=0), 0, 1]
    assert where[:2] == pytest.approx((x, y), abs=0.2)
    assert image[image > attenuation / 2].mean() == pytest.approx(attenuation, rel=0.03)
    assert len(voxels) == pytest.approx(math.pi * radius**2, rel=0.03)


def test_dead_elements_are_filled_and_have_no_weight(tmp_path):
    white = contents()["data_white"]
    white[:, 0, 40] = 0
    white[:, 1, 0] = np.nan
    scan = load(write(tmp_path / "a.h5", data_white=white))
    chords = disc_integrals()
    np.testing.assert_allclose(scan.projections[0, :, 40], (chords[:, 39] + chords[:, 41]) / 2, atol=1e-4)
    np.testing.assert_allclose(scan.projections[1, :, 0], chords[:, 1], atol=1e-4)
    assert not scan.counts[0, :, 40].any()
    assert scan.counts[0, :, 41].all()
    assert any(note.startswith("2 of 192 detector elements are dead") for note in scan.notes)


def test_rays_that_nothing_came_through(tmp_path):
    data = contents()["data"]
    data[3, 0, 48:52] = 0
    scan = load(write(tmp_path / "a.h5", data=data))
    assert not scan.counts[0, 3, 48:52].any()
    assert scan.projections[0, 3, 48] == scan.projections.max()
    assert any(note.startswith("4 rays were not seen") for note in scan.notes)


def test_readings_above_the_flat(tmp_path):
    data = contents()["data"]
    data[:, :, :24] *= 1.05
    scan = load(write(tmp_path / "a.h5", data=data))
    brighter = next(note for note in scan.notes if "brighter than the flat" in note)
    assert 25 <= float(brighter.partition("%")[0]) < 60
    assert scan.projections.min() == pytest.approx(-math.log(1.05), abs=0.01)
    with pytest.raises(FormatError, match="100% of the rays are brighter than the flat"):
        load(write(tmp_path / "b.h5", data=3 * data))


def test_what_is_assumed_when_it_is_missing(tmp_path):
    scan = load(write(tmp_path / "a.h5", theta=None, data_dark=None))
    assert scan.beam.angles == pytest.approx(angles_over(N_VIEWS))
    assert any("60 views evenly over half a turn were assumed" in sentence for sentence in scan.assumptions)
    assert any("no dark reading" in sentence for sentence in scan.assumptions)
    in_radians = load(write(tmp_path / "b.h5", theta=ANGLES))
    assert in_radians.beam.angles == pytest.approx(ANGLES)
    assert any("taken as radians" in sentence for sentence in in_radians.assumptions)


def test_limited_angle_is_stated(tmp_path):
    scan = load(write(tmp_path / "a.h5", theta=np.degrees(ANGLES) / 2))
    assert "Limited angle: no ray ran along 90 of 180 degrees" in scan.assumptions[-1]


BROKEN = {
    "no flat": ({"data_white": None}, FormatError, "has no exchange/data_white"),
    "other flat": ({"data_white": np.ones((10, 2, 95), np.float32)}, ShapeError, "frames of"),
    "other dark": ({"data_dark": np.ones((2, 1, 96), np.float32)}, ShapeError, "frames of"),
    "all dead": ({"data_white": np.zeros((1, 2, 96), np.float32)}, FormatError, "no element whose flat"),
    "angles": ({"theta": np.arange(61.0)}, ShapeError, "there are 60 views, but"),
    "NaN": ({"theta": np.full(60, np.nan)}, GeometryError, "NaN or infinite"),
    "one angle": ({"theta": np.full(60, 45.0)}, GeometryError, "same angle"),
    "two axes": ({"data": np.ones((60, 96), np.float32)}, ShapeError, r"\(view, row, column\)"),
    "dark": ({"data": np.zeros((60, 2, 96), np.float32)}, FormatError, "nothing to take a logarithm of"),
    "NaN readings": ({"data": np.full((60, 2, 96), np.nan, np.float32)}, FormatError, "must be finite"),
    "complex": ({"data": np.ones((60, 2, 96), np.complex64)}, FormatError, "real numbers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(tmp_path, case):
    changes, error, message = BROKEN[case]
    with pytest.raises(error, match=message):
        load(write(tmp_path / "a.h5", **changes))


def test_a_measured_tooth(data_dir):
    scan = load(data_dir / "ct_tooth_parallel" / "tooth.h5")
    assert scan.projections.shape == (2, 181, 640)
    found = (scan.beam.n_columns - 1) / 2 - centre_rotation(scan).beam.column_offset
    # independent of the centre of mass: about the axis the back-projection has the least below zero
    grid = Grid((160, 160), (4.0, 4.0))
    sinogram = torch.from_numpy(scan.projections[:1])

    def below_zero(column):
        beam = ParallelBeam(scan.beam.angles, 640, 1.0, 319.5 - column)
        return float(filtered_back_projection(sinogram, beam, grid, "hann").clamp(max=0).square().sum())

    columns = np.arange(found - 4, found + 4.1)
    assert columns[np.argmin([below_zero(column) for column in columns])] == pytest.approx(found, abs=1)
    assert found == pytest.approx(295, abs=2)

    image = reconstruct(scan, ReconSettings(method="fbp", slices=(0, 1), matrix=320)).volume.data[..., 0].real
    xs = np.indices(image.shape) - 159.5
    outside = np.hypot(*xs) > 120
    tooth = image > 0.004
    assert abs(image[outside].mean()) < 2e-4
    assert 0.05 < tooth.mean() < 0.2
    assert image[tooth].mean() == pytest.approx(0.0075, abs=0.0015)
    # what the views absorb is what the image absorbs
    assert image.sum() * 4 == pytest.approx(scan.projections[0].sum(axis=-1).mean(), rel=0.05)
