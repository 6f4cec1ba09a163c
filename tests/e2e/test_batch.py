"""Lists of scans: none costs the others, what is finished is kept, and what is wrong is refused before the start."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from dipmed import cluster, fit_progress, recon
from dipmed.io import load_image, save_ismrmrd
from dipmed.phantom import brain_phantom_scan

FIT = "network.channels=4,4;network.skip_channels=2;network.up_channels=4;inputs=noise"

DIE = """
import os, signal
from dipmed import cli, fit_progress

starts = []
def show(self, image, n, state):
    starts.extend([image] if starts[-1:] != [image] else [])
    if starts == [0, 1, 0, 1]:
        os.kill(os.getpid(), signal.SIGKILL)
fit_progress.FitProgress.__call__ = show
cli.main()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two scans of two slices, and a damaged one."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed in (("a.h5", 0), ("c.h5", 1)):
        one = brain_phantom_scan((24, 20), n_coils=3, noise=0.01, seed=seed)[0]
        kspace = np.concatenate([one.kspace, 2 * one.kspace], axis=1)
        save_ismrmrd(one.replace(kspace=kspace, mask=np.repeat(one.mask, 2, axis=1)), folder / name)
    (folder / "b.h5").write_bytes((folder / "a.h5").read_bytes()[:5000])
    return folder


@pytest.fixture
def scans(made, tmp_path):
    return shutil.copytree(made, tmp_path / "scans")


def write(folder, text):
    path = folder / "list.csv"
    path.write_text(text)
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_damaged_scan_costs_no_other_and_is_tried_again(run_cli, scans):
    path = write(
        scans, "scan,out,method\na.h5,a.nii.gz; a.png;,cg-sense\nb.h5,b.npz,cg-sense\n,,\nc.h5,c.npz,cg-sense\n"
    )
    done = run_cli("batch", path, "--summary", scans / "s.csv")
    assert done.code == 1
    rows = rows_of(scans / "s.csv")
    assert [(row["row"], row["status"], row["images"]) for row in rows] == [
        ("2", "done", "2"), ("3", "failed", "0"), ("5", "done", "2"),
    ]  # fmt: skip
    assert "damaged" in rows[1]["error"]
    assert rows[0]["stop"] == "converged"
    assert run_cli("recon", scans / "a.h5", "-o", scans / "alone.nii.gz", "--method", "cg-sense").code == 0
    np.testing.assert_array_equal(*(load_image(scans / name).data for name in ("a.nii.gz", "alone.nii.gz")))
    assert (scans / "a.png").exists()
    assert "scans" not in (scans / "a.json").read_text()

    shutil.copy(scans / "a.h5", scans / "b.h5")
    before = (scans / "a.nii.gz").stat().st_mtime_ns
    (scans / "c.npz").unlink()
    done = run_cli("batch", path, "--summary", scans / "s.csv")
    assert done.code == 0, done.err
    assert [row["status"] for row in rows_of(scans / "s.csv")] == ["skipped", "done", "done"]
    assert (scans / "a.nii.gz").stat().st_mtime_ns == before


def test_goes_on_after_a_kill(run_cli, scans):
    path = write(scans, f'scan,out,iterations,set\na.h5,a.npz,20,"{FIT}"\nc.h5,c.npz,20,"{FIT}"\n')
    command = [sys.executable, "-c", DIE, "batch", str(path)]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run_cli("batch", path, "--summary", scans / "s.json")
    assert done.code == 0, done.err
    assert [row["status"] for row in json.loads((scans / "s.json").read_text())["batch"]] == ["skipped", "done"]
    assert json.loads((scans / "c.json").read_text())["resumed_images"] == 1


def test_ctrl_c_leaves_the_rest_for_the_same_command(run_cli, scans, monkeypatch):
    path = write(scans, f'scan,out,iterations,slices,set\na.h5,a.npz,20,0:1,"{FIT}"\nc.h5,c.npz,20,0:1,"{FIT}"\n')

    def press(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit_progress.FitProgress, "__call__", press)
        done = run_cli("batch", path, "--summary", scans / "s.csv")
    assert done.code == 130
    assert "the same command goes on" in done.err
    assert [row["status"] for row in rows_of(scans / "s.csv")] == ["interrupted", "left"]
    done = run_cli("batch", path, "--summary", scans / "s.csv")
    assert done.code == 0, done.err
    assert [row["status"] for row in rows_of(scans / "s.csv")] == ["done", "done"]


def test_other_settings_are_refused_until_forced(run_cli, scans):
    header, rest = "scan,out,method,coils,complex\n", "\nc.h5,c.npz,cg-sense,,\n"
    path = write(scans, f"{header}a.h5,a.npz,cg-sense,,{rest}")
    assert run_cli("batch", path).code == 0
    before = (scans / "a.npz").read_bytes()
    for cells, words in ((",yes", "complex was False and is now True"), ("2,", "n_coils was nothing and is now 2")):
        write(scans, f"{header}a.h5,a.npz,cg-sense,{cells}{rest}")
        done = run_cli("batch", path)
        assert done.code == 1
        assert words in done.err
        assert (scans / "a.npz").read_bytes() == before
    done = run_cli("batch", path, "--force", "--summary", scans / "s.csv")
    assert done.code == 0, done.err
    assert [row["status"] for row in rows_of(scans / "s.csv")] == ["done", "skipped"]
    assert (scans / "a.npz").read_bytes() != before


def test_files_of_others_are_not_replaced(run_cli, scans):
    (scans / "a.npz").write_bytes(b"mine")
    (scans / "s.csv").write_text("mine\n")
    path = write(scans, "scan,out,method\na.h5,a.npz,cg-sense\n")
    for options in (("--summary", scans / "s.csv"), ("--summary", path), ()):
        assert run_cli("batch", path, *options).code == 1
    assert (scans / "a.npz").read_bytes() == b"mine"
    assert (scans / "s.csv").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scan,out,colour\na.h5,x.npz,red\n", "row 1: there is no column 'colour'"),
        ("scan,out,json\na.h5,x.npz,x.json\n", "row 1: there is no column 'json'"),
        ("scan,out,seed,seed\na.h5,x.npz,1,2\n", "two columns 'seed'"),
        ("scan;out\na.h5;x.npz\n", "there is no column 'scan;out'"),
        ("scan,seed\na.h5,1\n", "needs the columns scan and out"),
        ("scan,out\n", "lists no scan"),
        ("scan,out\na.h5,x.npz,1\n", "row 2: it has 3 cells"),
        ("scan,out\na.h5,\n", "row 2, column out: it is empty"),
        ("scan,out\na.h5, ; \n", "row 2, column out: it is empty"),
        ("scan,out\nmissing.h5,x.npz\n", "row 2, column scan: missing.h5 does not exist"),
        ("scan,out\na.h5,x.npz\nc.h5,x.nii\n", "row 3, column out: x.json would be written twice"),
        ("scan,out\na.h5,a.h5\n", "row 2, column out: a.h5 is a scan"),
        ("scan,out\na.h5,x.jpg\n", "row 2, column out: "),
        ("scan,out\na.h5,../x.npz\n", "row 2, column out: ../x.npz leaves the folder"),
        ("scan,out,seed\na.h5,x.npz,\nc.h5,y.npz,soon\n", "row 3, column seed: "),
        ("scan,out,method,seed\na.h5,x.npz,magic,1\n", "row 2, column method: "),
        ("scan,out,set,stop\na.h5,x.npz,,never\n", "row 2, column stop: "),
        ("scan,out,set\na.h5,x.npz,--force\n", "row 2, column set: "),
        ("scan,out,slices\na.h5,x.npz,5\n", "row 2, column slices: --slices takes A:B"),
        ("scan,out,poisson\na.h5,x.npz,maybe\n", "row 2, column poisson: it is yes or no"),
        ("scan,out,weights\na.h5,x.npz,none.safetensors\n", "row 2, column weights: none.safetensors does not exist"),
        ("scan,out,maps\na.h5,x.npz,none.cfl\n", "row 2, column maps: none.cfl does not exist"),
        ('scan,out\n"a.h5,x.npz\n', "is no CSV file"),
    ],
)
def test_a_bad_list_is_refused_before_the_start(run_cli, scans, text, words):
    path = write(scans, text)
    before = sorted(scans.iterdir())
    done = run_cli("batch", path)
    assert done.code == 1
    assert words in done.error_lines[0]
    assert sorted(scans.iterdir()) == before


def test_one_set_of_workers_serves_all_rows(run_cli, scans, monkeypatch):
    ours, started, seen, really = object(), [], [], recon.reconstruct

    @contextmanager
    def start(n_workers):
        started.append(n_workers)
        yield ours

    def note(*arguments, cluster, **options):
        seen.append(cluster)
        return really(*arguments, **options)

    monkeypatch.setattr(cluster, "local_cluster", start)
    monkeypatch.setattr(recon, "reconstruct", note)
    path = write(scans, "scan,out,method\na.h5,a.npz,cg-sense\nc.h5,c.npz,cg-sense\n")
    done = run_cli("batch", path, "--workers", 3)
    assert done.code == 0, done.err
    assert started == [3]
    assert seen == [ours, ours]
