"""DICOM series that are written: where their voxels are, what they say, and whose they are."""

import errno
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement

from dipmed.io import files
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_series import read_series
from dipmed.io.dicom_study import new_study, study_of
from dipmed.io.dicom_values import store_hounsfield, store_magnitude
from dipmed.io.images import check_output, load_image, save_image, std_path
from dipmed.scan import FormatError, GeometryError, ImageVolume, OutputError, SequenceFigures

NAMES = ["series", "all.dcm", "all.sc.dcm"]
LEFT, BACK, HEAD = np.diag([-1.0, -1.0, 1.0])  # RAS
TURNED = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))[0]
PLANES = {
    "axial": (LEFT, BACK, HEAD),
    "sagittal": (BACK, -HEAD, -LEFT),
    "coronal": (LEFT, -HEAD, BACK),
    "left-handed": (-LEFT, BACK, HEAD),
    "columns first": (BACK, LEFT, HEAD),
    "head to feet": (LEFT, BACK, -HEAD),
    "oblique": tuple(TURNED),
    "slightly tilted": tuple(np.linalg.qr(np.array([LEFT, BACK, HEAD]).T + 0.1 * TURNED)[0].T),
}


def affine(plane="oblique", voxel=(0.9, 1.3, 4.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(PLANES[plane]).T * voxel
    matrix[:3, 3] = 12.5, -40.25, 71.0
    return matrix


def volume(*shape, plane="oblique", peak=1000.0):
    rng = np.random.default_rng(len(plane))
    return ImageVolume(peak * rng.random(shape or (7, 6, 4), dtype=np.float32), affine(plane))


def details(modality="mri", **changes):
    return DicomDetails(modality, "HU" if modality == "ct" else None, "dip", **changes)


def objects(path):
    return [pydicom.dcmread(file) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]


def assert_same_in_mm(found, expected, atol):
    """Every voxel of one image is a voxel of the other, at the same place and with the same value."""
    index = np.indices(expected.data.shape[:3]).reshape(3, -1)
    place = expected.affine @ np.vstack([index, np.ones(index.shape[1])])
    elsewhere = (np.linalg.inv(found.affine) @ place)[:3]
    np.testing.assert_allclose(elsewhere, elsewhere.round(), atol=1e-3)
    np.testing.assert_allclose(
        found.data[tuple(elsewhere.round().astype(int))], expected.data[tuple(index)], atol=atol, rtol=0
    )
    assert found.data.size == expected.data.size


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", NAMES)
def test_voxels_stay_where_they_are(tmp_path, plane, name):
    for number, shape in enumerate([(7, 6, 4), (7, 6, 1), (5, 6, 3, 2)]):
        image = volume(*shape, plane=plane)
        path = tmp_path / str(number) / name
        path.parent.mkdir()
        save_image(image, path, dicom=details())
        assert_same_in_mm(load_image(path), image, atol=1000 / 65535)


def test_pictures_are_upright():
    from dipmed.patient import dicom_planes, lps_to_ras

    expected = {"axial": (LEFT, BACK), "sagittal": (BACK, -HEAD), "coronal": (LEFT, -HEAD)}
    same = {"left-handed": "axial", "columns first": "axial", "head to feet": "axial"}
    for plane in (*expected, *same):
        planes = dicom_planes(affine(plane), (7, 6, 4))
        across, down = expected[same.get(plane, plane)]
        np.testing.assert_allclose(lps_to_ras([planes.row_dir, planes.column_dir]), [across, down], atol=1e-12)
        heights = planes.corners @ np.cross(planes.row_dir, planes.column_dir)
        np.testing.assert_allclose(np.diff(heights), 4.0)


def test_slices_that_shift_against_each_other_keep_their_places(tmp_path):
    matrix = affine("axial")
    matrix[1, 2] = 0.5  # as with a tilted gantry
    save_image(replace(volume(plane="axial"), affine=matrix), tmp_path / "series", dicom=details())
    corners = np.array([item.ImagePositionPatient for item in objects(tmp_path / "series")], float)
    np.testing.assert_allclose(np.diff(corners, axis=0), [[0, -0.5, 4.0]] * 3, atol=1e-9)
    with pytest.raises(GeometryError, match="tilted"):
        load_image(tmp_path / "series")


def test_a_picture_with_slanted_axes_is_refused(tmp_path):
    matrix = affine("axial")
    matrix[0, 1] = 0.5
    with pytest.raises(GeometryError, match="perpendicular"):
        save_image(replace(volume(), affine=matrix), tmp_path / "series", dicom=details())
    assert list(tmp_path.iterdir()) == []


def test_hounsfield_units_are_kept_to_a_fraction(tmp_path):
    image = volume(peak=4000.0, plane="axial")
    image.data[:] -= 1000
    for name in NAMES[:2]:
        save_image(image, tmp_path / name, dicom=details("ct"))
        assert_same_in_mm(load_image(tmp_path / name), image, atol=1 / 32)
    first = objects(tmp_path / "series")[0]
    assert (first.RescaleIntercept, first.RescaleType) == (-1024, "HU")
    assert (first.WindowCenter[0], first.WindowWidth[0]) == (40, 400)
    assert first.Modality == "CT"


@pytest.mark.parametrize(
    ("low", "high", "intercept", "slope"),
    [(-1000, 3000, -1024, 2**-4), (-1024, 3071, -1024, 2**-4), (-1300.5, 20_000, -1301, 0.5), (0, 1e5, -1024, 2)],
)
def test_the_finest_step_that_fits(low, high, intercept, slope):
    values = np.linspace(low, high, 1001)
    stored = store_hounsfield(values)
    assert (stored.intercept, stored.slope) == (intercept, slope)
    np.testing.assert_allclose(stored.pixels * float(slope) + intercept, values, atol=slope / 2)


def test_magnitudes_fill_the_range_and_signs_are_kept():
    stored = store_magnitude(np.array([0.0, 1e-7, 3e-7]))
    assert (stored.pixels.dtype, stored.pixels.tolist()) == (np.uint16, [0, 21845, 65535])
    stored = store_magnitude(np.array([-2.0, 1.0]))
    assert (stored.pixels.dtype, stored.pixels.tolist()) == (np.int16, [-32767, 16384])
    assert store_magnitude(np.zeros(3)).pixels.tolist() == [0, 0, 0]


def test_complex_images_are_magnitudes(tmp_path):
    image = volume()
    save_image(ImageVolume(image.data * 1j, image.affine), tmp_path / "a.dcm", complex=True, dicom=details())
    assert_same_in_mm(load_image(tmp_path / "a.dcm"), image, atol=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_nobodys_and_for_research(tmp_path, name):
    save_image(volume(), tmp_path / name, dicom=details())
    save_image(volume(), tmp_path / f"other-{name}", dicom=details())
    first, other = (objects(tmp_path / file) for file in (name, f"other-{name}"))
    assert len({item.SOPInstanceUID for item in first}) == len(first)
    for kind in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert len({item[kind].value for item in first}) == 1
        assert first[0][kind].value != other[0][kind].value
    assert (first[0].PatientName, first[0].PatientIdentityRemoved) == ("ANONYMOUS^", "YES")
    assert "research use only" in first[0].SeriesDescription
    assert "not for diagnosis" in first[0].ImageComments
    assert (first[0].BurnedInAnnotation, first[0].ImageType[0]) == ("NO", "DERIVED")
    assert first[0].ContributingEquipmentSequence[0].Manufacturer == "dipmed"


def test_a_patient_by_name_of_the_user(tmp_path):
    save_image(volume(), tmp_path / "a.dcm", dicom=details(study=new_study("P-17")))
    found = objects(tmp_path / "a.dcm")[0]
    assert found.PatientID == "P-17"
    assert "PatientIdentityRemoved" not in found
    for bad in ("", "a\\b", "x" * 65, "a\nb"):
        with pytest.raises(FormatError, match="identifier"):
            new_study(bad)


@pytest.fixture
def source(tmp_path):
    """A series of a person, as a scanner would write it."""
    folder = tmp_path / "source"
    save_image(volume(plane="axial"), folder, dicom=details(study=new_study("12345")))
    for file in folder.iterdir():
        item = pydicom.dcmread(file)
        item.PatientName, item.PatientBirthDate, item.PatientSex = "Plánted^Nämé", "19700102", "O"
        item.Manufacturer, item.ManufacturerModelName, item.SeriesNumber = "Scanners", "Model 7", 3
        item.PatientPosition, item.SliceThickness, item.BodyPartExamined = "FFP", 3.5, "HEAD"
        del item.Laterality
        item.SpecificCharacterSet = "ISO_IR 100"
        item.save_as(file)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_series_of_the_same_study(tmp_path, source, name):
    save_image(volume(plane="axial"), tmp_path / name, dicom=details(study=study_of(source)))
    old, new = objects(source), objects(tmp_path / name)
    kept = ("StudyInstanceUID", "StudyDate", "FrameOfReferenceUID", "PatientName", "PatientID", "PatientBirthDate")
    for kind in (*kept, "PatientPosition", "PatientSex", "BodyPartExamined"):
        assert {item[kind].value for item in new} == {old[0][kind].value}, kind
    assert new[0].SeriesInstanceUID != old[0].SeriesInstanceUID
    assert not {item.SOPInstanceUID for item in new} & {item.SOPInstanceUID for item in old}
    assert (new[0].SeriesNumber, new[0].Manufacturer) == (301, "dipmed")
    equipment = new[0].ContributingEquipmentSequence[0]
    assert (equipment.Manufacturer, equipment.ManufacturerModelName) == ("Scanners", "Model 7")
    assert {item.RelatedSeriesSequence[0].SeriesInstanceUID for item in new} == {old[0].SeriesInstanceUID}
    if name != "all.dcm":
        uids = [i.ReferencedSOPInstanceUID for item in new for i in item.ReferencedImageSequence]
        assert uids == [item.SOPInstanceUID for item in old]
    measures = new[0] if name == "series" else new[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (3.5, 4)


def test_frames_of_a_large_file_are_referred_to(tmp_path):
    save_image(volume(plane="axial"), tmp_path / "large.dcm", dicom=details())
    save_image(volume(plane="axial"), tmp_path / "new", dicom=details(study=study_of(tmp_path / "large.dcm")))
    for number, item in enumerate(objects(tmp_path / "new"), 1):
        assert item.ReferencedImageSequence[0].ReferencedFrameNumber == number


def test_images_elsewhere_are_not_referred_to(tmp_path, source):
    image = volume(plane="axial")
    image.affine[2, 3] += 500
    save_image(image, tmp_path / "new", dicom=details(study=study_of(source)))
    assert not any("ReferencedSeriesSequence" in item for item in objects(tmp_path / "new"))


def test_figures_of_the_sequence(tmp_path):
    figures = SequenceFigures(3.0, (0.5,), (0.01, 0.02), (), (np.pi / 2,), ())
    for frames, times in (((2,), [10, 20]), ((), [None])):
        path = tmp_path / str(frames)
        save_image(volume(7, 6, 1, *frames), path, dicom=details(sequence=figures, ndim=2))
        found = objects(path)
        assert [item.EchoTime for item in found] == times
        assert [item.AcquisitionNumber for item in found] == list(range(1, len(times) + 1))
        assert (found[0].RepetitionTime, found[0].FlipAngle, found[0].MagneticFieldStrength) == (500, 90, 3)
        assert found[0].MRAcquisitionType == "2D"


@pytest.mark.parametrize("name", NAMES[:2])
def test_attenuation_is_no_ct_image(tmp_path, name):
    of_attenuation = replace(details("ct"), unit="1/mm")
    with pytest.raises(OutputError, match="--hounsfield"):
        save_image(volume(), tmp_path / name, dicom=of_attenuation)
    save_image(volume(), tmp_path / "all.sc.dcm", dicom=of_attenuation)
    assert_same_in_mm(load_image(tmp_path / "all.sc.dcm"), volume(), atol=0.01)


def test_a_modality_does_not_follow_another(tmp_path, source):
    with pytest.raises(OutputError, match="it holds CT, but is to follow a series of 'MR'"):
        save_image(volume(), tmp_path / "new", dicom=details("ct", study=study_of(source)))


def test_the_modality_has_to_be_said(tmp_path):
    with pytest.raises(OutputError, match="MRI or CT"):
        save_image(volume(), tmp_path / "series")


def test_names_of_maps_of_deviations(tmp_path):
    assert [std_path(name).name for name in NAMES] == ["series-std", "all.std.dcm", "all.std.sc.dcm"]
    save_image(volume(), tmp_path / "a", dicom=details("ct", quantity="standard deviation"))
    found = objects(tmp_path / "a")[0]
    assert found.SeriesDescription == "dipmed dip standard deviation (research use only)"
    assert "SOFT_TISSUE" not in found.WindowCenterWidthExplanation


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_left_when_the_disk_is_full(tmp_path, monkeypatch, name):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    save_image(volume(), tmp_path / name, dicom=details())
    before = objects(tmp_path / name)
    monkeypatch.setattr(files.os, "fsync", full)
    for target in (f"new-{name}", name):
        with pytest.raises(OutputError, match="disk is full"):
            save_image(volume(), tmp_path / target, dicom=details(), force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert objects(tmp_path / name) == before


def test_a_folder_is_replaced_only_if_it_holds_nothing_else(tmp_path):
    path = tmp_path / "series"
    save_image(volume(7, 6, 4), path, dicom=details())
    for call in (check_output, lambda path: save_image(volume(), path, dicom=details())):
        with pytest.raises(OutputError, match="exists already"):
            call(path)
    save_image(volume(7, 6, 2), path, dicom=details(), force=True)
    assert len(list(path.iterdir())) == 2
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"other things than \*\.dcm \(1 of them\)"):
        save_image(volume(), path, dicom=details(), force=True)
    assert (path / "thesis.tex").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["series"]
    with pytest.raises(OutputError, match="does not exist"):
        check_output(tmp_path / "missing" / "series")


@pytest.mark.parametrize(
    ("name", "value"), [("StudyInstanceUID", ""), ("FrameOfReferenceUID", "1.2.x"), ("SOPInstanceUID", None)]
)
def test_a_source_without_study_is_refused_without_naming_anybody(source, name, value):
    for file in source.iterdir():
        item = pydicom.dcmread(file)
        item.add(DataElement(name, "UI", value, validation_mode=pydicom.config.IGNORE))
        item.save_as(file)
    with pytest.raises(FormatError, match=f"no valid {name}") as caught:
        study_of(source)
    assert "12345" not in str(caught.value)


def test_damaged_sources_name_nobody(source):
    path = min(source.iterdir())
    content = path.read_bytes()
    for size in range(140, 1400, 97):
        path.write_bytes(content[:size])
        try:
            study_of(source)
        except (FormatError, GeometryError) as error:
            assert "12345" not in str(error)  # noqa: PT017
            assert "nted" not in str(error)  # noqa: PT017


def test_several_series_are_told_apart(tmp_path, source):
    for number, image in ((1, volume(5, 6, 2)), (2, volume(7, 6, 3))):
        for file in objects_saved(tmp_path / f"s{number}", image, number):
            file.rename(source / f"{number}-{file.name}")
    with pytest.raises(FormatError, match="3 series; choose one by UID with --series: ") as caught:
        read_series(source)
    assert "(number 2, 3 MR pictures of" in str(caught.value)
    assert "nted" not in str(caught.value)
    found = read_series(source, "2")
    assert found.volume.data.size == 7 * 6 * 3
    assert found.notes == ("6 files of other series were passed over.",)
    uid = objects(source)[-1].SeriesInstanceUID
    assert read_series(source, uid).volume.data.shape == load_image(source, uid).data.shape
    with pytest.raises(FormatError, match="none of them called 9"):
        read_series(source, "9")


def objects_saved(path, image, number):
    save_image(image, path, dicom=details())
    for file in path.iterdir():
        item = pydicom.dcmread(file)
        item.SeriesNumber = number
        item.save_as(file)
    return sorted(path.iterdir())


def change(path, function):
    item = pydicom.dcmread(path)
    function(item)
    item.save_as(path)


@pytest.mark.parametrize(
    ("damage", "error", "match"),
    [
        (lambda item: item.PerFrameFunctionalGroupsSequence.pop(), FormatError, "describe each of its 4 frames"),
        (lambda item: item.pop("PerFrameFunctionalGroupsSequence"), FormatError, "does not say where each lies"),
        (lambda item: item.pop("SharedFunctionalGroupsSequence"), GeometryError, "ImageOrientationPatient"),
        (
            lambda item: item.PerFrameFunctionalGroupsSequence[2].pop("PlanePositionSequence"),
            GeometryError,
            "3 numbers as ImagePositionPatient, got None",
        ),
        (lambda item: setattr(item, "NumberOfFrames", 2**31 - 1), FormatError, "asks for"),
        (lambda item: setattr(item, "Rows", 7), FormatError, "cannot be read as DICOM"),
        (
            lambda item: setattr(
                item.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0], "RescaleSlope", "1e39"
            ),
            FormatError,
            "no finite numbers",
        ),
    ],
)
def test_files_of_many_frames_that_are_damaged(tmp_path, damage, error, match):
    path = tmp_path / "a.dcm"
    save_image(volume(), path, dicom=details())
    change(path, damage)
    with pytest.raises(error, match=match):
        load_image(path)


def test_a_missing_frame_is_reported(tmp_path):
    path = tmp_path / "a.dcm"
    save_image(volume(plane="axial"), path, dicom=details())

    def without_second(item):
        del item.PerFrameFunctionalGroupsSequence[1]
        item.NumberOfFrames = 3
        item.PixelData = item.PixelData[: len(item.PixelData) * 3 // 4]

    change(path, without_second)
    with pytest.raises(GeometryError, match="a slice is missing"):
        load_image(path)


def test_pictures_of_one_place_that_nothing_tells_apart(tmp_path):
    path = tmp_path / "series"
    save_image(volume(7, 6, 2, 2), path, dicom=details())
    for file in path.iterdir():
        change(file, lambda item: setattr(item, "AcquisitionNumber", 1))
    with pytest.raises(GeometryError, match="same place"):
        load_image(path)


@pytest.fixture(scope="module")
def large_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "large.dcm"
    save_image(volume(), path, dicom=details())
    return path


@given(data=st.data())
def test_damaged_files_never_crash(large_file, data):
    path = large_file.with_name("a.dcm")
    content = bytearray(large_file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    for read in (load_image, study_of):
        with suppress(FormatError, GeometryError):
            read(path)
