"""Projections from files of other programs through the command line: images, what was assumed, and one clear line."""

import json
import math

import h5py
import numpy as np
import pytest
from PIL import Image

from dipmed.io import load_image

X, Y, RADIUS, ATTENUATION = 6.0, -9.0, 8.0, 0.02  # of a disc, in mm and 1/mm
N_COLUMNS, COLUMN_MM, AXIS, DISTANCE = 96, 1.0, 100.0, 150.0


def fan_sinogram(degrees):
    """Chords through the disc of a flat fan, ``(view, column)``."""
    angle = np.radians(degrees)[:, None]
    s = (np.arange(N_COLUMNS) - (N_COLUMNS - 1) / 2) * COLUMN_MM
    across, along = X * np.cos(angle) + Y * np.sin(angle), -X * np.sin(angle) + Y * np.cos(angle)
    gamma = np.arctan(s / DISTANCE)[None]
    away = across * np.cos(gamma) - (along + AXIS) * np.sin(gamma)
    return (2 * ATTENUATION * np.sqrt(np.clip(RADIUS**2 - away**2, 0, None))).astype(np.float32)


def describe(degrees, **changes):
    beam = {
        "kind": "fan",
        "angles_deg": list(degrees),
        "n_columns": N_COLUMNS,
        "column_mm": COLUMN_MM,
        "source_to_axis_mm": AXIS,
        "source_to_detector_mm": DISTANCE,
    }
    return {"beam": {**beam, **changes.pop("beam", {})}, **changes}


def write(path, array, description):
    with path.open("wb") as file:
        np.save(file, array)
    path.with_suffix(".json").write_text(json.dumps(description))
    return path


FULL = np.arange(0, 360, 4.0)


def test_counts_in_pictures_become_an_image_in_its_place(run_cli, tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    counts = np.round(100 + 40000 * np.exp(-fan_sinogram(FULL))).astype(np.uint16)
    for view, row in enumerate(counts):
        Image.fromarray(row[None]).save(folder / f"{view}.tif")
    description = describe(FULL, values="counts", flat=40100, dark=100, axes=["view", "slice", "column"], slice_mm=3.0)
    (tmp_path / "scan.json").write_text(json.dumps(description))
    done = run_cli("recon", folder, "-o", tmp_path / "a.nii.gz", "--method", "fbp")
    assert done.code == 0, done.err
    assert "rotation axis was put at the origin" in " ".join(done.err.split())
    image = load_image(tmp_path / "a.nii.gz")
    inside = np.argwhere(image.data > ATTENUATION / 2)
    assert (image.affine @ [*inside.mean(axis=0), 1])[:2] == pytest.approx((X, Y), abs=0.2)
    assert image.data[tuple(inside.T)].mean() == pytest.approx(ATTENUATION, rel=0.05)


def test_a_scan_of_few_photons_says_what_its_noise_has_raised(run_cli, tmp_path):
    photons = np.random.default_rng(0).poisson(200 * np.exp(-fan_sinogram(FULL[::6])))
    sinogram = -np.log(photons / 200).astype(np.float32)
    path = write(tmp_path / "scan.npy", sinogram, describe(FULL[::6], axes=["view", "column"]))
    common = ("--iterations", 4, "--matrix", 32)
    for number, (options, raised) in enumerate(
        (((), {"tv_weight", "variation_weight"}), (("--set", "tv_weight=0.002"), set()))
    ):
        record = tmp_path / f"{number}.json"
        done = run_cli("recon", path, "-o", tmp_path / f"{number}.npz", "--json", record, *common, *options)
        assert done.code == 0, done.err
        told = json.loads(record.read_text())
        assert set(told["images"][0]["raised_weights"]) == raised
        assert ("meet least of the object" in " ".join(done.err.split())) is bool(raised)
        assert told["config"]["follow_noise"] is bool(raised)


def test_a_fit_weights_rays_by_their_photons_when_asked(run_cli, tmp_path):
    sinogram = fan_sinogram(FULL[::6])
    path = write(tmp_path / "scan.npy", sinogram, describe(FULL[::6], axes=["view", "column"]))
    images = []
    for option in ([], ["--poisson"]):
        record = tmp_path / f"{len(option)}.json"
        out = tmp_path / f"{len(option)}.npz"
        done = run_cli("recon", path, "-o", out, "--iterations", 4, "--matrix", 32, "--json", record, *option)
        assert done.code == 0, done.err
        assert json.loads(record.read_text())["poisson"] is bool(option)
        assert ("photons each ray had is unknown" in " ".join(done.err.split())) is bool(option)
        images.append(load_image(out).data)
    assert not np.array_equal(*images)


def test_limited_angle_is_told_by_every_command(run_cli, tmp_path):
    degrees = np.arange(0, 90, 2.0)
    scan = write(tmp_path / "a.npy", fan_sinogram(degrees), describe(degrees))
    record = tmp_path / "r.json"
    shown = run_cli("info", scan)
    assert "Limited angle: no ray ran along" in " ".join(shown.out.split())
    done = run_cli("recon", scan, "-o", tmp_path / "a.npz", "--method", "fbp", "--json", record)
    assert done.code == 0, done.err
    assert "Limited angle: no ray ran along" in " ".join(done.err.split())
    assert any("Limited angle" in sentence for sentence in json.loads(record.read_text())["assumptions"])


def broken(**changes):
    return lambda folder: write(folder / "a.npy", fan_sinogram(FULL), describe(FULL, **changes))


def angles(values):
    return broken(beam={"angles_deg": list(values)})


def nothing_is_seen(folder):
    return write(
        folder / "a.npy",
        fan_sinogram(FULL),
        describe(
            FULL,
            image={"shape": [8, 8], "spacing_mm": [1, 1], "centre_mm": [90, 0]},
            beam={"angles_deg": [0.001 * view for view in range(90)]},
        ),
    )


def brighter_than_the_flat(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["exchange/data"] = np.full((20, 1, 16), 300, np.uint16)
        file["exchange/data_white"] = np.full((2, 1, 16), 100, np.uint16)
    return folder / "a.h5"


def pickled(folder):
    with (folder / "a.npy").open("wb") as file:
        np.save(file, np.array([{}]), allow_pickle=True)
    (folder / "a.json").write_text(json.dumps(describe(FULL)))
    return folder / "a.npy"


CASES = {
    "NaN angle": (angles([math.nan, *FULL[1:]]), "finite number"),
    "angles missing": (angles(FULL[:-1]), "has 90 views, but there are 89 angles"),
    "one angle for all": (angles([30.0] * 90), "all 90 views have the same angle"),
    "turns of one angle": (angles([30.0 - 360 * (view % 3) for view in range(90)]), "same angle"),
    "columns": (broken(beam={"n_columns": 95}), "has 96 columns, but there are 95"),
    "beside the axis": (broken(beam={"column_offset": 500.0}), "no point is seen by every view"),
    "image beside the rays": (nothing_is_seen, "no ray passes the image"),
    "flat missing": (broken(values="counts"), 'counts need a "flat"'),
    "brighter": (brighter_than_the_flat, "brighter than the flat"),
    "pickle": (pickled, "plain numbers"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_is_told_in_one_line(run_cli, tmp_path, case):
    make, message = CASES[case]
    done = run_cli("recon", make(tmp_path), "-o", tmp_path / "a.nii", "--method", "fbp")
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert message in " ".join(done.err.split())
    assert not (tmp_path / "a.nii").exists()


def test_images_are_not_reconstructed_but_simulated(run_cli, data_dir, tmp_path):
    volumes = data_dir / "nifti_ct_lung1" / "lung1_crop.nii.gz", data_dir / "dicom_ct_plastichead"
    for volume in volumes:
        done = run_cli("recon", volume, "-o", tmp_path / "a.nii", "--method", "fbp")
        assert done.code == 1
        assert "simulate a scan of them with `dipmed simulate`" in " ".join(done.err.split())


def test_only_a_helix_is_rebinned(run_cli, tmp_path):
    scan = write(tmp_path / "a.npy", fan_sinogram(FULL), describe(FULL))
    for command, outputs in (("recon", ("-o", tmp_path / "a.nii", "--method", "fbp")), ("compare", ())):
        done = run_cli(command, scan, *outputs, "--rebin")
        assert done.code == 1
        assert "rebinned from a cone beam on a helix" in " ".join(done.err.split())
