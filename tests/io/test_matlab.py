import contextlib
import struct
import zlib

import h5py
import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import savemat

from dipmed.io.mat5 import list_variables, read_variable
from dipmed.io.matlab_file import read
from dipmed.scan import FormatError, ShapeError

REAL = [np.float64, np.float32, np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


def kspace(*shape: int):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    values[tuple(n // 2 for n in shape[:2])] *= 100
    return values


def save(folder, version: str, **arrays):
    path = folder / "scan.mat"
    if version != "v7.3":
        savemat(path, arrays, do_compression=version == "v7", oned_as="column")
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = np.transpose(array)
            if np.iscomplexobj(stored):
                pair = np.zeros(stored.shape, [("real", "<f8"), ("imag", "<f8")])
                pair["real"], pair["imag"] = stored.real, stored.imag
                stored = pair
            file.create_dataset(name, data=stored)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    return path


versions = pytest.mark.parametrize("version", ["v6", "v7", "v7.3"])


@versions
def test_three_axes_are_x_y_coil(tmp_path, version):
    array = kspace(8, 6, 2)
    scan = read(save(tmp_path, version, ksp=array))
    assert scan.kspace.shape == (1, 1, 2, 8, 6)
    np.testing.assert_allclose(scan.kspace[0, 0, 1], array[:, :, 1], rtol=1e-6)
    assert "'ksp' was taken as the k-space" in scan.assumptions[0]
    assert "(x, y, coil)" in scan.assumptions[1]


@versions
def test_four_axes_are_x_y_slice_coil(tmp_path, version):
    array = kspace(8, 6, 3, 2)
    scan = read(save(tmp_path, version, something=array, TR=0.5, mask=np.ones((8, 6))))
    assert scan.kspace.shape == (1, 3, 2, 8, 6)
    np.testing.assert_allclose(scan.kspace[0, 2, 1], array[:, :, 2, 1], rtol=1e-6)


@versions
def test_sidecar_goes_first(tmp_path, version):
    array = kspace(2, 8, 6)
    path = save(tmp_path, version, kspace=kspace(4, 4, 4), other=array)
    path.with_suffix(".json").write_text('{"variable": "other", "axes": ["coil", "x", "y"], "centre": "centre"}')
    scan = read(path)
    np.testing.assert_allclose(scan.kspace[0, 0], array, rtol=1e-6)
    assert not any("taken as the k-space" in sentence for sentence in scan.assumptions)


@versions
def test_candidates_are_listed(tmp_path, version):
    with pytest.raises(FormatError, match=r"first, second; name it in scan\.json"):
        read(save(tmp_path, version, first=kspace(8, 6, 2), second=kspace(8, 6, 2)))
    with pytest.raises(FormatError, match=r"no complex array .* a: \(8, 6, 2\) real"):
        read(save(tmp_path, version, a=np.ones((8, 6, 2))))


@versions
def test_usual_name_in_capitals(tmp_path, version):
    scan = read(save(tmp_path, version, KSpace=kspace(8, 6, 2), maps=kspace(8, 6, 2)))
    assert "'KSpace'" in scan.assumptions[0]


@versions
@pytest.mark.parametrize("as_complex", [True, False])
def test_trajectory(tmp_path, version, as_complex):
    radius = (np.arange(16) - 8) / 16
    angles = np.arange(5)
    positions = radius[:, None] * np.exp(1j * angles)
    samples = np.arange(16 * 5 * 3).reshape(16, 5, 3) + 1j
    trajectory = positions if as_complex else np.stack([positions.real, positions.imag], axis=-1)
    scan = read(save(tmp_path, version, rawdata=samples, k=trajectory))
    assert scan.kspace.shape == (1, 1, 3, 80)
    assert scan.image_shape == (16, 16)
    np.testing.assert_allclose(scan.kspace[0, 0, 2].reshape(5, 16), samples[:, :, 2].T, rtol=1e-6)
    found = scan.trajectory[0].reshape(5, 16, 2)
    np.testing.assert_allclose(found[..., 0] + 1j * found[..., 1], positions.T * 16, atol=1e-5)


@versions
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((8, 6, 2), complex(0, np.nan)), "96 of 96 samples"),
        (np.zeros((8, 6, 2), complex), "all 96 samples"),
    ],
)
def test_samples_that_cannot_be(tmp_path, version, array, words):
    path = save(tmp_path, version, kspace=array)
    with pytest.raises(FormatError, match=words):
        read(path)


@given(
    array=npst.arrays(st.sampled_from(REAL), npst.array_shapes(min_dims=2, max_dims=4, max_side=3)),
    packed=st.booleans(),
)
def test_v5_reader_agrees_with_the_writer_of_scipy(tmp_path_factory, array, packed):
    path = tmp_path_factory.mktemp("mat") / "a.mat"
    savemat(path, {"text": "x", "cell": np.array([1, "x"], object), "a": array, "b": {"c": 1}}, do_compression=packed)
    variables = list_variables(path)
    assert list(variables) == ["a"]
    found = read_variable(path, variables["a"])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("packed", [True, False])
def test_v5_single_precision_complex(tmp_path, packed):
    array = kspace(3, 4, 2).astype(np.complex64)
    savemat(tmp_path / "a.mat", {"a": array}, do_compression=packed)
    variable = list_variables(tmp_path / "a.mat")["a"]
    assert variable.is_complex
    found = read_variable(tmp_path / "a.mat", variable)
    assert found.dtype == np.complex64
    np.testing.assert_array_equal(found, array)


def test_v5_of_a_big_endian_computer_with_doubles_kept_as_bytes(tmp_path):
    def element(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    content = element(6, struct.pack(">II", 0x0806, 0)) + element(5, struct.pack(">ii", 2, 2))
    content += struct.pack(">HH4s", 1, 1, b"a") + element(2, bytes([1, 2, 3, 4])) + element(1, bytes([5, 6, 7, 255]))
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x01\x00MI" + element(14, content))
    found = read_variable(path, list_variables(path)["a"])
    np.testing.assert_array_equal(found, [[1 + 5j, 3 + 7j], [2 + 6j, 4 - 1j]])


def test_no_matlab_file(tmp_path):
    path = tmp_path / "scan.mat"
    for content in (b"", b"text", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="no MATLAB v5 file"):
            read(path)


@versions
def test_truncated(tmp_path, version):
    path = save(tmp_path, version, kspace=kspace(16, 16, 4))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 1000])
    with pytest.raises(FormatError, match="truncated"):
        read(path)


def test_v5_sizes_that_the_file_cannot_hold(tmp_path):
    path = save(tmp_path, "v6", kspace=kspace(8, 6, 2))
    content = path.read_bytes()
    sizes = struct.pack("<iii", 8, 6, 2)
    assert content.count(sizes) == 1
    path.write_bytes(content.replace(sizes, struct.pack("<iii", 2**30, 2**30, 16)))
    with pytest.raises(FormatError, match="do not fill"):
        read(path)


def test_v5_bomb(tmp_path):
    head = struct.pack("<II", 6, 8) + struct.pack("<II", 0x0806, 0) + struct.pack("<IIii", 5, 8, 2**12, 2**11)
    head += struct.pack("<HH4s", 1, 3, b"ksp")
    inner = head + (struct.pack("<II", 9, 2**26) + bytes(2**26)) * 2
    packed = zlib.compress(struct.pack("<II", 14, len(inner)) + inner)
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(FormatError, match=r"asks for 128 MiB but only 1.* KiB"):
        read(path)


def test_v73_that_points_into_another_file(tmp_path):
    path = save(tmp_path, "v7.3", TR=np.ones((1, 1)))
    save(tmp_path, "v6", TR=np.ones((1, 1))).rename(tmp_path / "other.mat")
    path = save(tmp_path, "v7.3", TR=np.ones((1, 1)))
    with h5py.File(path, "a") as file:
        file["kspace"] = h5py.ExternalLink("other.mat", "/kspace")
    with pytest.raises(FormatError, match="lies in another file"):
        read(path)


@versions
@given(data=st.data())
def test_damaged_files_never_crash(tmp_path_factory, version, data):
    path = save(tmp_path_factory.mktemp("fuzz"), version, kspace=kspace(8, 6, 2), k=np.ones(3))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(content[:keep])
    with contextlib.suppress(FormatError, ShapeError):
        read(path)


def test_real_v73(data_dir):
    scan = read(data_dir / "mat73_brain16/raw_data.mat")
    assert scan.kspace.shape == (1, 1, 16, 96, 96)
    assert scan.mask.all()
    assert any("middle of the array, where the energy is" in sentence for sentence in scan.assumptions)


def test_real_radial_v5(data_dir):
    scan = read(data_dir / "radial_cardiac12/radial_cardiac_25_projections.mat")
    assert scan.kspace.shape == (1, 1, 12, 25 * 256)
    assert scan.image_shape == (256, 256)
    assert np.abs(scan.trajectory).max() == pytest.approx(128, abs=0.1)
    # the middle of each spoke is the centre of k-space, where the signal is strongest
    energy = (np.abs(scan.kspace[0, 0]) ** 2).sum(axis=0).reshape(25, 256).sum(axis=0)
    assert abs(int(energy.argmax()) - 128) <= 3
    radius = np.linalg.norm(scan.trajectory[0].reshape(25, 256, 2), axis=-1)
    assert (np.abs(radius.argmin(axis=1) - 128) <= 1).all()
