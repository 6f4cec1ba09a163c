"""DICOM series that are written, as other programs see them: dciodvfy, dcm2niix and SimpleITK."""

import os
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK

from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_study import new_study, study_of
from dipmed.io.images import save_image
from dipmed.patient import MrdGeometry, affine_from_mrd, affine_in_gantry, directions_from_quaternion
from dipmed.scan import ImageVolume, SequenceFigures

pytestmark = pytest.mark.reference

NAMES = ["series", "all.dcm", "all.sc.dcm"]
LEFT, BACK, HEAD = np.eye(3)  # LPS
DIRECTIONS = {
    "axial": (LEFT, BACK, HEAD),
    "sagittal": (BACK, -HEAD, -LEFT),
    "coronal": (LEFT, -HEAD, BACK),
    "mirrored": (-LEFT, BACK, HEAD),
    "oblique": directions_from_quaternion(np.array([0.8, 0.3, -0.4, 0.2]) / np.linalg.norm([0.8, 0.3, -0.4, 0.2])),
}
POSITIONS = ["HFS", "HFP", "FFS", "FFP", "HFDL", "HFDR", "FFDL", "FFDR"]


@pytest.fixture(autouse=True)
def _programs() -> None:
    for program in ("dciodvfy", "dcm2niix"):
        if shutil.which(program) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not on the path")


def details(modality="mri", **changes):
    return DicomDetails(modality, "HU" if modality == "ct" else None, "dip", ndim=2, **changes)


def volume(affine, *shape):
    shape = shape or (9, 6, 4)
    return ImageVolume(1000 * np.random.default_rng(0).random(shape, dtype=np.float32), affine)


def affine(plane):
    geometry = MrdGeometry(np.array([11.0, -23.5, 47.25]), *DIRECTIONS[plane], (0.8, 1.4, 5.0))
    return affine_from_mrd(geometry, (9, 6, 4))


def errors(path):
    """What dciodvfy holds against the files."""
    found = []
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        done = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=False)
        found += [line for line in done.stderr.splitlines() if line.startswith("Error")]
        assert "Image" in done.stderr, done.stderr  # it says which kind of object it has judged
    return found


def by_simpleitk(path):
    reader = SimpleITK.ImageSeriesReader()
    image = SimpleITK.ReadImage(reader.GetGDCMSeriesFileNames(str(path)) if path.is_dir() else str(path))
    placed = np.eye(4)
    placed[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    placed[:3, 3] = image.GetOrigin()
    return ImageVolume(SimpleITK.GetArrayFromImage(image).T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ placed)


def by_dcm2niix(path):
    folder = path.with_name(f"{path.name}-nifti")
    folder.mkdir()
    single = [] if path.is_dir() else ["-s", "y"]
    done = subprocess.run(
        ["dcm2niix", "-f", "image", "-z", "n", "-b", "n", "-o", folder, *single, path],
        capture_output=True,
        text=True,
        check=False,
    )
    (file,) = folder.glob("*.nii")
    assert "Error" not in done.stdout + done.stderr
    image = nibabel.load(file)
    return ImageVolume(np.asanyarray(image.dataobj), image.affine)


def assert_same_in_mm(found, expected, *, scaled=False):
    """Every voxel lies at the same place; values are equal to the rounding, or up to one factor."""
    index = np.indices(expected.data.shape[:3]).reshape(3, -1)
    place = expected.affine @ np.vstack([index, np.ones(index.shape[1])])
    elsewhere = (np.linalg.inv(found.affine) @ place)[:3]
    np.testing.assert_allclose(elsewhere, elsewhere.round(), atol=2e-3)
    values, wanted = found.data[tuple(elsewhere.round().astype(int))], expected.data[tuple(index)]
    factor = 65535 / expected.data.max() if scaled else 1.0
    np.testing.assert_allclose(values / factor, wanted, atol=0.05, rtol=0)
    assert found.data.shape[2:] == expected.data.shape[2:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("modality", ["mri", "ct"])
def test_objects_are_valid(tmp_path, name, modality):
    figures = SequenceFigures(1.5, (2.0,), (0.08,), (), (1.0,), ())
    studies = {"own": new_study(), "named": new_study("P-17")}
    save_image(volume(affine("oblique")), tmp_path / "source", dicom=details(modality, study=studies["named"]))
    studies["same"] = study_of(tmp_path / "source")
    for number, (kind, study) in enumerate(studies.items()):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        frames = (2,) if kind == "own" else ()
        made = details(modality, study=study, sequence=figures)
        save_image(volume(affine("oblique"), 9, 6, 3, *frames), path, dicom=made)
        assert errors(path) == []


def test_the_validator_finds_errors(tmp_path):
    save_image(volume(affine("oblique")), tmp_path / "a.dcm", dicom=details())
    item = pydicom.dcmread(tmp_path / "a.dcm")
    del item.ContentQualification, item.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    item.save_as(tmp_path / "a.dcm")
    assert any("ContentQualification" in line for line in errors(tmp_path / "a.dcm"))


@pytest.mark.parametrize("plane", DIRECTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_voxels_are_where_other_programs_see_them(tmp_path, plane, name):
    for modality in ("mri", "ct"):
        for shape in ((9, 6, 4), (9, 6, 1)):
            image = volume(affine(plane), *shape)
            path = tmp_path / f"{modality}{shape[2]}" / name
            path.parent.mkdir()
            save_image(image, path, dicom=details(modality))
            scaled = modality == "mri" or name == "all.sc.dcm"
            assert_same_in_mm(by_simpleitk(path), image, scaled=scaled)
            assert_same_in_mm(by_dcm2niix(path), image, scaled=scaled)


@pytest.mark.parametrize("position", POSITIONS)
def test_voxels_of_a_patient_in_any_position(tmp_path, position):
    image = volume(affine_in_gantry(position, (0.8, 1.4, 5.0), (-3.0, 4.0, 20.0)))
    save_image(image, tmp_path / "source", dicom=details("ct"))
    for file in (tmp_path / "source").iterdir():
        item = pydicom.dcmread(file)
        item.PatientPosition = position
        item.save_as(file)
    save_image(image, tmp_path / "series", dicom=details("ct", study=study_of(tmp_path / "source")))
    assert {pydicom.dcmread(f).PatientPosition for f in (tmp_path / "series").iterdir()} == {position}
    assert_same_in_mm(by_simpleitk(tmp_path / "series"), image)
    assert_same_in_mm(by_dcm2niix(tmp_path / "series"), image)
    assert errors(tmp_path / "series") == []


def test_frames_are_a_fourth_axis(tmp_path):
    # dcm2niix 1.0.20220720 mixes frames and slices of enhanced objects up, however their dimensions are said
    image = volume(affine("sagittal"), 9, 6, 4, 3)
    save_image(image, tmp_path / "series", dicom=details("ct"))
    assert_same_in_mm(by_dcm2niix(tmp_path / "series"), image)


def test_a_series_that_is_followed_stays_readable_beside_its_copy(tmp_path, data_dir: Path):
    source = data_dir / "dicom_ct_plastichead"
    whole = by_simpleitk(source)
    original = ImageVolume(whole.data[:200, :200, :5], whole.affine)
    save_image(original, tmp_path / "series", dicom=details("ct", study=study_of(source)))
    assert_same_in_mm(by_simpleitk(tmp_path / "series"), original)
    assert errors(tmp_path / "series") == []
