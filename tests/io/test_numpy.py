import contextlib
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipmed.io.numpy_file import read
from dipmed.scan import FormatError, ShapeError

SHAPE = (16, 12)


def coil_images(n_coils: int = 2, shape: tuple[int, ...] = SHAPE):
    """An object off the centre but far from the edges, that no turn or flip leaves as it is."""
    image = np.zeros(shape, complex)
    image[tuple(slice(n // 2 - 2, n // 2 + 3) for n in shape)] = 1
    image[tuple(n // 2 - 2 for n in shape)] = 3
    return np.stack([image * (coil + 1j) for coil in range(n_coils)])


def centred_fft(images, ndim: int = 2):
    axes = tuple(range(-ndim, 0))
    shifted = np.fft.ifftshift(images, axes=axes)
    return np.fft.fftshift(np.fft.fftn(shifted, axes=axes), axes=axes).astype(np.complex64)


def images_of(scan):
    axes = tuple(range(-scan.ndim, 0))
    shifted = np.fft.ifftshift(scan.kspace, axes=axes)
    return np.fft.fftshift(np.fft.ifftn(shifted, axes=axes), axes=axes)


def save(folder, array, **sidecar):
    path = folder / "scan.npy"
    np.save(path, array)
    if sidecar:
        path.with_suffix(".json").write_text(json.dumps(sidecar))
    return path


def test_three_axes_are_coil_x_y(tmp_path):
    scan = read(save(tmp_path, centred_fft(coil_images())))
    assert scan.kspace.shape == (1, 1, 2, *SHAPE)
    np.testing.assert_allclose(images_of(scan)[0, 0], coil_images(), atol=1e-5)
    assert any("taken as (coil, x, y)" in sentence for sentence in scan.assumptions)
    assert any("1 mm" in sentence for sentence in scan.assumptions)


def test_four_axes_are_slice_coil_x_y(tmp_path):
    kspace = np.stack([centred_fft(coil_images()) * factor for factor in (1, 2, 3)])
    scan = read(save(tmp_path, kspace))
    assert scan.kspace.shape == (1, 3, 2, *SHAPE)
    np.testing.assert_array_equal(scan.kspace[0, 2], kspace[2])


def test_one_coil(tmp_path):
    assert read(save(tmp_path, centred_fft(coil_images(1))[0])).n_coils == 1


def test_six_axes_need_a_sidecar(tmp_path):
    with pytest.raises(FormatError, match=r"6 axes .* JSON file"):
        read(save(tmp_path, np.ones((1, 1, 1, 4, 4, 4), np.complex64)))


def test_sidecar_names_the_axes(tmp_path):
    kspace = centred_fft(coil_images(2, (8, 6, 10)), 3)
    path = save(tmp_path, kspace.transpose(3, 0, 2, 1), axes=["z", "coil", "y", "x"], voxel_mm=[1, 2, 3])
    scan = read(path)
    assert scan.kspace.shape == (1, 1, 2, 8, 6, 10)
    np.testing.assert_allclose(images_of(scan)[0, 0], coil_images(2, (8, 6, 10)), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), [1, 2, 3])
    assert not any("axes" in sentence for sentence in scan.assumptions)


def test_sidecar_gives_affine_and_sequence(tmp_path):
    affine = [[0, -2, 0, 10], [2, 0, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]]
    sequence = {"field_strength_t": 3, "echo_times_s": [0.01, 0.02], "repetition_times_s": 0.5}
    scan = read(save(tmp_path, centred_fft(coil_images()), affine=affine, sequence=sequence))
    np.testing.assert_array_equal(scan.affine, affine)
    assert scan.sequence.field_strength_t == 3
    assert scan.sequence.echo_times_s == (0.01, 0.02)
    assert scan.sequence.repetition_times_s == (0.5,)
    assert not any("position" in sentence for sentence in scan.assumptions)


@pytest.mark.parametrize("shape", [(16, 12), (17, 13)])
@pytest.mark.parametrize("centre", ["centre", "corner"])
@pytest.mark.parametrize("image_centre", ["centre", "corner"])
@pytest.mark.parametrize("said", [True, False])
def test_origin_in_the_corner_is_moved_to_the_centre(tmp_path, shape, centre, image_centre, said):
    images = coil_images(2, shape)
    kspace = centred_fft(images) if image_centre == "centre" else np.fft.fftshift(np.fft.fft2(images), axes=(1, 2))
    if centre == "corner":
        kspace = np.fft.ifftshift(kspace, axes=(1, 2))
    sidecar = {"centre": centre, "image_centre": image_centre} if said else {}
    scan = read(save(tmp_path, kspace, **sidecar))
    np.testing.assert_allclose(images_of(scan)[0, 0], images, atol=1e-4)
    assert any("centre of k-space was taken" in sentence for sentence in scan.assumptions) != said


def test_a_plain_fft2_keeps_its_unsampled_lines_empty(tmp_path):
    kspace = np.fft.fft2(coil_images()).astype(np.complex64)
    kspace[:, :, 3:6] = 0
    scan = read(save(tmp_path, kspace))
    expected = np.ones(12, bool)
    expected[3:6] = False
    np.testing.assert_array_equal(scan.mask[0, 0], np.broadcast_to(np.fft.fftshift(expected), SHAPE))
    assert (scan.kspace[..., ~scan.mask[0, 0, 0]] == 0).all()


@pytest.mark.parametrize(
    ("sidecar", "words"),
    [
        ({"axis": ["x", "y"]}, "'axis'; allowed are variable, axes, centre"),
        ({"method": "dip", "seed": 0}, "rename the file"),
        ({"axes": ["coil", "x"]}, "x and y are needed"),
        ({"axes": ["x", "y", "x"]}, "may come twice"),
        ({"axes": ["x", "y", "t"]}, "names out of frame, slice, coil"),
        ({"axes": ["x", "y"]}, "3 axes .* but 2 are described"),
        ({"axes": "xyz"}, "names out of"),
        ({"axes": [["x"], "y"]}, "names out of"),
        ({"centre": "middle"}, "'centre' or 'corner'"),
        ({"voxel_mm": [1, 1]}, "three positive sizes"),
        ({"voxel_mm": [1, 1, -1]}, "three positive sizes"),
        ({"voxel_mm": [1, 1, True]}, "expected numbers"),
        ({"voxel_mm": [1, 1, 10**400]}, "voxel_mm"),
        ({"affine": [[1, 0, 0, 0]] * 4}, "last one 0, 0, 0, 1"),
        ({"affine": [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "one plane"),
        ({"sequence": {"echo_time": 1}}, "field_strength_t, repetition_times_s"),
        ({"matrix": [64, 0]}, "whole numbers from 2"),
        ({"variable": "kspace"}, "one array, so its JSON file cannot name variable"),
    ],
)
def test_sidecar_that_is_not_valid(tmp_path, sidecar, words):
    with pytest.raises(FormatError, match=words):
        read(save(tmp_path, centred_fft(coil_images()), **sidecar))


@pytest.mark.parametrize("text", ["", "{", "[1]", "NaN", '{"voxel_mm": [1, 1, NaN]}', "[" * 100000, "\ud800"])
def test_sidecar_that_is_no_json_object(tmp_path, text):
    path = save(tmp_path, centred_fft(coil_images()))
    path.with_suffix(".json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FormatError, match=r"scan\.json"):
        read(path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((2, 8, 8)), "float64 numbers, but k-space is complex"),
        (np.ones((2, 8, 8), int), "k-space is complex"),
        (np.zeros((2, 8, 8), complex), "all 128 samples"),
        (np.full((2, 8, 8), 1e-60, complex), "all 128 samples"),
        (np.full((2, 8, 8), 1e60, complex), "128 of 128 samples .* larger than 1e15"),
        (np.full((2, 8, 8), 1e30, complex), "128 of 128 samples .* larger than 1e15"),
        (np.full((2, 8, 8), complex(np.nan, 1)), "128 of 128 samples .* NaN"),
        (np.ones((2, 0, 8), complex), "empty"),
        (np.ones((2, 1, 8), complex), "at least 2 x 2"),
        (np.ones(8, complex), "1 axes"),
        (np.array([None, {}]), "not plain numbers"),
        (np.array(["a", "b"]), "not plain numbers"),
        (np.zeros(3, [("a", "f4")]), "not plain numbers"),
    ],
)
def test_arrays_that_are_no_kspace(tmp_path, array, words):
    with pytest.raises(FormatError, match=words):
        read(save(tmp_path, array))


def npy_header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin-1")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"hello, this is a text",
        npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': (1152921504606846976,), }\n"),
        npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': (4294967296, 4294967296, 16), }\n"),
        npy_header("{'descr': '<c8', 'fortran_order': False, 'shape': (-1, 2), }\n") + bytes(16),
        npy_header("__import__('os').system('true')\n"),
        npy_header("(" * 5000),
        npy_header("{'descr': '<c8'\n"),
    ],
)
def test_damaged_npy(tmp_path, content):
    path = tmp_path / "scan.npy"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"scan\.npy"):
        read(path)


def test_truncated_npy(tmp_path):
    path = save(tmp_path, centred_fft(coil_images()))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(FormatError, match="3072 bytes, but has 3064; it is truncated"):
        read(path)


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was run",))


def test_pickle_is_never_run(tmp_path):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    content.write(pickle.dumps(Bomb()))
    (tmp_path / "scan.npy").write_bytes(content.getvalue())
    with pytest.raises(FormatError, match="not plain numbers"):
        read(tmp_path / "scan.npy")
    with zipfile.ZipFile(tmp_path / "scan.npz", "w") as archive:
        archive.writestr("kspace.npy", content.getvalue())
    with pytest.raises(FormatError, match="no complex array"):
        read(tmp_path / "scan.npz")


def save_npz(folder, **arrays):
    path = folder / "scan.npz"
    np.savez(path, **arrays)
    return path


def test_npz_with_a_mask(tmp_path):
    kspace = centred_fft(coil_images())
    mask = np.arange(12) % 2 == 0
    scan = read(save_npz(tmp_path, kspace=kspace, mask=mask, maps=coil_images()))
    np.testing.assert_array_equal(scan.mask[0, 0], np.broadcast_to(mask, SHAPE))
    assert (scan.kspace[..., ~mask] == 0).all()
    np.testing.assert_array_equal(scan.kspace[..., mask], kspace[None, None][..., mask])


@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (np.ones(11), ShapeError, "the mask has the shape"),
        (np.full(12, 2), FormatError, "0 .* and 1"),
        (np.zeros(12), FormatError, "nothing was sampled"),
        (np.full(12, np.nan), FormatError, "0 .* and 1"),
    ],
)
def test_npz_with_a_mask_that_does_not_fit(tmp_path, mask, error, words):
    with pytest.raises(error, match=words):
        read(save_npz(tmp_path, kspace=centred_fft(coil_images()), mask=mask))


def test_npz_of_several_arrays(tmp_path):
    kspace = centred_fft(coil_images())
    assert read(save_npz(tmp_path, something=kspace, other=np.ones(3))).n_coils == 2
    path = save_npz(tmp_path, first=kspace, second=kspace[:1])
    with pytest.raises(FormatError, match=r"first, second; name it in scan\.json"):
        read(path)
    path.with_suffix(".json").write_text('{"variable": "second"}')
    assert read(path).n_coils == 1
    path.with_suffix(".json").write_text('{"variable": "third"}')
    with pytest.raises(FormatError, match="no array 'third'"):
        read(path)


def test_npz_with_a_trajectory(tmp_path):
    spokes = radial(5, 32)
    samples = np.ones((3, 5, 32), np.complex64)
    scan = read(save_npz(tmp_path, kspace=samples, traj=spokes))
    assert not scan.is_cartesian
    assert scan.kspace.shape == (1, 1, 3, 160)
    assert scan.image_shape == (32, 32)
    np.testing.assert_allclose(scan.trajectory[0].reshape(5, 32, 2), spokes * 32, rtol=1e-6)


def test_trajectory_in_another_unit(tmp_path):
    with pytest.raises(FormatError, match=r"cycles per pixel, -0\.5 to 0\.5, but reaches 16"):
        read(save_npz(tmp_path, kspace=np.ones((3, 5, 32), np.complex64), traj=radial(5, 32) * 32))


def radial(n_spokes: int, n_samples: int):
    angles = np.arange(n_spokes) * np.pi / n_spokes
    radius = (np.arange(n_samples) - n_samples // 2) / n_samples
    return np.stack([np.cos(angles)[:, None] * radius, np.sin(angles)[:, None] * radius], axis=-1)


def test_zip_bomb(tmp_path):
    path = tmp_path / "scan.npz"
    header = io.BytesIO()
    shape = (64 * 2**20 // 8,)
    np.lib.format.write_array_header_1_0(header, {"descr": "<c8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("kspace.npy", header.getvalue() + bytes(64 * 2**20))
    with pytest.raises(FormatError, match=r"kspace\.npy asks for 64 MiB but only 6.* KiB"):
        read(path)


def test_npz_packed_in_an_unusual_way(tmp_path):
    content = io.BytesIO()
    np.save(content, centred_fft(coil_images()))
    with zipfile.ZipFile(tmp_path / "scan.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("kspace.npy", content.getvalue())
    with pytest.raises(FormatError, match="unusual way"):
        read(tmp_path / "scan.npz")


@pytest.mark.parametrize("packed", [False, True])
@given(data=st.data())
def test_damaged_npz_never_crashes(tmp_path_factory, packed, data):
    path = tmp_path_factory.mktemp("fuzz") / "scan.npz"
    (np.savez_compressed if packed else np.savez)(path, kspace=centred_fft(coil_images()), mask=np.ones(12))
    damage(path, data)
    with contextlib.suppress(FormatError, ShapeError):
        read(path)


@given(data=st.data())
def test_damaged_npy_never_crashes(tmp_path_factory, data):
    path = save(tmp_path_factory.mktemp("fuzz"), centred_fft(coil_images()))
    damage(path, data, 0, 128)
    with contextlib.suppress(FormatError, ShapeError):
        read(path)


def damage(path, data, first: int = 0, last: int | None = None):
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(first, (last or len(content)) - 1))] = data.draw(st.integers(0, 255))
    keep = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    path.write_bytes(content[:keep])
