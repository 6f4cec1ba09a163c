"""DICOM series that are written, as other programs see them: dciodvfy, dicom-validator, dcm2niix and SimpleITK.

dicom-validator judges by the tables of the standard of spring 2020, with the amendments that are named and explained in
``standard_tables.py``. It knows which modules, functional groups and attributes an object must and may have, and the
enumerated values; of the conditions it judges those that its parser understands, and takes the others as optional.
"""

import importlib.util
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import torch
from dicom_validator.validator.error_handler import NullValidationResultHandler
from dicom_validator.validator.iod_validator import IODValidator
from pydicom.datadict import keyword_for_tag

from dipmed.io import load, save_ismrmrd
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_study import new_study, study_of
from dipmed.io.images import save_image
from dipmed.patient import MrdGeometry, affine_from_mrd, affine_in_gantry, directions_from_quaternion
from dipmed.recon import reconstruct
from dipmed.scan import ImageVolume, KSpaceScan, SequenceFigures
from dipmed.settings import ReconSettings
from operators.fourier import centred_fft

pytestmark = pytest.mark.reference

NAMES = ["series", "all.dcm", "all.sc.dcm"]
OBJECTS = {"MR Image", "Enhanced MR Image", "CT Image", "Enhanced CT Image", "Multi-frame Grayscale Word SC Image"}
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


@pytest.fixture(scope="session")
def violations():
    """A function that says what dicom-validator holds against files: module, keyword, what is wrong."""
    place = Path(__file__).with_name("standard_tables.py")
    spec = importlib.util.spec_from_file_location(place.stem, place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tables = module.standard_tables(OBJECTS)

    def judge(path):
        found = []
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            item = pydicom.dcmread(file)
            result = IODValidator(item, tables, error_handler=NullValidationResultHandler()).validate()
            by_module = result.module_errors.items()
            errors = [(module, tag, error) for module, of_module in by_module for tag, error in of_module.items()]
            assert result.sop_class_uid in tables.iods, "an object of a kind that is not judged"
            found += [f"{module}: {keyword_for_tag(tag.tag)} {error.code.name}" for module, tag, error in errors]
        return found

    return judge


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
def test_objects_are_valid(tmp_path, violations, name, modality):
    figures = SequenceFigures(1.5, (2.0,), (0.08,), (), (1.0,), ())
    studies = {"own": new_study(), "named": new_study("P-17")}
    save_image(volume(affine("oblique")), tmp_path / "source", dicom=details(modality, study=studies["named"]))
    studies["same"] = study_of(tmp_path / "source")
    studies["restored"] = replace(studies["same"], is_source=True)
    for number, (kind, study) in enumerate(studies.items()):
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        shape = {"own": (9, 6, 3, 2), "restored": (9, 6, 1)}.get(kind, (9, 6, 3))
        quantity = "standard deviation" if kind == "named" else ""
        made = details(modality, study=study, sequence=figures, quantity=quantity)
        save_image(volume(affine("oblique"), *shape), path, dicom=made)
        assert errors(path) == []
        assert violations(path) == []


def test_the_validator_finds_errors(tmp_path):
    save_image(volume(affine("oblique")), tmp_path / "a.dcm", dicom=details())
    item = pydicom.dcmread(tmp_path / "a.dcm")
    del item.ContentQualification, item.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    item.save_as(tmp_path / "a.dcm")
    assert any("ContentQualification" in line for line in errors(tmp_path / "a.dcm"))


def without(*path):
    """A change that deletes an element, by its path through sequences with one item."""

    def change(item):
        for sequence in path[:-1]:
            (item,) = item[sequence].value
        del item[path[-1]]

    return change


def with_value(name, value):
    return lambda item: setattr(item, name, value)


SHARED = "SharedFunctionalGroupsSequence"
DAMAGES = {
    "type 1": ("a.dcm", without("ContentQualification"), "Enhanced MR Image: ContentQualification TagMissing"),
    "type 2": ("series", without("PatientName"), "Patient: PatientName TagMissing"),
    "type 1, empty": ("series", with_value("Modality", ""), "General Series: Modality TagEmpty"),
    "a required group": (
        "a.dcm",
        without(SHARED, "FrameAnatomySequence"),
        "Frame Anatomy: FrameAnatomySequence TagMissing",
    ),
    "type 1 in a group": (
        "a.dcm",
        without(SHARED, "MRImageFrameTypeSequence", "FrameType"),
        "MR Image Frame Type: FrameType TagMissing",
    ),
    "1C in a group": (
        "a.dcm",
        without(SHARED, "PixelMeasuresSequence", "SliceThickness"),
        "Pixel Measures: SliceThickness TagMissing",
    ),
    "1C in a group, by the object": (
        "a.dcm",
        without(SHARED, "MRImageFrameTypeSequence", "ComplexImageComponent"),
        "MR Image Frame Type: ComplexImageComponent TagMissing",
    ),
    "1C by two values": ("a.sc.dcm", without("RescaleSlope"), "SC Multi-frame Image: RescaleSlope TagMissing"),
    "1C by a value": (
        "a.dcm",
        with_value("LossyImageCompression", "01"),
        "Enhanced MR Image: LossyImageCompressionRatio TagMissing",
        "Enhanced MR Image: LossyImageCompressionMethod TagMissing",
    ),
    "1C by absence": (
        "a.dcm",
        without("DimensionIndexSequence"),
        "Multi-frame Dimension: DimensionIndexSequence TagMissing",
    ),
    "enumerated value": (
        "series",
        with_value("BurnedInAnnotation", "MAYBE"),
        "General Image: BurnedInAnnotation EnumValueNotAllowed",
    ),
    "of another object": ("series", with_value("KVP", "120"), "General: KVP TagUnexpected"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_dicom_validator_finds_an_error(tmp_path, violations, damage):
    name, change, *reports = DAMAGES[damage]
    save_image(volume(affine("oblique"), 9, 6, 1), tmp_path / name, dicom=details())
    (file,) = (tmp_path / name).iterdir() if name == "series" else [tmp_path / name]
    assert violations(file) == []
    item = pydicom.dcmread(file)
    change(item)
    item.save_as(file)
    assert violations(file) == reports


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


def from_k_space(image, folder, study=None):
    """Measure an image with one coil, write that, and reconstruct it to a series."""
    kspace = centred_fft(torch.from_numpy(np.moveaxis(image.data, 2, 0)[None, :, None]).to(torch.complex64), 2)
    mask = np.ones((1, image.data.shape[2], *image.data.shape[:2]), bool)
    save_ismrmrd(KSpaceScan(kspace.numpy(), mask, image.affine, image.data.shape[:2], "test"), folder / "scan.h5")
    result = reconstruct(load(folder / "scan.h5"), ReconSettings(method="zero-filled", device="cpu"))
    save_image(result.volume, folder / "series", dicom=details(study=study or new_study()))
    return folder / "series"


@pytest.mark.parametrize("plane", DIRECTIONS)
@pytest.mark.parametrize("n_slices", [4, 1])
def test_voxels_from_k_space_are_where_other_programs_see_them(tmp_path, plane, n_slices):
    image = volume(affine(plane), 16, 12, n_slices)
    series = from_k_space(image, tmp_path)
    assert_same_in_mm(by_simpleitk(series), image, scaled=True)
    assert_same_in_mm(by_dcm2niix(series), image, scaled=True)


@pytest.mark.parametrize("position", POSITIONS)
def test_voxels_from_k_space_of_a_patient_in_any_position(tmp_path, position):
    image = volume(affine_in_gantry(position, (0.8, 1.4, 5.0), (-3.0, 4.0, 20.0)), 16, 12, 4)
    save_image(image, tmp_path / "scanner", dicom=details())
    for file in (tmp_path / "scanner").iterdir():
        item = pydicom.dcmread(file)
        item.PatientPosition = position
        item.save_as(file)
    series = from_k_space(image, tmp_path, study_of(tmp_path / "scanner"))
    assert {pydicom.dcmread(file).PatientPosition for file in series.iterdir()} == {position}
    assert_same_in_mm(by_simpleitk(series), image, scaled=True)
    assert_same_in_mm(by_dcm2niix(series), image, scaled=True)


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
