import contextlib

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipmed.io.bart_file import read
from dipmed.io.cfl import read_cfl, write_cfl
from dipmed.scan import FormatError, OutputError


def kspace(*shape: int, seed: int = 0):
    """Values that are all different, strongest in the middle as in a measurement."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    for axis, n in enumerate(shape[:3]):
        distance = np.abs(np.arange(n) - n // 2).reshape([-1 if a == axis else 1 for a in range(len(shape))])
        values = values / (1 + distance**2)
    return values.astype(np.complex64)


def write(folder, array, header=None):
    write_cfl(folder / "scan.cfl", array)
    if header is not None:
        (folder / "scan.hdr").write_bytes(header)
    return folder / "scan.cfl"


@given(array=npst.arrays(np.complex64, npst.array_shapes(max_dims=6, max_side=4)))
def test_what_is_written_is_read(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("cfl") / "a.cfl"
    write_cfl(path, array)
    shape = list(array.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    np.testing.assert_array_equal(read_cfl(path), array.reshape(shape))


def test_the_first_axis_is_the_fastest(tmp_path):
    write_cfl(tmp_path / "a.cfl", np.arange(6).reshape(2, 3))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "a.cfl", "<c8"), [0, 3, 1, 4, 2, 5])
    assert (tmp_path / "a.hdr").read_text().splitlines()[:2] == ["# Dimensions", "2 3" + 14 * " 1"]


def test_existing_files_are_kept(tmp_path):
    write_cfl(tmp_path / "a.cfl", np.ones(2))
    with pytest.raises(OutputError, match="exists already"):
        write_cfl(tmp_path / "a.cfl", np.ones(3))
    assert read_cfl(tmp_path / "a").shape == (2,)


@pytest.mark.parametrize("name", ["scan.cfl", "scan.hdr", "scan"])
def test_either_file_or_the_stem_names_the_pair(tmp_path, name):
    write(tmp_path, kspace(8, 6, 1, 2))
    assert read(tmp_path / name).kspace.shape == (1, 1, 2, 8, 6)


def test_slices_coils_and_frames_go_to_their_axes(tmp_path):
    array = kspace(*(8, 6, 1, 2, 1, 3, 1, 1, 1, 1, 4, 1, 1, 5))
    scan = read(write(tmp_path, array))
    assert scan.kspace.shape == (12, 5, 2, 8, 6)
    assert scan.frame_labels[5] == {"contrast": 1, "time": 1}
    expected = array[:, :, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 3]
    np.testing.assert_array_equal(scan.kspace[5, 3, 1], expected)


def test_volume(tmp_path):
    array = kspace(8, 6, 4, 2)
    scan = read(write(tmp_path, array))
    assert (scan.ndim, scan.image_shape) == (3, (8, 6, 4))
    np.testing.assert_array_equal(scan.kspace[0, 0, 1], array[..., 1])


def test_plane_of_phase_encodes(tmp_path):
    scan = read(write(tmp_path, kspace(1, 12, 10, 2)))
    assert scan.image_shape == (12, 10)
    assert "both are phase encodes" in scan.assumptions[0]


def test_sampled_where_any_coil_is_not_zero(tmp_path):
    array = kspace(8, 6, 1, 2)
    array[:, 1] = 0
    array[3, 4, 0, 1] = 0
    scan = read(write(tmp_path, array))
    assert not scan.mask[0, 0, :, 1].any()
    assert scan.mask[0, 0, 3, 4]
    assert any("not exactly zero" in sentence for sentence in scan.assumptions)


def test_sidecar_gives_the_place(tmp_path):
    path = write(tmp_path, kspace(8, 6, 1, 2))
    assert any("1 mm was assumed" in sentence for sentence in read(path).assumptions)
    path.with_suffix(".json").write_text('{"voxel_mm": [2, 3, 5]}')
    np.testing.assert_allclose(np.linalg.norm(read(path).affine[:3, :3], axis=0), [2, 3, 5])
    path.with_suffix(".json").write_text('{"axes": ["x", "y"]}')
    with pytest.raises(FormatError, match="'axes'; allowed are voxel_mm, affine, sequence"):
        read(path)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"", "no BART header"),
        (b"# Command\nphantom\n", "no BART header"),
        (b"# Dimensions\n", "expected 1 to 16 sizes"),
        (b"# Dimensions\n8 six\n", "expected 1 to 16 sizes"),
        (b"# Dimensions\n8 -6\n", "expected 1 to 16 sizes"),
        (b"# Dimensions\n8 0\n", "a size is zero"),
        (b"# Dimensions\n" + b"1 " * 17, "expected 1 to 16 sizes"),
        (b"# Dimensions\n" + b"9" * 5000, "expected 1 to 16 sizes"),
        (b"# Dimensions\n8 6 1 3\n", "do not belong together"),
        (b"# Dimensions\n1152921504606846976\n", "8 EiB.*do not belong together"),
        (b"# Dimensions\n" + b"4096 " * 5, "1024 EiB|do not belong together"),
        (b"\xff\xfe" * 100, "no BART header"),
        (b"# Dimensions\n8 6\n" + b"x" * 2**17, "no BART header"),
    ],
)
def test_header_that_cannot_be_right(tmp_path, header, words):
    path = write(tmp_path, kspace(8, 6, 1, 2), header)
    with pytest.raises(FormatError, match=words):
        read(path)


def test_missing_partner(tmp_path):
    path = write(tmp_path, kspace(8, 6, 1, 2))
    path.with_suffix(".hdr").unlink()
    with pytest.raises(FormatError, match=r"scan\.hdr is missing"):
        read(path)


def test_truncated_data(tmp_path):
    path = write(tmp_path, kspace(8, 6, 1, 2))
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FormatError, match="do not belong together"):
        read(path)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "1 of 96 samples"), (np.inf, "1 of 96 samples")])
def test_samples_that_are_no_numbers(tmp_path, value, words):
    array = kspace(8, 6, 1, 2)
    array[1, 2, 0, 1] = value
    with pytest.raises(FormatError, match=words):
        read(write(tmp_path, array))


def test_all_zero(tmp_path):
    with pytest.raises(FormatError, match="all 96 samples"):
        read(write(tmp_path, np.zeros((8, 6, 1, 2))))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((8, 6, 1, 2, 2), r"maps \(axis 4\): 2"),
        ((8, 1, 1, 2), "at least two"),
        ((8, 6, 4, 2) + 9 * (1,) + (3,), "one slab"),
    ],
)
def test_arrays_that_are_no_plain_kspace(tmp_path, shape, words):
    with pytest.raises(FormatError, match=words):
        read(write(tmp_path, kspace(*shape)))


def test_radial_lines_are_refused(tmp_path):
    lines = np.repeat(kspace(1, 32, 1, 2), 20, axis=2)
    with pytest.raises(FormatError, match="looks radial"):
        read(write(tmp_path, lines))


@given(data=st.data())
def test_damaged_headers_never_crash(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    path = write(folder, kspace(8, 6, 1, 2))
    header = bytearray((folder / "scan.hdr").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    (folder / "scan.hdr").write_bytes(header[: data.draw(st.integers(0, len(header)))])
    with contextlib.suppress(FormatError):
        read(path)


@pytest.mark.parametrize(
    ("name", "shape", "sampled"),
    [
        ("bart_brain8/full.cfl", (1, 1, 8, 230, 180), 1.0),
        ("bart_brain8/und2x2.hdr", (1, 1, 8, 230, 180), 0.257),
        ("dyn_vfa_cart4/vfa_cart4.cfl", (6, 1, 4, 224, 224), 1.0),
        ("sim3d_mc6/ksp.cfl", (1, 1, 6, 52, 64, 48), 1.0),
    ],
)
def test_real_files(data_dir, name, shape, sampled):
    scan = read(data_dir / name)
    assert scan.kspace.shape == shape
    assert scan.mask.mean() == pytest.approx(sampled, abs=1e-3)
    assert strongest_is_central(scan.kspace, scan.ndim)


def strongest_is_central(array, ndim: int) -> bool:
    energy = (np.abs(array) ** 2).sum(axis=(0, 1, 2))
    peak = np.unravel_index(energy.argmax(), energy.shape)
    return all(abs(int(i) - n // 2) <= 2 for i, n in zip(peak, energy.shape[-ndim:], strict=True))
