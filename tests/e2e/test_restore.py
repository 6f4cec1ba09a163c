"""Image volumes restored by the command line: in their place, in their units, and said to be images."""

import json

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dipmed.io import load_image
from operators import Blur, SliceProfile

AFFINE = np.array([[-1.0, 0, 0, 25], [0, 1.2, 0, -40], [0, 0, 3, 7], [0, 0, 0, 1.0]])
SHAPE = (28, 24, 2)
QUICK = ["--set", "network.channels=8,8", "--set", "network.skip_channels=4", "--stop", "budget"]


def write(data, path, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def body(shape=SHAPE):
    """An ellipse of 1000 with an inlay, in air of 0."""
    x, y = np.indices(shape[:2])
    inside = ((x - 13) / 11) ** 2 + ((y - 11) / 9) ** 2 < 1
    plane = 1000.0 * inside + 400 * ((np.abs(x - 17) < 3) & (np.abs(y - 10) < 4))
    return np.repeat(plane[:, :, None], shape[2], axis=2).astype(np.float32)


def noisy(data, sigma):
    return data + np.random.default_rng(0).normal(0, sigma, data.shape).astype(np.float32)


def error(image, truth):
    return np.linalg.norm(image - truth) / np.linalg.norm(truth)


def test_noise_goes_and_place_and_record_stay_true(run_cli, tmp_path):
    volume, out, record = write(noisy(body(), 150), tmp_path / "v.nii.gz"), tmp_path / "out.nii.gz", tmp_path / "r.json"
    options = ["--task", "denoise", "--iterations", 50, *QUICK, "--json", record]
    done = run_cli("restore", volume, "-o", out, *options)
    assert done.code == 0, done.err
    found = load_image(out)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)
    assert error(found.data, body()) < 0.85 * error(load_image(volume).data, body())
    told = json.loads(record.read_text())
    assert (told["input"], told["measured_anew"], told["task"]["name"]) == ("image", False, "denoise")
    assert told["noise_level"] == pytest.approx(150, rel=0.25)
    assert "not from k-space" in told["statement"]
    assert "estimated" in done.err
    again = run_cli("restore", volume, "-o", out, *options)
    assert again.code == 1
    assert "exists already" in again.error_lines[0]


def write_ct(folder, stored):
    """Write DICOM slices whose values are the stored ones less 1024."""
    series = generate_uid()
    for number in range(stored.shape[2]):
        header = Dataset()
        header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID = CTImageStorage, generate_uid(), series
        header.Modality, header.SliceThickness = "CT", 3.0
        header.ImageOrientationPatient, header.PixelSpacing = [1, 0, 0, 0, 1, 0], [1.2, 1.0]
        header.ImagePositionPatient = [-25.0, -40.0, 7.0 + 3.0 * number]
        header.Columns, header.Rows = stored.shape[:2]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.RescaleSlope, header.RescaleIntercept = 1.0, -1024.0
        header.PixelData = np.ascontiguousarray(stored[:, :, number].T).astype(np.int16).tobytes()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.file_meta.MediaStorageSOPClassUID = CTImageStorage
        header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
        pydicom.dcmwrite(folder / f"{number}.dcm", header, enforce_file_format=True)


def test_hounsfield_units_of_a_series_stay(run_cli, tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    write_ct(series, noisy(body() + 24, 30).clip(0).round())
    options = ["--task", "denoise", "--sigma", 30, "--iterations", 80, "--slices", "1:2", *QUICK, "--json", "-"]
    done = run_cli("restore", series, "-o", tmp_path / "out.nii", *options)
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert (record["unit"], record["noise_level"], record["noise_level_given"]) == ("HU", 30, True)
    found, given = load_image(tmp_path / "out.nii"), load_image(series)
    assert found.data.shape == (28, 24, 1)
    np.testing.assert_allclose(found.affine[:3, 3], (given.affine @ [0, 0, 1, 1])[:3], atol=1e-5)
    middle, air = found.data[5:11, 8:14, 0].mean(), found.data[:4, :4, 0].mean()
    assert middle == pytest.approx(0, abs=40)
    assert air == pytest.approx(-1000, abs=40)


def test_thinner_slices_lie_where_the_thick_ones_did(run_cli, tmp_path):
    fine = np.full((12, 8, 24), 300, np.float32)
    fine[7:10, 3:6, 12:15] = 3000  # around voxel (8, 4, 13)
    affine = AFFINE @ np.diag([1, 1, 0.5, 1])
    A = SliceProfile((1, *fine.shape), 3)
    thick = write(A(torch.from_numpy(fine)[None])[0].numpy(), tmp_path / "thick.nii.gz", A.coarse_affine(affine))
    options = ["--task", "superres", "--factor", 3, "--iterations", 40, *QUICK]
    done = run_cli("restore", thick, "-o", tmp_path / "thin.nii.gz", *options)
    assert done.code == 0, done.err
    thin = load_image(tmp_path / "thin.nii.gz")
    assert thin.data.shape == fine.shape
    np.testing.assert_allclose(thin.affine, affine, atol=1e-5)
    mark = np.where(thin.data > 1000, thin.data, 0)
    index = np.indices(mark.shape).reshape(3, -1) @ mark.reshape(-1) / mark.sum()
    np.testing.assert_allclose((thin.affine @ [*index, 1])[:3], (affine @ [8, 4, 13, 1])[:3], atol=0.6)


@pytest.mark.parametrize("mode", ["slice", "3d"])
def test_holes_are_filled_and_nothing_else_changes(run_cli, tmp_path, mode):
    truth = body((28, 24, 3)) + 50 * np.indices((28, 24, 3))[2].astype(np.float32)
    holes = np.zeros(truth.shape, np.uint8)
    holes[6:10, 9:13, 1] = 1
    volume = write(np.where(holes, -9999, truth).astype(np.float32), tmp_path / "v.nii")
    mask = write(holes, tmp_path / "m.nii.gz")
    options = ["--task", "inpaint", "--mask", mask, "--mode", mode, "--iterations", 80, *QUICK, "--json", "-"]
    done = run_cli("restore", volume, "-o", tmp_path / "out.nii", *options)
    assert done.code == 0, done.err
    found = load_image(tmp_path / "out.nii").data
    np.testing.assert_array_equal(found[holes == 0], truth[holes == 0])
    np.testing.assert_allclose(found[holes != 0], 1050, atol=100)
    if mode == "slice":  # slices without holes take no time
        assert [piece["iterations"] for piece in json.loads(done.out)["pieces"]] == [0, 80, 0]


def test_blur_is_undone(run_cli, tmp_path):
    truth = body((28, 24, 1))
    A = Blur.gaussian((1, 28, 24), (4, 4), (1.0, 1.2))
    blurred = A(torch.from_numpy(truth[:, :, 0])[None])[0].numpy()[:, :, None]
    volume = write(noisy(blurred, 5), tmp_path / "v.nii")
    options = ["--task", "deblur", "--fwhm", 4, "--iterations", 100, *QUICK]
    done = run_cli("restore", volume, "-o", tmp_path / "out.npz", *options)
    assert done.code == 0, done.err
    assert error(load_image(tmp_path / "out.npz").data, truth) < 0.8 * error(blurred, truth)


def test_the_default_rule_needs_no_reference(run_cli, tmp_path):
    volume = write(body((28, 24, 1)), tmp_path / "v.nii")  # nor noise that could be measured
    options = ["--task", "deblur", "--fwhm", 2, "--iterations", 20, *QUICK[:4], "--json", "-"]
    record = json.loads(run_cli("restore", volume, "-o", tmp_path / "out.nii", *options).out)
    assert record["pieces"][0]["stop"]["rule"] == record["config"]["stop"] != "budget"


GOOD = noisy(body(), 10)
HOLED = np.where(np.arange(2) == 1, np.nan, GOOD).astype(np.float32)
SUPERRES = ["--task", "superres", "--factor", 2]


@pytest.mark.parametrize(
    ("data", "options", "match"),
    [
        (GOOD, ["--task", "sharpen"], "choose one of denoise, superres, inpaint, deblur"),
        (GOOD, ["--task", "denoise", "--factor", 2], "--factor is for --task superres"),
        (GOOD, ["--task", "denoise", "--sigma", -1], "--sigma must be positive"),
        (GOOD, ["--task", "denoise", "--mode", "slab"], "slice or 3d"),
        (GOOD, ["--task", "denoise", "--slices", "1:3"], "does not fit 2 slices"),
        (GOOD, ["--task", "denoise", "--stop", "luck"], "unknown stopping rule"),
        (HOLED, ["--task", "denoise"], "no finite numbers"),
        (GOOD * np.nan, ["--task", "denoise"], "no finite numbers"),
        (GOOD.astype(np.complex64), ["--task", "denoise"], "complex numbers"),
        (GOOD[..., None].repeat(2, -1), ["--task", "denoise"], "frames"),
        (GOOD[:, :, :1], SUPERRES, "two slices or more"),
        (GOOD, ["--task", "superres", "--factor", 1], "2 or more; got 1"),
        (GOOD, ["--task", "superres"], "needs --factor"),
        (GOOD, [*SUPERRES, "--thickness", 0], "--thickness must be positive"),
        (GOOD, ["--task", "deblur"], "needs --fwhm"),
        (GOOD, ["--task", "deblur", "--fwhm", "nan"], "--fwhm must be positive"),
        (GOOD, ["--task", "inpaint"], "needs --mask"),
    ],
)
def test_bad_input_is_one_line_and_no_file(run_cli, tmp_path, data, options, match):
    volume = write(data, tmp_path / "v.nii")
    done = run_cli("restore", volume, "-o", tmp_path / "out.nii", *options)
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert match in done.error_lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["v.nii"]


@pytest.mark.parametrize(
    ("holes", "affine", "match"),
    [
        (np.ones((28, 24, 3)), AFFINE, "must have the volume's shape"),
        (np.eye(28, 24)[:, :, None].repeat(2, 2), np.eye(4), "mm off the volume"),
        (np.zeros(SHAPE), AFFINE, "marks no voxel"),
        (np.ones(SHAPE), AFFINE, "marks every voxel"),
        (np.arange(2) * np.ones(SHAPE), AFFINE, "nothing is known of slice 1"),
    ],
)
def test_masks_that_do_not_suit_are_refused(run_cli, tmp_path, holes, affine, match):
    volume, mask = write(GOOD, tmp_path / "v.nii"), write(holes.astype(np.uint8), tmp_path / "m.nii", affine)
    options = ["--task", "inpaint", "--mask", mask, "--iterations", 2, *QUICK]
    done = run_cli("restore", volume, "-o", tmp_path / "out.nii", *options)
    assert (done.code, len(done.error_lines)) == (1, 1)
    assert match in done.error_lines[0]
