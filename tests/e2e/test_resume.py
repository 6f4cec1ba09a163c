"""Nothing is lost: runs that are killed, interrupted or out of disk go on where they were."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest

from dipmed import fit_progress
from dipmed import jobs as jobs_module
from dipmed.io import load_image, save_ismrmrd
from dipmed.phantom import brain_phantom_scan

TINY = ("network.channels=4,4", "network.skip_channels=2", "network.up_channels=4", "inputs=noise")
SETS = tuple(word for setting in TINY for word in ("--set", setting))
OPTIONS = (
    "--undersample",
    "random:R=2,acs=12,seed=0",
    "--iterations",
    20,
    "--stop",
    "budget",
    "--device",
    "cpu",
    *SETS,
)

DIE = """
import os, signal, sys
import numpy as np
from dipmed import cli, fit_progress

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

moment = sys.argv.pop(1)
if moment.startswith("in fit"):
    show, last = fit_progress.FitProgress.__call__, int(moment[-1])
    fit_progress.FitProgress.__call__ = lambda self, at, n, state: die() if at == last else show(self, at, n, state)
else:
    save, written = np.savez, []
    def half(path, **arrays):
        written.append(path)
        if len(written) < 3:
            return save(path, **arrays)
        path.write_bytes(b"PK")
        die()
    np.savez = half
cli.main()
"""


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Three slices, each twice as bright as the one before."""
    one = brain_phantom_scan((32, 28), n_coils=3, noise=0.01)[0]
    kspace = np.concatenate([one.kspace * 2**i for i in range(3)], axis=1)
    path = tmp_path_factory.mktemp("slices") / "slices.h5"
    save_ismrmrd(one.replace(kspace=kspace, mask=np.repeat(one.mask, 3, axis=1)), path)
    return path


@pytest.fixture(scope="module")
def whole(slices, tmp_path_factory):
    """The image of a run that nothing has disturbed."""
    from dipmed import cli

    out = tmp_path_factory.mktemp("whole") / "image.npz"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(map(str, ["dipmed", "recon", slices, "-o", out, *OPTIONS])))
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    assert [path.name for path in out.parent.iterdir()] == ["image.npz"]
    return np.load(out)["image"]


@pytest.fixture
def in_image_3(monkeypatch):
    """Have something done in the middle of the third image."""

    def do(what):
        monkeypatch.setattr(fit_progress.FitProgress, "__call__", lambda _, image, *__: what() if image == 2 else None)

    return do


def image_names(out):
    return sorted(path.name for path in out.with_name(out.name + ".parts").glob("frame-*"))


def kill(moment, *arguments):
    """Run the command line in a process that is killed at that moment."""
    command = [sys.executable, "-c", DIE, moment, *arguments]
    killed = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr


TWO = ["frame-0000-slice-0000.npz", "frame-0000-slice-0001.npz"]


@pytest.mark.parametrize("moment", ["in fit 2", "in a write"])
def test_kill_9_loses_the_image_in_flight_alone(run_cli, slices, whole, tmp_path, monkeypatch, moment):
    out = tmp_path / "image.npz"
    kill(moment, "recon", slices, "-o", out, *OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["image.npz.parts"]
    assert image_names(out) == TWO

    done = run_cli("recon", slices, "-o", out, *OPTIONS)
    assert done.code == 1
    assert "images done: 2" in done.error_lines[0]

    calibrated, estimate = [], jobs_module.estimate_maps
    monkeypatch.setattr(jobs_module, "estimate_maps", lambda *a, **k: calibrated.append(1) or estimate(*a, **k))
    done = run_cli("recon", slices, "-o", out, *OPTIONS, "--resume", "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert np.array_equal(np.load(out)["image"], whole)
    assert len(calibrated) == 1
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["resumed_images"] == 2
    assert record["seconds"]["calibration"] >= 0
    assert [image["status"] for image in record["images"]] == ["done"] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.npz", "r.json"]


def test_a_disk_that_fills_up(run_cli, slices, whole, tmp_path, in_image_3):
    resource = pytest.importorskip("resource")
    limits, out = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / "image.npz"
    try:
        in_image_3(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1])))
        done = run_cli("recon", slices, "-o", out, *OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert done.code == 1
    assert "cannot write" in done.error_lines[0]
    assert "images done: 2, kept in" in done.err
    assert "--resume" in done.err
    assert image_names(out) == TWO
    in_image_3(lambda: None)
    assert run_cli("recon", slices, "-o", out, *OPTIONS, "--resume").code == 0
    assert np.array_equal(np.load(out)["image"], whole)


def test_ctrl_c_keeps_what_is_done_and_makes_the_rest_again(run_cli, slices, whole, tmp_path, in_image_3):
    out = tmp_path / "image.npz"

    def press():
        raise KeyboardInterrupt

    in_image_3(press)
    done = run_cli("recon", slices, "-o", out, *OPTIONS)
    assert done.code == 130
    assert "best image so far was written" in done.err
    assert "images done: 2, kept" in done.err
    assert np.array_equal(np.load(out)["image"][:, :, :2], whole[:, :, :2])
    assert not np.array_equal(np.load(out)["image"], whole)
    in_image_3(lambda: None)
    done = run_cli("recon", slices, "-o", out, *OPTIONS)
    assert "go on from there with --resume" in done.error_lines[0]
    done = run_cli("recon", slices, "-o", out, *OPTIONS, "--resume")
    assert done.code == 0, done.err
    assert np.array_equal(np.load(out)["image"], whole)
    assert [path.name for path in tmp_path.iterdir()] == ["image.npz"]


def test_other_settings_or_data_are_refused_by_name(run_cli, slices, scan_file, tmp_path, in_image_3):
    out = tmp_path / "image.npz"

    def press():
        raise KeyboardInterrupt

    in_image_3(press)
    run_cli("recon", slices, "-o", out, *OPTIONS)
    out.unlink()
    in_image_3(lambda: None)
    for file, more, words in (
        (slices, ("--seed", 4), "seed was 0 and is now 4"),
        (slices, ("--coils", 2), "n_coils was nothing and is now 2"),
        (scan_file, (), "the scan was"),
    ):
        done = run_cli("recon", file, "-o", out, *OPTIONS, *more, "--resume")
        assert done.code == 1
        assert words in done.error_lines[0]
        assert image_names(out) == TWO
    done = run_cli("recon", slices, "-o", out, *OPTIONS, "--seed", 4, "--force")
    assert done.code == 0, done.err
    assert [path.name for path in tmp_path.iterdir()] == ["image.npz"]


def test_a_scan_of_one_slice_with_nothing_to_resume(run_cli, scan_file, tmp_path):
    done = run_cli("recon", scan_file, "-o", tmp_path / "image.npz", *OPTIONS, "--resume", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["resumed_images"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["image.npz"]
    done = run_cli("recon", scan_file, "-o", tmp_path / "image.npz", *OPTIONS, "--resume")
    assert "exists already" in done.error_lines[0]


@pytest.mark.parametrize(
    ("options", "moment", "kept"),
    [
        (OPTIONS, "in fit 2", TWO),
        (("--method", "time-dependent", "--iterations", 20, "--device", "cpu"), "in fit 1", TWO[:1]),
    ],
)
def test_a_series_goes_on_after_kill_9(run_cli, tmp_path, options, moment, kept):
    one = brain_phantom_scan((32, 28), n_coils=3, noise=0.01)[0].kspace[0, 0]
    np.savez(tmp_path / "series.npz", kspace=one * np.array([[1, 2], [3, 4]])[..., None, None, None])
    whole, out = tmp_path / "whole.npz", tmp_path / "image.npz"
    assert run_cli("recon", tmp_path / "series.npz", "-o", whole, *options).code == 0
    kill(moment, "recon", tmp_path / "series.npz", "-o", out, *options)
    assert image_names(out) == kept
    done = run_cli("recon", tmp_path / "series.npz", "-o", out, *options, "--resume", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["resumed_images"] == len(kept)
    assert np.load(out)["image"].shape == (32, 28, 2, 2)
    np.testing.assert_array_equal(*(np.load(path)["image"] for path in (out, whole)))


@pytest.fixture
def volume(tmp_path):
    """Three noisy slices."""
    x, y = np.indices((32, 28))
    disc = 100.0 * (np.hypot(x - 15, y - 13) < 11)
    noise = np.random.default_rng(0).normal(0, 9, (32, 28, 3))
    np.save(tmp_path / "volume.npy", (disc[:, :, None] + noise).astype(np.float32))
    return tmp_path / "volume.npy"


RESTORE = ("--task", "denoise", "--iterations", 10, "--device", "cpu", *SETS[:-2])


def test_a_restoration_goes_on_after_kill_9_with_the_same_settings(run_cli, volume, tmp_path):
    whole, out, other = tmp_path / "whole.npz", tmp_path / "image.npz", tmp_path / "other.npy"
    assert run_cli("restore", volume, "-o", whole, *RESTORE).code == 0
    kill("in fit 2", "restore", volume, "-o", out, *RESTORE)
    assert image_names(out) == TWO
    np.save(other, np.load(volume) + 1)
    for file, more, words in (
        (volume, (), "images done: 2"),
        (volume, ("--sigma", 5, "--resume"), "sigma was nothing and is now 5"),
        (volume, ("--seed", 4, "--resume"), "seed was 0 and is now 4"),
        (other, ("--resume",), "the volume was"),
    ):
        done = run_cli("restore", file, "-o", out, *RESTORE, *more)
        assert done.code == 1
        assert words in done.error_lines[0]
        assert image_names(out) == TWO
    done = run_cli("restore", volume, "-o", out, *RESTORE, "--resume", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["resumed_pieces"] == 2
    np.testing.assert_array_equal(*(np.load(path)["image"] for path in (out, whole)))
    assert not out.with_name("image.npz.parts").exists()


@pytest.mark.parametrize("command", ["recon", "restore"])
def test_a_single_image_that_ctrl_c_cut_short_is_made_again(run_cli, scan_file, volume, tmp_path, monkeypatch, command):
    file, options = (scan_file, OPTIONS) if command == "recon" else (volume, (*RESTORE, "--slices", "0:1"))
    whole, out = tmp_path / "whole.npz", tmp_path / "image.npz"
    assert run_cli(command, file, "-o", whole, *options).code == 0

    def press(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_progress.FitProgress, "__call__", press)
        done = run_cli(command, file, "-o", out, *options)
    assert done.code == 130
    assert "images done: 0, kept in" in done.err
    short = out.read_bytes()
    done = run_cli(command, file, "-o", out, *options, "--seed", 4, "--resume")
    assert "seed was 0 and is now 4" in done.error_lines[0]
    assert out.read_bytes() == short
    assert "exists already" in run_cli(command, file, "-o", out, *options).error_lines[0]
    done = run_cli(command, file, "-o", out, *options, "--resume")
    assert done.code == 0, done.err
    np.testing.assert_array_equal(*(np.load(path)["image"] for path in (out, whole)))
    assert not out.with_name("image.npz.parts").exists()


def test_workers_give_what_one_process_gives(three_slices, run_cli, tmp_path):
    images = []
    for name, options in (("one.npz", ()), ("two.npz", ("--workers", 2))):
        done = run_cli("recon", three_slices, "-o", tmp_path / name, "--method", "cg-sense", *options)
        assert done.code == 0, done.err
        images.append(load_image(tmp_path / name).data)
    np.testing.assert_array_equal(*images)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.npz", "two.npz"]
