"""From raw data to a DICOM series, and from DICOM back to raw data."""

import json
import logging
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from dipmed.io import load_image, save_image, save_ismrmrd
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_study import new_study, study_of
from dipmed.phantom import brain_phantom_scan
from dipmed.scan import ImageVolume

NAME = "Plánted^Name"


@pytest.fixture(scope="session")
def oblique_file(tmp_path_factory):
    scan = brain_phantom_scan((24, 20), n_coils=3, noise=0.01)[0]
    turned = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turned * (4.0, 5.0, 6.0)
    affine[:3, 3] = 20, -30, 40
    path = tmp_path_factory.mktemp("oblique") / "scan.h5"
    save_ismrmrd(replace(scan, affine=affine), path)
    return path


@pytest.fixture
def person(tmp_path):
    """A series that a scanner made of the same person."""
    folder = tmp_path / "person"
    image = ImageVolume(np.ones((24, 20, 1), np.float32), np.diag([4.0, 5.0, 6.0, 1.0]))
    save_image(image, folder, dicom=DicomDetails("mri", study=new_study("PLANTED-ID")))
    for file in folder.iterdir():
        item = pydicom.dcmread(file)
        item.PatientName = NAME
        item.save_as(file)
    return folder


def recon(run_cli, scan, *arguments):
    return run_cli("recon", scan, "--method", "zero-filled", *arguments)


def place(image):
    index = np.indices(image.data.shape[:3]).reshape(3, -1)
    where = (image.affine @ np.vstack([index, np.ones(index.shape[1])]))[:3].T
    order = np.lexsort(where.round(2).T)
    return where[order], image.data.reshape(-1)[order]


def test_a_scan_becomes_a_series_with_its_voxels_in_place(run_cli, oblique_file, tmp_path):
    names = ["image.nii.gz", "series", "image.dcm", "image.sc.dcm"]
    done = recon(run_cli, oblique_file, *(part for name in names for part in ("-o", tmp_path / name)))
    assert done.code == 0, done.err
    where, values = place(load_image(tmp_path / names[0]))
    for name in names[1:]:
        found_where, found = place(load_image(tmp_path / name))
        np.testing.assert_allclose(found_where, where, atol=1e-3)
        np.testing.assert_allclose(found, values, atol=values.max() / 65535)
    studies = {pydicom.dcmread(tmp_path / name).StudyInstanceUID for name in names[2:]}
    assert studies == {pydicom.dcmread(next((tmp_path / "series").iterdir())).StudyInstanceUID}


def test_nobody_is_named_outside_the_series(run_cli, oblique_file, person, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    out = tmp_path / "out"
    out.mkdir()
    done = recon(run_cli, oblique_file, "-o", out / "series", "--like", person, "--json", out / "record.json")
    assert done.code == 0, done.err
    item = pydicom.dcmread(next((out / "series").iterdir()))
    assert (item.PatientName, item.PatientID) == (NAME, "PLANTED-ID")
    texts = [done.out, done.err, caplog.text, json.dumps(json.loads((out / "record.json").read_text()))]
    texts += [str(path) for path in out.rglob("*")]
    assert not [text for text in texts if "nted" in text.lower()]


@pytest.mark.usefixtures("person")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-o", "a.nii", "--patient-id", "P"), "are for DICOM"),
        (("-o", "a.dcm", "--like", "person", "--patient-id", "P"), "leave out --patient-id"),
        (("-o", "a.dcm", "--series", "1"), "--like FOLDER, which is missing"),
        (("-o", "a.dcm", "--like", "person", "--series", "7"), "none of them called 7"),
        (("-o", "a.dcm", "--like", "empty"), "no DICOM images"),
        (("-o", "a.dcm", "--patient-id", "a\\b"), "identifier"),
    ],
)
def test_options_that_do_not_fit(run_cli, oblique_file, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = recon(run_cli, oblique_file, *arguments)
    assert (done.code, len(done.error_lines)) == (1, 1)
    assert words in " ".join(done.err.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "person"]


def test_ct_becomes_a_series_in_hounsfield_units_and_can_be_measured_again(run_cli, tmp_path):
    attenuation = np.full((32, 32, 2), -1000.0)
    attenuation[8:24, 10:22] = 60.0
    save_image(ImageVolume(attenuation, np.diag([2.0, 2, 3, 1])), tmp_path / "all.dcm", dicom=DicomDetails("ct", "HU"))
    done = run_cli("simulate", tmp_path / "all.dcm", "-o", tmp_path / "scan.h5", "--modality", "ct", "--views", 60)
    assert done.code == 0, done.err
    refused = run_cli("recon", tmp_path / "scan.h5", "-o", tmp_path / "series", "--method", "fbp")
    assert "--hounsfield" in refused.error_lines[0]
    done = run_cli("recon", tmp_path / "scan.h5", "-o", tmp_path / "series", "--method", "fbp", "--hounsfield")
    assert done.code == 0, done.err
    item = pydicom.dcmread(next((tmp_path / "series").iterdir()))
    assert (item.Modality, item.RescaleType) == ("CT", "HU")
    assert abs(load_image(tmp_path / "series").data[7:9, 7:9].mean() - 60) < 40
    wrong = run_cli("simulate", tmp_path / "series", "-o", tmp_path / "b.h5", "--modality", "mri")
    assert "needs MR images" in wrong.error_lines[0]


def test_a_restored_series_names_its_sources(run_cli, person, tmp_path):
    before = pydicom.dcmread(next(person.iterdir()))
    noisy = ImageVolume(np.random.default_rng(0).random((24, 20, 1), np.float32), np.diag([4.0, 5.0, 6.0, 1.0]))
    save_image(noisy, tmp_path / "noisy", dicom=DicomDetails("mri", study=study_of(person)))
    names = ["series", "all.sc.dcm"]
    options = ["--task", "denoise", "--iterations", 2, "--set", "network.channels=8,8", "--stop", "budget"]
    done = run_cli("restore", tmp_path / "noisy", *(part for n in names for part in ("-o", tmp_path / n)), *options)
    assert done.code == 0, done.err
    (source,) = (tmp_path / "noisy").iterdir()
    for path in ((tmp_path / "series" / "00001.dcm"), tmp_path / "all.sc.dcm"):
        item = pydicom.dcmread(path)
        assert (item.PatientName, item.StudyInstanceUID) == (NAME, before.StudyInstanceUID)
        assert item.SourceImageSequence[0].ReferencedSOPInstanceUID == pydicom.dcmread(source).SOPInstanceUID
        assert "restored from other images" in item.DerivationDescription
    save_image(noisy, tmp_path / "noisy.nii")
    refused = run_cli("restore", tmp_path / "noisy.nii", "-o", tmp_path / "b", *options)
    assert "does not say what modality" in refused.error_lines[0]
