import errno
import gzip
import struct
import subprocess
import sys

import ismrmrd
import matplotlib.image
import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipmed.io import files
from dipmed.io.cfl import read_cfl
from dipmed.io.images import check_output, load_image, save_image
from dipmed.io.montage import montage
from dipmed.patient import MrdGeometry, affine_from_mrd, picture_affine
from dipmed.scan import FormatError, GeometryError, ImageVolume, OutputError

ENDINGS = [".nii.gz", ".nii", ".npz", ".cfl", ".h5", ".png"]
SHAPE = (6, 5, 4)


def oblique(voxel=(2.0, 3.0, 5.0), seed=0):
    """The affine of a turned volume away from the centre of the scanner."""
    rng = np.random.default_rng(seed)
    directions, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = directions * voxel
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    return affine


def volume(*shape: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    data = rng.standard_normal(shape or SHAPE) + 1j * rng.standard_normal(shape or SHAPE)
    return ImageVolume(data.astype(np.complex64), oblique(seed=seed))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".npz", ".cfl"])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3), (6, 5, 1)])
def test_what_is_saved_is_loaded(tmp_path, ending, keep, shape):
    image = volume(*shape)
    path = tmp_path / f"image{ending}"
    save_image(image, path, complex=keep)
    found = load_image(path)
    np.testing.assert_allclose(found.data, image.data if keep else np.abs(image.data), rtol=1e-6)
    assert found.data.dtype == (np.complex64 if keep or ending == ".cfl" else np.float32)
    if ending != ".cfl":
        np.testing.assert_allclose(found.affine, image.affine, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@given(seed=st.integers(0, 2**16), keep=st.booleans())
def test_nifti_as_nibabel_reads_it(tmp_path_factory, ending, seed, keep):
    path = tmp_path_factory.mktemp("nifti") / f"image{ending}"
    image = volume(seed=seed)
    save_image(image, path, complex=keep)
    found = nibabel.load(path)
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-4)
    # a half turn's quaternion, in single precision, is a few 1e-4 off, here times voxels of 5 mm
    np.testing.assert_allclose(found.header.get_qform(), image.affine, atol=0.01)
    assert (int(found.header["sform_code"]), int(found.header["qform_code"])) == (1, 1)
    assert found.header.get_xyzt_units() == ("mm", "unknown")
    np.testing.assert_allclose(found.header.get_zooms()[:3], (2, 3, 5), rtol=1e-5)
    assert found.get_data_dtype() == (np.complex64 if keep else np.float32)
    expected = image.data if keep else np.abs(image.data)
    np.testing.assert_allclose(np.asanyarray(found.dataobj), expected, rtol=1e-6)


def test_a_real_image_keeps_its_sign(tmp_path):
    image = ImageVolume(np.full(SHAPE, -1000.0), np.eye(4))
    save_image(image, tmp_path / "a.nii.gz")
    assert (load_image(tmp_path / "a.nii.gz").data == -1000).all()


def test_equal_images_are_equal_files(tmp_path):
    for name in ("first", "second"):
        for ending in (".nii.gz", ".npz", ".png"):
            save_image(volume(), tmp_path / (name + ending))
    for ending in (".nii.gz", ".npz", ".png"):
        assert (tmp_path / f"first{ending}").read_bytes() == (tmp_path / f"second{ending}").read_bytes()


@pytest.mark.parametrize("frames", [(), (3,)])
def test_ismrmrd_images_have_their_place(tmp_path, frames):
    image = volume(*SHAPE, *frames)
    save_image(image, tmp_path / "a.h5", complex=True)
    dataset = ismrmrd.Dataset(tmp_path / "a.h5", mode="r")
    assert dataset.number_of_images("image_0") == (frames or (1,))[0]
    last = dataset.read_image("image_0", (frames or (1,))[0] - 1)
    np.testing.assert_allclose(last.data[0], (image.data[..., -1] if frames else image.data).T, rtol=1e-6)
    head = last.getHead()
    assert (tuple(head.matrix_size), head.image_type) == (SHAPE, ismrmrd.IMTYPE_COMPLEX)
    np.testing.assert_allclose(tuple(head.field_of_view), (12, 15, 20), rtol=1e-5)
    vectors = [np.array(tuple(v)) for v in (head.position, head.read_dir, head.phase_dir, head.slice_dir)]
    np.testing.assert_allclose(
        affine_from_mrd(MrdGeometry(*vectors, (2, 3, 5)), SHAPE), image.affine, rtol=1e-3, atol=1e-3
    )
    dataset.close()


def test_ismrmrd_cannot_hold_a_sheared_image(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.5
    with pytest.raises(GeometryError, match="perpendicular"):
        save_image(ImageVolume(np.ones(SHAPE), affine), tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_bart_keeps_frames_on_the_time_axis(tmp_path):
    save_image(volume(*SHAPE, 3), tmp_path / "a.cfl")
    assert read_cfl(tmp_path / "a").shape == (*SHAPE, 1, 1, 1, 1, 1, 1, 1, 3)


@pytest.mark.parametrize("ending", ENDINGS)
def test_existing_files_are_kept_unless_forced(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"mine")
    for call in (lambda: save_image(volume(), path), lambda: check_output(path)):
        with pytest.raises(OutputError, match="exists already"):
            call()
    assert path.read_bytes() == b"mine"
    check_output(path, force=True)
    save_image(volume(), path, force=True)
    assert path.read_bytes() != b"mine"


def test_the_header_of_a_bart_pair_is_kept_too(tmp_path):
    (tmp_path / "a.hdr").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"a\.hdr exists already"):
        check_output(tmp_path / "a.cfl")


@pytest.mark.parametrize("name", ["image.tif", "image.gz", "image.nii.zip"])
def test_unknown_ending(tmp_path, name):
    with pytest.raises(OutputError, match=r"one of \.nii\.gz, \.nii, \.npz"):
        check_output(tmp_path / name)
    with pytest.raises(FormatError, match=r"one of \.nii\.gz, \.nii, \.npz"):
        load_image(tmp_path / name)


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(OutputError, match="folder does not exist"):
        check_output(tmp_path / "missing" / "a.nii.gz")


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_left_when_the_disk_is_full(tmp_path, monkeypatch, ending):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        save_image(volume(), tmp_path / f"a{ending}")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_system_stops_the_writing(tmp_path):
    # the nearest to a full disk that a test can make without a disk of its own
    script = """
import resource, sys
import numpy as np
from dipmed.io.images import save_image
from dipmed.scan import ImageVolume, OutputError
volume = ImageVolume(np.random.default_rng(0).random((64, 64, 4)), np.eye(4))
folder, *endings = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for ending in endings:
    try:
        save_image(volume, f"{folder}/a{ending}")
    except OutputError as error:
        assert "larger than this system allows" in str(error), error
    else:
        sys.exit(f"{ending} was written")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *ENDINGS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_voxels_that_are_no_numbers_are_not_written(tmp_path):
    image = volume()
    image.data[1, 2, 3] = np.nan
    with pytest.raises(OutputError, match="1 of 120 voxels"):
        save_image(image, tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


LEFT, RIGHT, FRONT, BACK, HEAD, FEET = (
    np.array(v, float) for v in ((-1, 0, 0), (1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
)


@pytest.mark.parametrize(
    ("directions", "top_left"),
    [
        # directions of the voxel axes, and the direction of the corner that is drawn at the top left
        ((RIGHT, FRONT, HEAD), RIGHT + FRONT),
        ((LEFT, BACK, HEAD), RIGHT + FRONT),
        ((BACK, LEFT, HEAD), RIGHT + FRONT),
        ((FRONT, LEFT, FEET), RIGHT + FRONT),
        ((RIGHT, HEAD, FRONT), RIGHT + HEAD),
        ((FEET, LEFT, BACK), RIGHT + HEAD),
        ((FRONT, HEAD, RIGHT), FRONT + HEAD),
        ((FEET, BACK, LEFT), FRONT + HEAD),
    ],
)
def test_pictures_are_turned_as_doctors_look_at_them(directions, top_left):
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions).T
    data = np.zeros((9, 9, 1))
    # one bright corner: the one that lies furthest towards the expected direction
    corners = [(x, y) for x in (0, 8) for y in (0, 8)]
    x, y = max(corners, key=lambda corner: float(affine[:3, :3] @ [*corner, 0] @ top_left))
    data[x, y] = 1
    picture = montage(ImageVolume(data, affine))
    assert picture[0, 0] == 255
    assert picture.sum() == 255


def test_rows_of_a_picture_stay_rows():
    data = np.arange(12.0).reshape(4, 3, 1)
    picture = montage(ImageVolume(data, picture_affine((1, 1, 1), data.shape)))
    np.testing.assert_allclose(picture, data[:, :, 0] / 11 * 255, atol=1)


def test_pixels_are_square_in_mm():
    assert montage(ImageVolume(np.ones((10, 20, 1)), picture_affine((2, 1, 5), (10, 20, 1)))).shape == (20, 20)


def test_montage_shows_all_slices_and_frames():
    image = ImageVolume(np.ones((8, 8, 3, 4)), picture_affine((1, 1, 1), (8, 8, 3)))
    assert (montage(image) == 255).sum() == 3 * 4 * 64
    many = ImageVolume(np.ones((4, 4, 500)), picture_affine((1, 1, 1), (4, 4, 500)))
    assert (montage(many) == 255).sum() == 64 * 16


def test_empty_image_is_a_black_picture(tmp_path):
    save_image(ImageVolume(np.zeros(SHAPE), np.eye(4)), tmp_path / "a.png")
    assert matplotlib.image.imread(tmp_path / "a.png")[..., :3].max() == 0


def test_png_is_the_montage(tmp_path):
    image = volume()
    save_image(image, tmp_path / "a.png", complex=True)
    found = matplotlib.image.imread(tmp_path / "a.png")
    np.testing.assert_allclose(found[..., 0] * 255, montage(image), atol=1)


def test_npy_and_npz_without_a_place(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((6, 5)))
    np.savez(tmp_path / "b.npz", image=np.ones(SHAPE))
    for name, shape in (("a.npy", (6, 5, 1)), ("b.npz", SHAPE)):
        found = load_image(tmp_path / name)
        assert found.data.shape == shape
        np.testing.assert_allclose(found.affine @ [*(n // 2 for n in shape), 1], [0, 0, 0, 1])


def test_units_of_a_nifti_are_turned_into_mm(tmp_path):
    image = nibabel.Nifti1Image(np.ones(SHAPE, np.float32), np.diag([0.002, 0.002, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_allclose(np.diag(load_image(tmp_path / "a.nii").affine), [2, 2, 2, 1], rtol=1e-5)


def save_nifti(folder, **fields):
    path = folder / "a.nii.gz"
    image = nibabel.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4))
    content = bytearray(image.to_bytes())
    for name, (offset, layout, *values) in fields.items():
        assert name
        struct.pack_into(layout, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"dim": (40, "<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1)}, "128 TiB but only|TiB but only"),
        ({"dim": (40, "<8h", 3, -6, 5, 4, 1, 1, 1, 1)}, "impossible header|damaged"),
        ({"dim": (40, "<8h", 3, 6, 5, 5, 1, 1, 1, 1)}, "damaged"),
        ({"dim": (40, "<8h", 5, 6, 5, 2, 1, 2, 1, 1)}, r"\(x, y, z\)"),
        ({"offset": (108, "<f", 2e9)}, "impossible header"),
        ({"offset": (108, "<f", float("nan"))}, "impossible header"),
        ({"type": (70, "<h", 128)}, "not one number|damaged"),
        ({"type": (70, "<h", 12345)}, "damaged"),
        ({"magic": (344, "<4s", b"ni1")}, "no NIfTI-1 file in one piece"),
    ],
)
def test_nifti_header_that_cannot_be(tmp_path, fields, words):
    with pytest.raises(FormatError, match=words):
        load_image(save_nifti(tmp_path, **fields))


@pytest.mark.parametrize(
    "content", [b"", b"text", gzip.compress(b"", mtime=0), gzip.compress(bytes(400), mtime=0)[:-9]]
)
def test_no_nifti(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.nii\.gz"):
        load_image(path)


@pytest.mark.parametrize(
    ("image", "affine", "words"),
    [
        (np.full(SHAPE, 1e300), np.eye(4), "no finite numbers in single precision"),
        (np.ones(SHAPE), np.eye(4) * np.nan, "puts no voxel anywhere"),
        (np.ones(SHAPE), np.zeros((4, 4), int), "puts no voxel anywhere"),
        (np.ones(SHAPE), np.eye(3), "4 x 4 real numbers"),
        (np.ones(8), np.eye(4), r"should be an image \(x, y, z\)"),
        (np.ones((0, 5, 4)), np.eye(4), r"should be an image \(x, y, z\)"),
    ],
)
def test_npz_that_holds_no_image(tmp_path, image, affine, words):
    np.savez(tmp_path / "a.npz", image=image, affine=affine)
    with pytest.raises(FormatError, match=words):
        load_image(tmp_path / "a.npz")


def test_image_file_that_is_missing(tmp_path):
    for ending in (".nii.gz", ".nii", ".npz", ".npy", ".cfl", ".dcm", ".sc.dcm"):
        with pytest.raises(FormatError, match="does not exist"):
            load_image(tmp_path / f"a{ending}")


@given(data=st.data())
def test_damaged_nifti_never_crashes(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.nii"
    nibabel.Nifti1Image(np.ones(SHAPE, np.float32), np.eye(4)).to_filename(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, 352))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    try:
        found = load_image(path)
    except FormatError:
        return
    assert found.data.size <= 10**6


def test_real_nifti(data_dir):
    found = load_image(data_dir / "nifti_mr_ch2bet/ch2bet.nii.gz")
    assert found.data.shape == (181, 217, 181)
    assert found.data.dtype == np.float32
