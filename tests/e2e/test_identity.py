"""A name in the raw data or in the series of --like: it is in the new series, and nowhere else."""

import gzip
import logging
import sys
import zipfile

import h5py
import numpy as np
import pydicom
import pytest

from dipmed import fit_progress
from dipmed.io import save_image
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_study import new_study
from dipmed.scan import DipmedError, ImageVolume

PLANTED = "PLANTED"
FIT = ("--iterations", 10, "--set", "network.channels=4,4", "--set", "network.up_channels=4", "--set", "inputs=noise")


def planted_ismrmrd(source, path):
    """With who was scanned, as the schema has it."""
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "r+") as file:
        text = file["dataset/xml"][0].decode()
        head, middle, rest = text.partition("<acquisitionSystemInformation>")
        assert middle
        person = f"<subjectInformation><patientName>{PLANTED}^A</patientName><patientID>{PLANTED}-1</patientID>"
        study = f"<studyInformation><studyDescription>{PLANTED}</studyDescription></studyInformation>"
        file["dataset/xml"][0] = f"{head}{person}</subjectInformation>{study}{middle}{rest}"


def planted_twix(source, path):
    """A measured file, in which the scrubbed name is seven letters long."""
    content = source.read_bytes().replace(b'"xxxxxxx"', f'"{PLANTED}"'.encode())
    assert content.count(PLANTED.encode()) > 3
    path.write_bytes(content)


@pytest.fixture
def person(tmp_path):
    folder = tmp_path / "like"
    study = new_study(f"{PLANTED}-ID")
    study.elements.PatientName, study.elements.StudyDescription = f"{PLANTED}^Name", f"of {PLANTED}"
    save_image(ImageVolume(np.ones((8, 8, 2), np.float32), np.eye(4)), folder, dicom=DicomDetails("mri", study=study))
    return folder


class Names:
    """Every name of a file or folder that Python is asked for."""

    def __init__(self):
        self.found, self.on = [], True
        sys.addaudithook(self.note)

    def note(self, event, arguments):
        if self.on and (event == "open" or event.startswith(("os.", "shutil.", "tempfile."))):
            self.found += [str(argument) for argument in arguments]


@pytest.fixture
def names():
    watching = Names()
    yield watching
    watching.on = False  # a hook stays for ever


def contents(path):
    """The bytes of a file, and what is packed in it."""
    yield path.read_bytes()
    if path.suffix == ".gz":
        yield gzip.decompress(path.read_bytes())
    elif path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            yield from map(archive.read, archive.namelist())


def leaks(folder):
    """Files that name somebody, other than the series."""
    return [
        path
        for path in folder.rglob("*")
        if PLANTED.lower() in str(path.relative_to(folder)).lower()
        or (path.is_file() and path.suffix != ".dcm" and any(PLANTED.encode() in text for text in contents(path)))
    ]


@pytest.fixture
def everything_said(caplog, names):
    """What was logged by anyone, and every name of a file; call it with what was printed."""
    caplog.set_level(logging.DEBUG)

    def collect(*runs):
        assert any(".dipmed-" in name for name in names.found)  # temporary files as well
        return [*(run.out + run.err for run in runs), caplog.text, *names.found]

    return collect


def assert_names_the_person(path):
    item = pydicom.dcmread(path)
    assert (str(item.PatientName), item.PatientID) == (f"{PLANTED}^Name", f"{PLANTED}-ID")


def test_a_fit_that_is_broken_off_and_goes_on_names_nobody(
    run_cli, three_slices, person, everything_said, tmp_path, monkeypatch
):
    scan, out = tmp_path / "scan.h5", tmp_path / "out"
    out.mkdir()
    planted_ismrmrd(three_slices, scan)
    images = ("image.nii.gz", "series", "all.dcm", "image.h5", "image.npz", "image.png")
    outputs = [word for name in images for word in ("-o", out / name)]
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logs = ("--log-to", f"tensorboard:{out / 'tb'}", "--log-to", f"mlflow:{(out / 'mlruns').as_uri()}")
    pages = ("--json", out / "a.json", "--report", out / "a.html")
    command = ("recon", scan, *outputs, *FIT, "--like", person, *pages, *logs)

    def stop(_, image, *__):
        if image == 1:
            raise DipmedError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(fit_progress.FitProgress, "__call__", stop)
        stopped = run_cli(*command)
    assert stopped.code == 1
    assert len(list((out / "image.nii.gz.parts").glob("*.npz"))) == 1
    assert not leaks(out)
    done = run_cli(*command, "--resume")
    assert done.code == 0, done.err
    assert {path.name for path in out.iterdir()} == {*images, "a.json", "a.html", "tb", "mlruns"}
    assert not leaks(out)
    assert not [text for text in everything_said(stopped, done) if PLANTED.lower() in text.lower()]
    assert_names_the_person(out / "all.dcm")
    assert_names_the_person(next((out / "series").iterdir()))


def test_a_list_of_scans_names_nobody(run_cli, data_dir, person, everything_said, tmp_path):
    scan, out = tmp_path / "scan.dat", tmp_path / "out"
    out.mkdir()
    planted_twix(data_dir / "twix_skyra_gre2/gre.dat", scan)
    (out / "list.csv").write_text(f"scan,out,method,like,report\n{scan},b.nii.gz;b,zero-filled,{person},b.html\n")
    listed = run_cli("batch", out / "list.csv", "--summary", out / "summary.csv")
    assert listed.code == 0, listed.err
    told = run_cli("info", scan, "--json", out / "info.json")
    assert {path.name for path in out.iterdir()} == {
        *("list.csv", "b.nii.gz", "b", "b.html", "b.json", "summary.csv", "info.json")
    }
    assert not leaks(out)
    assert not [text for text in everything_said(listed, told) if PLANTED.lower() in text.lower()]
    assert_names_the_person(next((out / "b").iterdir()))
