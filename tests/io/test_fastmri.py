import contextlib

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipmed.io.fastmri_file import read
from dipmed.io.trajectory_hdf5 import read as read_trajectory
from dipmed.scan import FormatError, ShapeError

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
  <subjectInformation><patientName>Doe^Jane</patientName><patientID>ID-4711</patientID></subjectInformation>
  <acquisitionSystemInformation><systemFieldStrength_T>2.89</systemFieldStrength_T></acquisitionSystemInformation>
  <encoding>
    <encodedSpace><matrixSize><x>16</x><y>10</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>320</x><y>150</y><z>7.5</z></fieldOfView_mm></encodedSpace>
    <reconSpace><matrixSize><x>8</x><y>8</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>160</x><y>120</y><z>5</z></fieldOfView_mm></reconSpace>
    <trajectory>cartesian</trajectory>
  </encoding>
  <sequenceParameters><TR>2200</TR><TE>27</TE><TE>54</TE><flipAngle_deg>90</flipAngle_deg></sequenceParameters>
</ismrmrdHeader>"""


def kspace(*shape: int):
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def save(folder, **datasets):
    path = folder / "scan.h5"
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file[name] = value
        file.attrs["patient_id"] = "ID-4711"
    return path


def test_several_coils(tmp_path):
    array = kspace(3, 2, 16, 10)
    scan = read(save(tmp_path, kspace=array, ismrmrd_header=HEADER))
    np.testing.assert_array_equal(scan.kspace, array[None])
    assert scan.mask.all()
    assert scan.image_shape == (8, 10)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [20, 15, 5])
    assert scan.sequence.field_strength_t == 2.89
    assert scan.sequence.echo_times_s == (0.027, 0.054)
    assert scan.sequence.repetition_times_s == (2.2,)
    assert scan.sequence.flip_angles_rad == (pytest.approx(np.pi / 2),)


def test_the_person_is_not_in_the_scan(tmp_path):
    scan = read(save(tmp_path, kspace=kspace(3, 2, 16, 10), ismrmrd_header=HEADER))
    assert "Doe" not in repr(scan)
    assert "ID-4711" not in repr(scan)


def test_one_coil(tmp_path):
    array = kspace(3, 16, 10)
    scan = read(save(tmp_path, kspace=array, ismrmrd_header=HEADER))
    np.testing.assert_array_equal(scan.kspace[0, :, 0], array)


def test_mask_of_the_file(tmp_path):
    mask = np.arange(10) % 3 == 0
    array = kspace(3, 2, 16, 10)
    scan = read(save(tmp_path, kspace=array * mask, ismrmrd_header=HEADER, mask=mask.astype(np.float32)))
    np.testing.assert_array_equal(scan.mask, np.broadcast_to(mask, (1, 3, 16, 10)))
    assert not any("no sampling mask" in sentence for sentence in scan.assumptions)
    assert scan.notes == ()
    scan = read(save(tmp_path, kspace=array, ismrmrd_header=HEADER, mask=mask))
    np.testing.assert_array_equal(scan.kspace[0], array * mask)
    assert "set to zero" in scan.notes[0]


def test_without_a_mask_zeros_are_not_sampled(tmp_path):
    array = kspace(3, 2, 16, 10)
    array[..., 4:7] = 0
    scan = read(save(tmp_path, kspace=array, ismrmrd_header=HEADER))
    np.testing.assert_array_equal(scan.mask[0, 0, 0], array[0, 0, 0] != 0)
    assert any("no sampling mask" in sentence for sentence in scan.assumptions)


def test_without_a_header(tmp_path):
    scan = read(save(tmp_path, kspace=kspace(1, 2, 16, 10)))
    assert scan.image_shape == (16, 10)
    assert any("no header" in sentence for sentence in scan.assumptions)
    assert read(save(tmp_path, kspace=kspace(1, 2, 16, 10), ismrmrd_header=HEADER.encode())).image_shape == (8, 10)


def test_rows_that_have_no_oversampling_any_more(tmp_path):
    scan = read(save(tmp_path, kspace=kspace(1, 2, 8, 10), ismrmrd_header=HEADER))
    assert scan.image_shape == (8, 10)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [20, 15, 5])
    assert any("no readout oversampling" in sentence for sentence in scan.assumptions)


@pytest.mark.parametrize(
    ("datasets", "error", "words"),
    [
        ({"reconstruction": np.ones(3)}, FormatError, "no data set 'kspace', only reconstruction"),
        ({}, FormatError, "only nothing"),
        ({"kspace": np.ones((2, 3, 8, 8))}, FormatError, "k-space is complex"),
        ({"kspace": kspace(8, 8)}, FormatError, "slice, coil, row, column"),
        ({"kspace": kspace(1, 1, 1, 8, 8)}, FormatError, "slice, coil, row, column"),
        ({"kspace": h5py.Empty("c8")}, FormatError, "slice, coil, row, column"),
        ({"kspace": np.zeros((1, 2, 8, 8), np.complex64)}, FormatError, "all 128 samples"),
        ({"kspace": np.full((1, 2, 8, 8), np.nan, np.complex64)}, FormatError, "128 of 128 samples"),
        ({"kspace": kspace(1, 2, 8, 8), "mask": np.ones(7)}, ShapeError, r"mask of the file has the shape \(7,\)"),
        ({"kspace": kspace(1, 2, 8, 8), "mask": np.zeros(8)}, FormatError, "nothing was sampled"),
        ({"kspace": kspace(1, 2, 8, 8), "ismrmrd_header": "<html/>"}, FormatError, "no ISMRMRD header"),
        ({"kspace": kspace(1, 2, 8, 8), "ismrmrd_header": b"\xff\xfe"}, FormatError, "scan.h5"),
        ({"kspace": kspace(1, 2, 8, 8), "ismrmrd_header": np.ones(3)}, FormatError, "one string"),
        ({"kspace": kspace(1, 2, 8, 8), "ismrmrd_header": "<!DOCTYPE x []>" + HEADER}, FormatError, "entities"),
    ],
)
def test_files_that_hold_something_else(tmp_path, datasets, error, words):
    path = save(tmp_path, **datasets)
    with pytest.raises(error, match=words):
        read(path)


@pytest.mark.parametrize("content", [b"", b"just a text", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(1000)])
def test_no_hdf5(tmp_path, content):
    path = tmp_path / "scan.h5"
    path.write_bytes(content)
    with pytest.raises(FormatError, match="truncated or damaged"):
        read(path)


def test_truncated(tmp_path):
    path = save(tmp_path, kspace=kspace(3, 2, 16, 10))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(FormatError, match="truncated"):
        read(path)


def test_array_that_was_never_written(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("kspace", (2**15, 2**15, 2**15, 2**15), np.complex64, chunks=(1, 1, 64, 64))
    with pytest.raises(FormatError, match="8 EiB but only 0 bytes"):
        read(path)


def test_packed_bomb(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        shape = (1, 1, 2**12, 2**11)
        file.create_dataset("kspace", data=np.zeros(shape, np.complex64), chunks=shape, compression="gzip")
    with pytest.raises(FormatError, match="64 MiB but only"):
        read(path)


def test_data_in_other_files_are_not_followed(tmp_path):
    save(tmp_path, kspace=kspace(1, 2, 8, 8)).rename(tmp_path / "other.h5")
    linked, stored, virtual = (tmp_path / name for name in ("linked.h5", "stored.h5", "virtual.h5"))
    (tmp_path / "raw").write_bytes(bytes(8 * 128))
    with h5py.File(linked, "w") as file:
        file["kspace"] = h5py.ExternalLink("other.h5", "kspace")
    with h5py.File(stored, "w") as file:
        outside = [(str(tmp_path / "raw"), 0, 8 * 128)]
        file.create_dataset("kspace", (1, 2, 8, 8), np.complex64, external=outside)
    with h5py.File(virtual, "w") as file:
        layout = h5py.VirtualLayout((1, 2, 8, 8), np.complex64)
        layout[:] = h5py.VirtualSource("other.h5", "kspace", (1, 2, 8, 8))
        file.create_virtual_dataset("kspace", layout)
    for path in (linked, stored, virtual):
        with pytest.raises(FormatError, match="lies in another file"):
            read(path)


@given(data=st.data())
def test_damaged_files_never_crash(tmp_path_factory, data):
    path = save(tmp_path_factory.mktemp("fuzz"), kspace=kspace(1, 2, 8, 8), ismrmrd_header=HEADER, mask=np.ones(8))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(content[:keep])
    with contextlib.suppress(FormatError, ShapeError):
        read(path)


def radial(n_frames: int, n_spokes: int, n_samples: int):
    angles = np.arange(n_frames * n_spokes).reshape(n_frames, n_spokes, 1)
    radius = (np.arange(n_samples) - n_samples // 2) / n_samples
    return np.stack([np.cos(angles) * radius, np.sin(angles) * radius], axis=-1)


def test_trajectory(tmp_path):
    samples, positions = kspace(4, 2, 5, 32), radial(4, 5, 32)
    path = save(tmp_path, kspace=samples, traj=positions, dcf=np.ones((5, 32)))
    with h5py.File(path, "a") as file:
        file.attrs["matrix"], file.attrs["TR_ms"], file.attrs["flip_angle_deg"] = [16, 16], 5.0, [1.0, 2.0, 3.0, 4.0]
    scan = read_trajectory(path)
    assert (scan.image_shape, scan.mask, scan.ndim) == ((16, 16), None, 2)
    np.testing.assert_array_equal(scan.kspace[3, 0, 1].reshape(5, 32), samples[3, 1])
    np.testing.assert_allclose(scan.trajectory[3].reshape(5, 32, 2), positions[3] * 16, rtol=1e-5)
    assert scan.sequence.repetition_times_s == (0.005,)
    assert len(scan.sequence.flip_angles_rad) == 4
    assert scan.notes == ("Not used: dcf.",)


@pytest.mark.parametrize(
    ("datasets", "error", "words"),
    [
        ({"kspace": kspace(1, 2, 5, 32)}, FormatError, "should hold 'kspace' and 'traj'"),
        ({"kspace": kspace(1, 2, 5, 32), "traj": radial(1, 4, 32)}, ShapeError, "the trajectory has the shape"),
        ({"kspace": kspace(1, 2, 5, 32), "traj": radial(1, 5, 32) * 1.1}, FormatError, "-0.5 to 0.5, but reaches 0.55"),
        ({"kspace": kspace(1, 2, 5, 32), "traj": radial(1, 5, 32) * np.nan}, FormatError, "reaches nan"),
        ({"kspace": kspace(1, 2, 5, 32), "traj": radial(1, 5, 32) * 0}, FormatError, "image size cannot be told"),
        ({"kspace": kspace(2, 5, 32), "traj": radial(1, 5, 32)}, FormatError, "frame, coil, spoke, sample"),
    ],
)
def test_trajectory_that_does_not_fit(tmp_path, datasets, error, words):
    path = save(tmp_path, **datasets)
    with pytest.raises(error, match=words):
        read_trajectory(path)


def test_real_fastmri(data_dir):
    scan = read(data_dir / "fastmri_vfa13/vfa13_fa11.h5")
    assert scan.kspace.shape == (1, 1, 13, 224, 224)
    assert scan.image_shape == (224, 224)
    assert scan.mask.all()
    assert scan.sequence.repetition_times_s == (pytest.approx(0.0048),)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), 1)
    shifted = np.fft.ifftshift(scan.kspace[0, 0], axes=(1, 2))
    image = np.sqrt((np.abs(np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(1, 2))) ** 2).sum(axis=0))
    with h5py.File(data_dir / "fastmri_vfa13/vfa13_fa11.h5") as file:
        expected = file["reconstruction_rss"][0]
    np.testing.assert_allclose(image / image.max(), expected / expected.max(), atol=1e-4)


def test_real_trajectory(data_dir):
    scan = read_trajectory(data_dir / "dyn_vfa_radial5/vfa_radial5.h5")
    assert scan.kspace.shape == (10, 1, 5, 34 * 512)
    assert scan.image_shape == (256, 256)
    assert np.abs(scan.trajectory).max() == pytest.approx(128, abs=0.3)
