"""Series sent to an archive, Orthanc on this machine, and to archives that refuse, break off or die."""

import json
import logging
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.acse import ACSE

from dipmed import cli
from dipmed.io.dicom_modules import DicomDetails
from dipmed.io.dicom_study import new_study
from dipmed.io.images import load_image, save_image
from dipmed.scan import ImageVolume

pytestmark = [
    pytest.mark.reference,
    # pynetdicom leaves the socket of a connection that was refused to the garbage collector
    pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"),
]

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
MR = "1.2.840.10008.5.1.4.1.1.4"
FIT = ["--iterations", "20", "--set", "network.channels=8,8", "--set", "network.up_channels=8", "--set", "inputs=noise"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """The HTTP and DICOM ports of an archive whose AE title is ARCHIVE."""
    program = shutil.which("Orthanc")
    if program is None or not PLUGIN.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("orthanc and orthanc-dicomweb are not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    http, dicom = free_port(), free_port()
    settings = {
        "StorageDirectory": str(folder / "store"),
        "HttpPort": http,
        "HttpBindAddresses": ["127.0.0.1"],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomPort": dicom,
        "DicomAet": "ARCHIVE",
        "DicomCheckCalledAet": True,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([program, folder / "orthanc.json"], stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    get(f"http://127.0.0.1:{http}/system")
                    break
                except OSError:
                    assert server.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < end
                    time.sleep(0.1)
            yield http, dicom
        finally:
            server.terminate()
            server.wait(30)


def get(address):
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310  # this machine
        return answer.read()


def kept(http):
    """The objects that the archive has, by UID."""
    base = f"http://127.0.0.1:{http}/instances"
    found = [pydicom.dcmread(BytesIO(get(f"{base}/{name}/file"))) for name in json.loads(get(base))]
    return {item.SOPInstanceUID: item for item in found}


@pytest.fixture
def series(tmp_path):
    folder = tmp_path / "series"
    affine = np.array([[0.0, 0, 4, 1], [-1, 0, 0, 2], [0, 2, 0, 3], [0, 0, 0, 1]])
    image = ImageVolume(np.random.default_rng(0).random((9, 7, 4), np.float32), affine)
    save_image(image, folder, dicom=DicomDetails("mri", study=new_study("PLANTED-7")))
    return folder


@pytest.fixture
def dipmed(monkeypatch, capsys):
    """Run a command; its exit status, and what it says on standard error, as one line."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dipmed", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, " ".join(capsys.readouterr().err.split())

    return run


@pytest.fixture
def send(dipmed):
    return partial(dipmed, "send")


@pytest.mark.parametrize("way", ["dicom", "web"])
@pytest.mark.parametrize("name", ["series", "all.dcm", "all.sc.dcm"])
def test_an_archive_keeps_what_was_sent(orthanc, series, send, way, name, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    http, dicom = orthanc
    path = tmp_path / name
    if name != "series":
        save_image(load_image(series), path, dicom=DicomDetails("mri", study=new_study("PLANTED-7")))
    address = f"dicom://127.0.0.1:{dicom}/ARCHIVE" if way == "dicom" else f"http://127.0.0.1:{http}/dicom-web"
    code, told = send(path, "--to", address)
    assert code == 0, told
    sent = [pydicom.dcmread(file) for file in ([path] if path.is_file() else path.iterdir())]
    assert f"{len(sent)} objects sent" in told
    archive = kept(http)
    for item in sent:
        assert archive[item.SOPInstanceUID] == item
    assert not (tmp_path / f"{name}.sent").exists()
    assert "PLANTED" not in told + caplog.text


def test_from_a_scanner_s_file_to_the_archive_with_a_report(orthanc, dipmed, data_dir, tmp_path):
    http, port = orthanc
    outputs = ("-o", tmp_path / "series", "-o", tmp_path / "image.nii.gz", "--report", tmp_path / "report.html")
    code, told = dipmed("recon", data_dir / "twix_skyra_gre2/gre.dat", *outputs, *FIT, "--patient-id", "STORY-1")
    assert code == 0, told
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "For research only" in page
    assert "STORY-1" not in page
    code, told = dipmed("send", tmp_path / "series", "--to", f"dicom://127.0.0.1:{port}/ARCHIVE")
    assert code == 0, told

    (back := tmp_path / "back").mkdir()
    for item in kept(http).values():
        if item.PatientID == "STORY-1":
            item.save_as(back / f"{item.SOPInstanceUID}.dcm", enforce_file_format=True)
    image, stored = load_image(tmp_path / "image.nii.gz"), load_image(back)
    # pictures are turned as doctors look at them: each voxel is compared where it lies
    index = np.indices(image.data.shape).reshape(3, -1)
    place = np.linalg.inv(stored.affine) @ image.affine @ np.vstack([index, np.ones(index.shape[1])])
    np.testing.assert_allclose(place[:3], place[:3].round(), atol=1e-3)
    values = stored.data[tuple(place[:3].round().astype(int))]
    np.testing.assert_allclose(values, image.data[tuple(index)], atol=image.data.max() / 65535)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("dicom://127.0.0.1:{dicom}/WRONG", "refuses the association: called ae title not recognised"),
        ("dicom://127.0.0.1:{nobody}/ARCHIVE", "cannot be reached"),
        ("http://127.0.0.1:{http}/elsewhere", "404 Not Found"),
        ("http://127.0.0.1:{nobody}/dicom-web", "cannot be reached"),
    ],
)
def test_an_archive_that_is_not_there_or_refuses(orthanc, series, send, address, words):
    http, dicom = orthanc
    code, told = send(series, "--to", address.format(http=http, dicom=dicom, nobody=free_port()))
    assert code == 1
    assert words in told
    assert "0 of 4 objects were sent, 4 were not, first 00001.dcm" in told
    assert [path.name for path in series.parent.iterdir()] == ["series"]


def test_a_refusal_is_told_however_late_this_end_looks(orthanc, series, send, monkeypatch):
    """The archive's answer is there, and its end of the connection closed, before the sender waits for it."""
    ask = ACSE.send_request

    def ask_and_sleep(acse):
        ask(acse)
        time.sleep(1)

    monkeypatch.setattr(ACSE, "send_request", ask_and_sleep)
    code, told = send(series, "--to", f"dicom://127.0.0.1:{orthanc[1]}/WRONG")
    assert code == 1
    assert "refuses the association: called ae title not recognised" in told


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ftp://host/x", "no address of an archive"),
        ("dicom://host/AET", "dicom://HOST:PORT/AET"),
        ("dicom://host:99999/AET", "is no address"),
        ("dicom://host:104/A-TITLE-TOO-LONG-FOR-DICOM", "dicom://HOST:PORT/AET"),
        ("http://archive.example/dicom-web", "not encrypted"),
        ("https://me:secret@archive.example/", "password"),
    ],
)
def test_addresses_that_are_refused(series, send, address, words):
    code, told = send(series, "--to", address)
    assert (code, words in told, "secret" in told) == (1, True, False)


@pytest.fixture
def archive():
    """Start an archive that answers with these statuses, one after the other, and breaks off where one is None."""
    running = []

    def start(port, statuses, sop_class=MR):
        received, answers = [], iter(statuses)

        def store(event):
            answer = next(answers)
            if answer is None:
                event.assoc.abort()
                return 0xC000
            received.append(event.request.AffectedSOPInstanceUID)
            return answer

        entity = AE(ae_title="ARCHIVE")
        entity.add_supported_context(sop_class)
        entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
        running.append(entity)
        return entity, received

    yield start
    for entity in running:
        entity.shutdown()


def test_a_server_that_dies_in_the_middle_gets_the_rest_later(series, send, archive, tmp_path):
    port = free_port()
    address = f"dicom://127.0.0.1:{port}/ARCHIVE"
    dying, first = archive(port, [0, 0xB000, None])
    code, told = send(series, "--to", address)
    assert code == 1
    assert "2 of 4 objects were sent, 2 were not, first 00003.dcm; the same command sends the rest" in told
    assert (tmp_path / "series.sent").read_text().split() == [address, first[0], address, first[1]]
    dying.shutdown()
    code, told = send(series, "--to", address)
    assert "2 of 4 objects were sent" in told
    _, rest = archive(port, [0, 0])
    code, told = send(series, "--to", address)
    assert code == 0, told
    assert "2 objects sent" in told
    assert "2 had been sent before" in told
    assert sorted([*first, *rest]) == sorted(pydicom.dcmread(file).SOPInstanceUID for file in series.iterdir())
    assert not (tmp_path / "series.sent").exists()


def test_an_archive_without_room(series, send, archive):
    port = free_port()
    archive(port, [0, 0xA700])
    code, told = send(series, "--to", f"dicom://127.0.0.1:{port}/ARCHIVE")
    assert (code, "status 0xA700; 1 of 4 objects" in told) == (1, True)


def test_an_archive_for_other_objects(series, send, archive):
    port = free_port()
    archive(port, [], sop_class="1.2.840.10008.5.1.4.1.1.2")
    code, told = send(series, "--to", f"dicom://127.0.0.1:{port}/ARCHIVE")
    assert (code, "takes no objects of the kind MR Image Storage" in told) == (1, True)


@contextmanager
def web_archive(answer, certificate=None):
    """A server that answers a token with a status and a body; gives its port and the paths that were asked for."""
    paths = []

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            paths.append(self.path)
            status, body = answer(self.headers.get("Authorization"), len(paths))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        server.handle_error = lambda *_: None
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, paths
        server.shutdown()


def test_the_token_comes_from_the_environment(series, send, monkeypatch):
    def answer(token, number):
        allowed = token == "Bearer open-sesame"  # noqa: S105  # of this server alone
        failed = b'{"00081198": {"vr": "SQ", "Value": [{}]}}'
        return (200 if allowed else 401), (failed if number == 4 else b"{}")

    with web_archive(answer) as (port, paths):
        address = f"http://127.0.0.1:{port}/web"
        code, told = send(series, "--to", address)
        assert (code, "401 Unauthorized; its token is read from DIPMED_DICOMWEB_TOKEN" in told) == (1, True)
        monkeypatch.setenv("DIPMED_DICOMWEB_TOKEN", "open-sesame")
        code, told = send(series, "--to", address)
        assert (code, "says so in its answer; 2 of 4 objects were sent" in told) == (1, True)
        code, told = send(series, "--to", address)
        assert (code, "2 had been sent before" in told, "sesame" in told) == (0, True, False)
        assert set(paths) == {"/web/studies"}


def test_a_web_archive_that_breaks_off_in_the_middle_gets_the_rest_later(series, send):
    def answer(_, number):
        if number == 3:
            raise ConnectionAbortedError
        return 200, b"{}"

    with web_archive(answer) as (port, paths):
        address = f"http://127.0.0.1:{port}/web"
        code, told = send(series, "--to", address)
        assert (code, "broke the connection off" in told, "2 of 4 objects were sent, 2 were not" in told) == (
            1,
            True,
            True,
        )
        code, told = send(series, "--to", address)
        assert (code, "2 objects sent" in told, "2 had been sent before" in told) == (0, True, True)
        assert len(paths) == 5


def test_an_archive_has_to_prove_who_it_is(series, send, monkeypatch, tmp_path):
    certificate = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ["-keyout", certificate[1], "-out", certificate[0], "-days", "1", "-subj", "/CN=localhost"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *made, *name], check=True)
    with web_archive(lambda *_: (200, b"{}"), certificate) as (port, paths):
        address = f"https://127.0.0.1:{port}/web"
        code, told = send(series, "--to", address)
        assert (code, "cannot prove who it is: self-signed certificate" in told) == (1, True)
        assert paths == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        assert send(series, "--to", address)[0] == 0
        assert len(paths) == 4
