"""`load` finds the format by content, and says in one line what is wrong."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

import dipmed.io
from dipmed.io import load, save_ismrmrd
from dipmed.io.projection_file import save_projections
from dipmed.io.sniff import sniff
from dipmed.patient import default_affine
from dipmed.scan import DipmedError, FormatError, KSpaceScan, ProjectionScan
from operators import ParallelBeam, angles_over, slice_grid

CASES = {
    "bart_brain8/full.cfl": ("bart", (1, 1, 8, 230, 180)),
    "dyn_vfa_cart4/vfa_cart4.cfl": ("bart", (6, 1, 4, 224, 224)),
    "dyn_vfa_radial5/vfa_radial5.h5": ("trajectory", (10, 1, 5, 34 * 512)),
    "fastmri_vfa13/vfa13_fa11.h5": ("fastmri", (1, 1, 13, 224, 224)),
    "ismrmrd_bottles14_r3/meas_MID00349_FID09273_SNR_R3.h5": ("ismrmrd", (1, 1, 14, 384, 144)),
    "mat73_brain16/raw_data.mat": ("matlab", (1, 1, 16, 96, 96)),
    "radial_cardiac12/radial_cardiac12_derived.mrd.h5": ("ismrmrd", (1, 1, 12, 6400)),
    "radial_cardiac12/radial_cardiac_25_projections.mat": ("matlab", (1, 1, 12, 6400)),
    "sim3d_mc6/ksp.cfl": ("bart", (1, 1, 6, 52, 64, 48)),
    "twix_cimax_phantom16/20240206160052_flash16.dat": ("twix", (1, 1, 16, 128, 128)),
    "twix_skyra_gre2/gre.dat": ("twix", (1, 1, 2, 320, 160)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_case_is_found_by_its_content(data_dir, tmp_path, name):
    source, (expected, shape) = data_dir / name, CASES[name]
    if expected == "bart":  # a pair needs its names
        path = source
    else:
        path = tmp_path / "scan.xyz"
        path.symlink_to(source)
    assert sniff(path) == expected
    scan = load(path)
    assert scan.kspace.shape == shape
    assert scan.kspace.dtype == np.complex64
    assert np.isfinite(scan.affine).all()


@pytest.fixture
def kspace():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((2, 8, 6)) + 1j * rng.standard_normal((2, 8, 6))).astype(np.complex64)


@pytest.fixture
def bart(tmp_path, kspace):
    kspace.transpose(1, 2, 0).ravel(order="F").tofile(tmp_path / "scan.cfl")
    (tmp_path / "scan.hdr").write_text("# Dimensions\n8 6 1 2\n")
    return tmp_path / "scan"


@pytest.mark.parametrize("ending", ["", ".cfl", ".hdr"])
def test_a_bart_pair_by_any_of_its_names(bart, kspace, ending):
    np.testing.assert_array_equal(load(str(bart) + ending).kspace[0, 0], kspace)


@pytest.mark.parametrize(("kept", "missing"), [(".cfl", ".hdr"), (".hdr", ".cfl")])
def test_half_a_bart_pair(bart, kept, missing):
    bart.with_suffix(missing).unlink()
    with pytest.raises(FormatError, match=f"scan{missing} is not beside it"):
        load(bart.with_suffix(kept))


def write_fastmri(path, kspace):
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace[None]


def write_trajectory(path, kspace):
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace[None]
        file["traj"] = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 8, 6, 2)).astype(np.float32)
        file.attrs["matrix"] = [6, 6]


def write_ismrmrd(path, kspace):
    mask = np.ones((1, 1, 8, 6), bool)
    scan = KSpaceScan(kspace[None, None], mask, default_affine((1, 1, 3), (8, 6, 1)), (8, 6), "numpy")
    save_ismrmrd(scan, path)


def write_projections(path, kspace):
    beam = ParallelBeam(angles_over(8), 6, 1.0)
    affine = default_affine((1, 1, 3), (6, 6, 2))
    save_projections(ProjectionScan(np.abs(kspace), beam, slice_grid(beam), affine, "test"), path)


def write_npy(path, kspace):
    with path.open("wb") as file:
        np.save(file, kspace)


def write_npz(path, kspace):
    with path.open("wb") as file:
        np.savez(file, kspace=kspace)


def write_matlab(path, kspace):
    with path.open("wb") as file:
        scipy.io.savemat(file, {"kspace": kspace.transpose(1, 2, 0)})


WRITERS = {
    "fastmri": write_fastmri,
    "trajectory": write_trajectory,
    "ismrmrd": write_ismrmrd,
    "numpy": write_npy,
    "numpy archive": write_npz,
    "matlab": write_matlab,
    "projections": write_projections,
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ["scan", "scan.dat", "scan.cfl", "scan.nii.gz"])
def test_names_mean_nothing(tmp_path, kspace, kind, name):
    WRITERS[kind](tmp_path / name, kspace)
    assert sniff(tmp_path / name) == kind.partition(" ")[0]
    scan = load(tmp_path / name)
    assert (scan.n_coils if isinstance(scan, KSpaceScan) else scan.n_slices) == 2


def test_formats_of_one_measurement_have_number_0_alone(tmp_path, kspace):
    write_npy(tmp_path / "a.npy", kspace)
    assert load(tmp_path / "a.npy", measurement=0).n_coils == 2
    with pytest.raises(FormatError, match="holds one measurement; there is no 1"):
        load(tmp_path / "a.npy", measurement=1)


STRANGE = {
    "text.h5": (b"subject,age\n1,2\n", "is a text file; accepted are ISMRMRD"),
    "umlauts.txt": ("ä".encode() * 20000, "is a text file"),
    "noise.dat": (bytes(range(255, 0, -1)) * 8, "unknown format"),
    "zeros.dat": (bytes(20000), "unknown format"),
    "empty.h5": (b"", "is empty"),
    "image.dcm": (bytes(128) + b"DICM" + bytes(500), "DICOM"),
    "image.nii": (bytes(344) + b"n+1\0" + bytes(500), "NIfTI images, .* `dipmed simulate`"),
    "image.nii.gz": (b"\x1f\x8b\x08" + bytes(100), "NIfTI images, .* `dipmed simulate`"),
    "packed.dat": (b"\x1f\x8b\x08" + bytes(100), "unpack it first"),
    "pickled.pkl": (b"\x80\x04\x95" + bytes(100), "may run code"),
    "philips.list": (b"# === DATA DESCRIPTION FILE ====\n", "philips_to_ismrmrd"),
    "short.dat": (b"\0\0\0\0\1\0\0\0", "unknown format"),
    "signature.h5": (b"\x89HDF\r\n\x1a\n" + bytes(10), "cannot be read as HDF5"),
    "half.npy": (b"\x93NUMPY\x01\x00", "half"),
    "half.npz": (b"PK\x03\x04" + bytes(50), "half"),
    "half.mat": (b"MATLAB 5.0 MAT-file" + bytes(200), "half"),
    "half73.mat": (b"MATLAB 7.3 MAT-file" + bytes(600), "half"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_strange_files_end_in_one_line(tmp_path, name):
    content, message = STRANGE[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as error:
        load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(FormatError, match=r"scan\.h5 does not exist"):
        load(tmp_path / "scan.h5")


def test_a_file_below_a_file(tmp_path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(FormatError, match=r"cannot be read|does not exist"):
        load(tmp_path / "a" / "b.h5")


def test_a_folder(tmp_path):
    with pytest.raises(FormatError, match="is a folder that holds no projections"):
        load(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    path = tmp_path / "a.h5"
    path.write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(FormatError, match="Permission denied"):
        load(path)


def test_a_device_is_not_read(tmp_path):
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with pytest.raises(FormatError, match="no regular file"):
        load(fifo)


@pytest.mark.parametrize(
    ("names", "message"), [((), "it is empty"), (("reconstruction", "x"), "holds reconstruction, x")]
)
def test_hdf5_without_measurements(tmp_path, names, message):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in names:
            file[name] = np.zeros(3)
    with pytest.raises(FormatError, match=message):
        load(tmp_path / "a.h5")


def test_links_into_other_files_are_not_followed(tmp_path, kspace):
    write_ismrmrd(tmp_path / "a.h5", kspace)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["dataset"] = h5py.ExternalLink("a.h5", "/dataset")
    with pytest.raises(DipmedError):
        load(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_group("dataset")["xml"] = h5py.ExternalLink("a.h5", "/dataset/xml")
        file["dataset/data"] = h5py.ExternalLink("a.h5", "/dataset/data")
    with pytest.raises(FormatError, match="another file"):
        load(tmp_path / "c.h5")


@pytest.mark.parametrize("samples", [np.zeros, lambda shape, dtype: np.full(shape, np.nan, dtype)])
def test_nothing_measured(tmp_path, samples):
    write_ismrmrd(tmp_path / "a.h5", samples((2, 8, 6), np.complex64))
    with pytest.raises(FormatError, match=r"zero|NaN"):
        load(tmp_path / "a.h5")


def test_names_in_a_file_cannot_steer_the_terminal(tmp_path, kspace):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["\x1b[2J\n"] = np.zeros(3)
    with pytest.raises(FormatError, match=r"it holds \?\[2J\?,? ?"):
        load(tmp_path / "a.h5")
    write_trajectory(tmp_path / "b.h5", kspace)
    with h5py.File(tmp_path / "b.h5", "r+") as file:
        file["\x1b[2J"] = np.zeros(3)
    assert any("?[2J" in note for note in load(tmp_path / "b.h5").notes)


def test_all_of_io_is_offered_in_one_place():
    assert sorted(dipmed.io.__all__) == dipmed.io.__all__
    assert all(hasattr(dipmed.io, name) for name in dipmed.io.__all__)
