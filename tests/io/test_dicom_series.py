"""Series of DICOM slices: place, order and values, and folders that hold something else."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from dipmed.io.dicom_series import read_series
from dipmed.io.images import load_image
from dipmed.patient import lps_to_ras
from dipmed.scan import FormatError, GeometryError

ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([-0.6, 0.8, 0.0])
SHAPE = (5, 7)  # rows, columns
SERIES = generate_uid()


def write_slice(folder, number, position=None, change=None):
    """Write a slice whose pixels hold ``100 * number + row + 10 * column``, 2.5 mm above the one before."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, generate_uid()
    header.SeriesInstanceUID, header.Modality = SERIES, "CT"
    header.PatientName, header.PatientID = "Somebody", "12345"
    header.ImageOrientationPatient = [*ROW, *COLUMN]
    header.ImagePositionPatient = [10.0, -20.0, 30.0 + 2.5 * number] if position is None else list(position)
    header.PixelSpacing = [0.5, 0.75]  # between rows, between columns
    header.SliceThickness = 2.0
    header.Rows, header.Columns = SHAPE
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    header.RescaleSlope, header.RescaleIntercept = 2.0, -1000.0
    row, column = np.indices(SHAPE)
    header.PixelData = (100 * number + row + 10 * column).astype(np.int16).tobytes()
    if change is not None:
        change(header)
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    # names in another order than places
    header.save_as(folder / f"{(7 * number) % 5}-{number}.dcm", enforce_file_format=True)


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        write_slice(tmp_path, number)
    return tmp_path


def test_voxels_are_in_order_and_where_the_files_put_them(folder):
    (folder / "notes.txt").write_text("a scan of a phantom")
    series = read_series(folder)
    data, affine = series.volume.data, series.volume.affine
    assert (data.shape, data.dtype, series.modality) == ((7, 5, 4), np.float32, "CT")
    x, y, z = np.indices(data.shape)
    np.testing.assert_array_equal(data, 2 * (100 * z + y + 10 * x) - 1000)
    for index in ((0, 0, 0), (6, 0, 1), (2, 4, 3)):
        lps = np.array([10.0, -20.0, 30.0]) + 0.75 * index[0] * ROW + 0.5 * index[1] * COLUMN + [0, 0, 2.5 * index[2]]
        np.testing.assert_allclose(affine @ [*index, 1], [*lps_to_ras(lps), 1], atol=1e-6)
    assert series.notes == ("1 other files in the folder are no DICOM images and were passed over.",)


def test_a_folder_is_read_as_an_image(folder):
    np.testing.assert_array_equal(load_image(folder).data, read_series(folder).volume.data)


def test_nobody_is_named(folder, monkeypatch):
    read = []
    reader = pydicom.dcmread

    def watched(*arguments, **options):
        read.append(reader(*arguments, **options))
        return read[-1]

    monkeypatch.setattr(pydicom, "dcmread", watched)
    read_series(folder)
    assert len(read) == 8
    assert not any("Patient" in element.keyword[:7] for dataset in read for element in dataset)


def test_a_slice_alone_has_its_thickness(tmp_path):
    write_slice(tmp_path, 0)
    assert np.linalg.norm(read_series(tmp_path).volume.affine[:3, 2]) == pytest.approx(2.0)
    (tmp_path / "0-0.dcm").unlink()
    write_slice(tmp_path, 0, change=lambda header: header.pop("SliceThickness"))
    assert read_series(tmp_path).notes == ("The files do not say how thick the slice is: 1 mm was assumed.",)


def setter(**values):
    def change(header):
        for name, value in values.items():
            setattr(header, name, value)

    return change


@pytest.mark.parametrize(
    ("slices", "error", "match"),
    [
        ([(0, None), (1, None), (3, None), (4, None)], GeometryError, "missing"),
        ([(0, None), (1, setter(ImagePositionPatient=[10.0, -20.0, 30.0]))], GeometryError, "same place"),
        ([(n, setter(ImagePositionPatient=[10.0, n, 30 + 2.5 * n])) for n in range(3)], GeometryError, "21.8 degrees"),
        ([(0, None), (1, setter(PixelSpacing=[0.5, 0.8]))], GeometryError, "pixel spacing"),
        ([(0, None), (1, setter(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))], GeometryError, "direction"),
        ([(0, None), (1, setter(Rows=2, PixelData=bytes(2 * 2 * SHAPE[1])))], FormatError, "differ in Rows: 2, 5"),
        ([(0, lambda header: header.pop("ImagePositionPatient"))], GeometryError, "ImagePositionPatient"),
        ([(0, setter(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]))], GeometryError, "perpendicular"),
        ([(0, setter(PixelSpacing=[0.0, 1.0]))], GeometryError, "positive"),
        ([(0, None), (1, setter(SeriesInstanceUID=generate_uid()))], FormatError, "2 series"),
        ([(0, None), (1, setter(Modality="MR"))], FormatError, "Modality: CT, MR"),
        ([(0, setter(NumberOfFrames=2))], FormatError, "2 frames"),
        ([(0, setter(SamplesPerPixel=3))], FormatError, "colour"),
        ([(0, setter(Rows=60_000, Columns=60_000))], FormatError, "asks for"),
        ([(0, setter(Rows=50))], FormatError, "cannot be read as DICOM"),
        ([(0, setter(BitsAllocated=12))], FormatError, "12 bits"),
        ([], FormatError, "no DICOM images"),
    ],
)
def test_other_folders_are_refused(tmp_path, slices, error, match):
    for number, change in slices:
        write_slice(tmp_path, number, change=change)
    with pytest.raises(error, match=match):
        read_series(tmp_path)


def test_truncated_files_are_refused(folder):
    path = next(folder.iterdir())
    content = path.read_bytes()
    for size in range(140, len(content), 41):
        path.write_bytes(content[:size])
        with pytest.raises((FormatError, GeometryError)):
            read_series(folder)


def test_a_real_series(data_dir):
    series = read_series(data_dir / "dicom_ct_plastichead")
    data = series.volume.data
    assert (data.shape, series.modality) == ((512, 512, 17), "CT")
    assert (data.min(), data.max()) == (-1024, 782)
    np.testing.assert_allclose(np.linalg.norm(series.volume.affine[:3, :3], axis=0), [0.451172, 0.451172, 5], rtol=1e-5)
