"""From an image volume to a scan and back, by the command line."""

import json

import h5py
import nibabel
import numpy as np
import pytest
import scipy.ndimage

from dipmed.io import load, load_image, save_ismrmrd
from dipmed.io.projection_file import save_projections
from dipmed.scan import SIMULATED_NOTE

AFFINE = np.array([[-1.0, 0, 0, 25], [0, 1.2, 0, -40], [0, 0, 3, 7], [0, 0, 0, 1.0]])
SHAPE = (56, 48, 3)
MIDDLE = np.array([33.0, 20.0])  # of the ellipse, in voxels


@pytest.fixture(scope="module")
def ellipse(tmp_path_factory):
    """An ellipse of 500 HU in air, thicker from slice to slice."""
    x, y, z = np.indices(SHAPE)
    inside = ((x - MIDDLE[0]) / (10 + z)) ** 2 + ((y - MIDDLE[1]) / 12) ** 2 < 1
    path = tmp_path_factory.mktemp("volume") / "ellipse.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.where(inside, 500, -1000).astype(np.int16), AFFINE), path)
    return path


@pytest.mark.parametrize("geometry", ["parallel", "fan"])
def test_what_is_simulated_is_reconstructed_in_its_place(run_cli, ellipse, tmp_path, geometry):
    scan, image, record = tmp_path / "scan.h5", tmp_path / "image.nii.gz", tmp_path / "record.json"
    options = ["--modality", "ct", "--geometry", geometry, "--views", 90, "--photons", 1e6, "--json", record]
    done = run_cli("simulate", ellipse, "-o", scan, *options)
    assert done.code == 0, done.err
    assert "0.02 / mm" in done.err
    assert json.loads(record.read_text())["settings"]["photons"] == 1e6
    done = run_cli("recon", scan, "-o", image, "--method", "fbp", "--json", "-")
    assert SIMULATED_NOTE in json.loads(done.out)["notes"]
    found, truth = load_image(image), load_image(tmp_path / "scan.reference.nii.gz")
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-5)
    for number in range(SHAPE[2]):
        core = scipy.ndimage.binary_erosion(truth.data[:, :, number] > 0.029, iterations=2)
        assert found.data[:, :, number][core].mean() == pytest.approx(0.03, rel=0.01)
        mass = found.data[:, :, number] * (truth.data[:, :, number] > 0.001)
        index = np.array([*(np.indices(mass.shape).reshape(2, -1) @ mass.reshape(-1) / mass.sum()), number, 1])
        np.testing.assert_allclose((found.affine @ index)[:3], (AFFINE @ [*MIDDLE, number, 1])[:3], atol=0.25)


def test_a_cone_sees_the_volume_that_it_was_simulated_from(run_cli, tmp_path):
    data = np.full((36, 32, 28), -1000, np.int16)
    data[10:28, 6:22, 6:22] = 500
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    volume, scan, image = tmp_path / "box.nii.gz", tmp_path / "scan.h5", tmp_path / "image.nii.gz"
    nibabel.save(nibabel.Nifti1Image(data, affine), volume)
    options = ["--modality", "ct", "--geometry", "cone", "--views", 60, "--photons", 1e6]
    done = run_cli("simulate", volume, "-o", scan, *options)
    assert done.code == 0, done.err
    assert run_cli("recon", scan, "-o", image, "--method", "fbp").code == 0
    found, truth = load_image(image), load_image(tmp_path / "scan.reference.nii.gz")
    assert found.data.shape == truth.data.shape == (18, 16, 14)
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-5)
    core = scipy.ndimage.binary_erosion(truth.data > 0.029, iterations=2)
    assert found.data[core].mean() == pytest.approx(0.03, rel=0.02)
    mass = np.where(truth.data > 0.001, found.data, 0)
    index = np.indices(mass.shape).reshape(3, -1) @ mass.reshape(-1) / mass.sum()
    np.testing.assert_allclose((found.affine @ [*index, 1])[:3], [37.0, 27.0, 27.0], atol=0.25)


def test_compare_takes_the_reference_beside_the_scan(run_cli, ellipse, tmp_path):
    scan, table = tmp_path / "scan.h5", tmp_path / "table.json"
    assert run_cli("simulate", ellipse, "-o", scan, "--modality", "ct", "--views", 60).code == 0
    reference = tmp_path / "scan.reference.nii.gz"
    done = run_cli("compare", scan, "--reference", reference, "--methods", "fbp,cg-tv", "--json", table, "--slice", 0)
    assert done.code == 0, done.err
    fbp, cg_tv = (row["psnr_raw"] for row in json.loads(table.read_text())["rows"])
    assert fbp > 20
    assert cg_tv > fbp


def test_the_truth_is_not_in_the_scan(run_cli, ellipse, tmp_path):
    scan = tmp_path / "scan.h5"
    assert run_cli("simulate", ellipse, "-o", scan, "--modality", "ct", "--views", 7, "--photons", 1e5).code == 0
    with h5py.File(scan) as file:
        assert set(file) == {"format", "description", "projections", "counts", "origin"}
        assert file["projections"].shape[:2] == file["counts"].shape[:2] == (3, 7)
        description = json.loads(file["description"][()])
        assert set(description) <= {"beam", "image", "affine", "values", "dark", "water_per_mm", "centre_known"}
        assert not any(file[name].attrs for name in file)


@pytest.mark.parametrize("options", [["ct", "--views", 9, "--photons", 1e4], ["mri", "--noise", 0.05, "--n-coils", 3]])
def test_the_same_seed_gives_the_same_file(run_cli, ellipse, tmp_path, options):
    volume = ellipse
    if options[0] == "mri":
        volume = tmp_path / "magnitude.nii.gz"
        data = load_image(ellipse).data + 1000
        nibabel.save(nibabel.Nifti1Image(data, AFFINE), volume)
    names = [(tmp_path / name, seed) for name, seed in (("a.h5", 3), ("b.h5", 3), ("c.h5", 4))]
    for path, seed in names:
        assert run_cli("simulate", volume, "-o", path, "--modality", *options, "--seed", seed).code == 0
    scan = load(names[0][0])
    assert scan.notes == (SIMULATED_NOTE,)
    (save_ismrmrd if options[0] == "mri" else save_projections)(scan, tmp_path / "again.h5")
    assert load(tmp_path / "again.h5").notes == scan.notes
    first, again, other = (path.read_bytes() for path, _ in names)
    assert first == again
    assert first != other
    references = [path.with_suffix(".reference.nii.gz").read_bytes() for path, _ in names[:2]]
    assert references[0] == references[1]


def test_existing_files_are_kept_unless_forced(run_cli, ellipse, tmp_path):
    reference = tmp_path / "scan.reference.nii.gz"
    reference.write_bytes(b"mine")
    options = ["simulate", ellipse, "-o", tmp_path / "scan.h5", "--modality", "ct", "--views", 3]
    done = run_cli(*options)
    assert done.code == 1
    assert "exists already" in done.error_lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["scan.reference.nii.gz"]
    assert reference.read_bytes() == b"mine"
    assert run_cli(*options, "--force").code == 0
    assert load_image(reference).data.shape == (28, 24, 3)


def volume_of(data):
    def make(folder):
        path = folder / "volume.nii.gz"
        nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
        return path

    return make


def kspace(folder):
    path = folder / "kspace.npy"
    np.save(path, np.ones((16, 16, 2), np.complex64))
    return path


def scan(folder):
    path = folder / "kspace.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    return path


GOOD = np.full((16, 16, 2), -1000, np.float32)
HOLED = np.where(np.arange(2) == 0, np.nan, GOOD).astype(np.float32)
CT = ["--modality", "ct", "--views", "3"]


@pytest.mark.parametrize(
    ("make", "options", "match"),
    [
        (volume_of(GOOD), ["--modality", "pet"], "choose ct or mri"),
        (volume_of(GOOD), ["--modality", "ct"], "--views"),
        (volume_of(GOOD), [*CT, "--n-coils", "3", "--noise", "0.1"], "--n-coils, --noise is for --modality mri"),
        (volume_of(GOOD), ["--modality", "mri", "--views", "3"], "--views is for --modality ct"),
        (volume_of(GOOD), [*CT, "--geometry", "spiral"], "unknown geometry"),
        (volume_of(GOOD), [*CT, "--slices", "1:3"], "does not fit 2 slices"),
        (volume_of(GOOD), [*CT, "--slices", "3"], "A:B"),
        (volume_of(GOOD), [*CT, "--reduce", "1"], "2 or more"),
        (volume_of(GOOD), ["--modality", "mri"], "magnitudes"),
        (volume_of(GOOD + 1000), CT, "Hounsfield"),
        (volume_of(HOLED), CT, "no finite numbers"),
        (volume_of(GOOD[..., None].repeat(2, -1)), CT, "frames"),
        (kspace, ["--modality", "mri"], "complex numbers"),
        (scan, ["--modality", "mri"], "cannot be read as an image"),
        (lambda folder: folder / "missing.nii.gz", CT, "does not exist"),
        (lambda folder: folder, CT, "no DICOM images"),
    ],
)
def test_bad_input_is_one_line_and_no_file(run_cli, tmp_path, make, options, match):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    done = run_cli("simulate", make(folder), "-o", out / "scan.h5", *options)
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert match in done.error_lines[0]
    assert list(out.iterdir()) == []


def test_a_scan_has_one_ending(run_cli, ellipse, tmp_path):
    done = run_cli("simulate", ellipse, "-o", tmp_path / "scan.nii.gz", *CT)
    assert "is a .h5 file" in done.error_lines[0]


@pytest.mark.parametrize(
    ("volume", "options"),
    [
        ("nifti_ct_lung1/lung1_crop.nii.gz", ["ct", "--views", 30, "--slices", "7:8", "--reduce", 8]),
        ("dicom_ct_plastichead", ["ct", "--views", 30, "--slices", "8:9", "--reduce", 8, "--geometry", "parallel"]),
        ("nifti_mr_ch2bet/ch2bet.nii.gz", ["mri", "--n-coils", 4, "--noise", 0.01, "--slices", "90:91"]),
    ],
)
def test_real_volumes_come_back(run_cli, data_dir, tmp_path, volume, options):
    path, table = tmp_path / "scan.h5", tmp_path / "table.json"
    done = run_cli("simulate", data_dir / volume, "-o", path, "--modality", *options)
    assert done.code == 0, done.err
    loaded = load(path)
    assert loaded.n_slices == 1
    method = "cg-tv" if options[0] == "ct" else "zero-filled"
    reference = path.with_suffix(".reference.nii.gz")
    assert run_cli("compare", path, "--methods", method, "--reference", reference, "--json", table).code == 0
    row = json.loads(table.read_text())["rows"][0]
    assert row["psnr_raw"] > (25 if options[0] == "ct" else 38)
