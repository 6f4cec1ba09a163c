"""Whatever is wrong ends in one clear line, a non-zero exit code and nothing half-written."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch

from dipmed.io import save_ismrmrd


def write_cfl(path, array, dims=None):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, dims or array.shape)) + "\n")
    array.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))
    return path.with_suffix(".cfl")


def noise(shape=(1, 48, 40, 4)):
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def truncated(folder, scan_file):
    path = folder / "truncated.h5"
    path.write_bytes(scan_file.read_bytes()[:5000])
    return path


def empty(folder, _):
    path = folder / "empty.h5"
    path.touch()
    return path


def text(folder, _):
    path = folder / "text.h5"
    path.write_text("k-space, honestly\n" * 50)
    return path


def without_data(folder, _):
    path = folder / "nothing.h5"
    with h5py.File(path, "w") as file:
        file["something"] = np.arange(3)
    return path


def contradicting(folder, _):
    return write_cfl(folder / "wrong.cfl", noise(), dims=(1, 48, 41, 4))


def enormous(folder, _):
    return write_cfl(folder / "huge.cfl", noise(), dims=(2**20, 2**20, 2**20, 1))


def with_nan(folder, _):
    array = noise()
    array[0, 3, 3, 0] = np.nan
    return write_cfl(folder / "nan.cfl", array)


def all_zero(folder, _):
    return write_cfl(folder / "zero.cfl", np.zeros((1, 48, 40, 4)))


def missing(folder, _):
    return folder / "missing.h5"


BAD_FILES = [truncated, empty, text, without_data, contradicting, enormous, with_nan, all_zero, missing]


@pytest.mark.parametrize("make", BAD_FILES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("command", ["info", "recon", "compare"])
def test_bad_files(run_cli, scan_file, tmp_path, make, command):
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    outputs.mkdir()
    bad = make(inputs, scan_file)
    options = {
        "info": ("--json", outputs / "info.json"),
        "recon": ("-o", outputs / "image.nii.gz", "--method", "zero-filled", "--json", outputs / "r.json"),
        "compare": ("--methods", "zero-filled", "--plot", outputs / "p.png", "--json", outputs / "c.json"),
    }[command]
    expect_one_line(run_cli(command, bad, *options))
    assert list(outputs.iterdir()) == []


def expect_one_line(done, *words):
    assert done.code not in (0, None)
    assert len(done.error_lines) == 1, done.err
    assert "Traceback" not in done.err
    for word in words:
        assert word in done.err
    return done


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--method", "magic"), ("magic", "dip-vanilla")),
        (("--stop", "never"), ("never", "held-out")),
        (("--preset", "best"), ("best", "mri-2d")),
        (("--undersample", "random:R=0,acs=16"), ("R",)),
        (("--undersample", "sometimes:R=4"), ("sometimes",)),
        (("--slices", "2:1"), ("A:B",)),
        (("--slices", "0:9"), ("slices",)),
        (("--coils", "99"), ("99", "4")),
        (("--maps", "nowhere.npy"), ("nowhere.npy",)),
        (("--device", "tpu"), ("tpu", "cuda")),
        (("--mask", "MASK"), ("mask", "(7,)")),
        (("--undersample", "random:R=4,acs=0,seed=0"), ("jsense",)),
    ],
)
def test_bad_choices(run_cli, scan_file, tmp_path, options, words):
    np.save(tmp_path / "mask.npy", np.ones(7, dtype=bool))
    options = [str(tmp_path / "mask.npy") if option == "MASK" else option for option in options]
    out = tmp_path / "out"
    out.mkdir()
    expect_one_line(run_cli("recon", scan_file, "-o", out / "a.nii.gz", *options), *words)
    assert list(out.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(run_cli, scan_file, tmp_path):
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", "--device", "cuda")
    expect_one_line(done, "no CUDA device", "--device cpu")


def test_outputs_that_cannot_be_written(run_cli, scan_file, tmp_path):
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "no" / "a.nii", tmp_path / "file" / "a.nii", tmp_path / "a.docx", tmp_path):
        expect_one_line(run_cli("recon", scan_file, "-o", out, "--method", "zero-filled"))
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", "--json", tmp_path / "no" / "r.json")
    expect_one_line(done)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_disk_that_fills_up(scan_file, tmp_path):
    """A limit on the size of files acts on a real process as a full disk does."""
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "from dipmed.cli import main; main()"
    )
    command = [sys.executable, "-c", limited, "recon", scan_file, "-o", tmp_path / "a.nii", "--method", "zero-filled"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_one_coil_needs_no_maps(run_cli, scan, tmp_path):
    single = scan.replace(kspace=scan.kspace[:, :, :1], noise_covariance=None)
    save_ismrmrd(single, tmp_path / "one.h5")
    done = run_cli("recon", tmp_path / "one.h5", "-o", tmp_path / "a.npz", "--method", "zero-filled")
    assert done.code == 0, done.err
    assert np.load(tmp_path / "a.npz")["image"].max() > 0


def test_the_traceback_is_there_when_asked_for(run_cli, tmp_path):
    from dipmed.scan import DipmedError

    with pytest.raises(DipmedError):
        run_cli("--debug", "info", tmp_path / "missing.h5")
