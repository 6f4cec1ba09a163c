"""The page that `recon --report` writes: what it says, and whom it does not name."""

import base64
import html
import json
import re
import zlib
from html.parser import HTMLParser

import numpy as np
import pytest

from dipmed import jobs
from dipmed.io import save_ismrmrd

UNDERSAMPLED = ("--undersample", "random:R=2,acs=12,seed=0")
HOSTILE = "Planted^Name<img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Tags with their attributes, and the text outside of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.raw = [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.raw = tag in ("script", "style")

    def handle_endtag(self, tag):
        self.raw = False

    def handle_data(self, data):
        if not self.raw:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def named_scan(scan, tmp_path):
    """Two slices without a measurement of the noise, in a file with a person's name that would like to be a tag."""
    path = tmp_path / f"{HOSTILE}.h5"
    kspace = np.concatenate([scan.kspace, 2 * scan.kspace], axis=1)
    save_ismrmrd(scan.replace(kspace=kspace, mask=np.repeat(scan.mask, 2, 1), noise_covariance=None), path)
    return path


def test_a_page_says_what_to_know_and_fetches_nothing(run_cli, named_scan, tmp_path, monkeypatch):
    page, calibrated = tmp_path / "page.html", []
    find_maps = jobs.estimate_maps
    monkeypatch.setattr(jobs, "estimate_maps", lambda *a, **k: calibrated.append(1) or find_maps(*a, **k))
    fit = ("--iterations", 20, "--watch", "windowed-variance,self-referenced", "--set", "network.channels=8,8")
    done = run_cli(
        "recon", named_scan, "-o", tmp_path / "a.nii", *UNDERSAMPLED, *fit, "--uncertainty", "jitter", "--report", page
    )
    assert done.code == 0, done.err
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert "Planted" not in text
    assert not re.search(r"https?:|//[\w.]+\.\w|url\(|@import", text)
    assert all(value.startswith("data:") for _, named in outline.tags for key, value in named.items() if key == "src")
    assert {"link", "iframe", "object", "base"}.isdisjoint(tag for tag, _ in outline.tags)
    assert "default-src 'none'" in text
    order = [
        outline.text.index(words)
        for words in (
            "For research only",
            "The noise is not known",
            "slice 0",
            "rule held-out",
            "were measured",
            "estimated from the outermost",
        )
    ]
    assert order == sorted(order)
    for rule in ("windowed-variance", "self-referenced", "held-out (decided)"):
        assert rule in outline.text
    panels = [named["aria-label"] for tag, named in outline.tags if tag == "canvas"]
    assert panels == ["dip", "cg-sense, 10 iterations", "disagreement with the data", "standard deviation"]
    assert len(calibrated) == 2  # each slice once


def test_who_is_named_is_named_as_text(run_cli, named_scan, tmp_path):
    page = tmp_path / "page.html"
    arguments = ("recon", named_scan, "-o", tmp_path / "a.nii", "--method", "cg-sense", "--report", page)
    assert run_cli(*arguments, "--identify").code == 0
    text = page.read_text(encoding="utf-8")
    assert html.escape(f"{HOSTILE}.h5") in text
    assert HOSTILE not in text
    again = run_cli(*arguments)
    assert (again.code, len(again.error_lines)) == (1, 1)
    assert "exists already" in again.err


@pytest.mark.parametrize(
    ("options", "error"), [(["--report", "a.pdf"], "writes a .html"), (["--identify"], "is for --report")]
)
def test_what_cannot_be_written_is_refused_before_the_work(run_cli, scan_file, tmp_path, options, error):
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", *options)
    assert (done.code, len(done.error_lines)) == (1, 1)
    assert error in done.err
    assert not list(tmp_path.iterdir())


def test_a_comparison_shows_every_method_beside_the_reference(run_cli, named_scan, tmp_path):
    page, record = tmp_path / "page.html", tmp_path / "record.json"
    fit = ("--iterations", 50, "--watch", "windowed-variance", "--set", "network.channels=8,8")
    arguments = ("compare", named_scan, "--methods", "zero-filled,dip", *UNDERSAMPLED, *fit, "--json", record)
    done = run_cli(*arguments, "--report", page)
    assert done.code == 0, done.err
    text = page.read_text(encoding="utf-8")
    outline = Outline(text)
    assert "Planted" not in text
    assert not re.search(r"https?:|//[\w.]+\.\w|url\(|@import", text)
    for words in ("For research only", "The noise is not known", "held-out (decided)", "One image, of one scan"):
        assert words in outline.text
    panels = [named["aria-label"] for tag, named in outline.tags if tag == "canvas"]
    assert panels == ["reference", "zero-filled", "error of zero-filled", "dip", "error of dip"]
    zero_filled, dip = json.loads(record.read_text())["rows"]
    for row in (zero_filled, dip):
        assert f"{row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}" in outline.text
    # the chosen image is that of a snapshot, or lies near one: what each rule would have kept has a score
    assert re.search(r"held-out \(decided\) \d+ \d+\.\d\d dB", outline.text)
    data = json.loads(re.search(r'id="viewer-data">(.*?)</script>', text)[1])
    reference, _, worse, _, better = (unpack(layer) for layer in data["layers"])
    rms = [float(np.sqrt(np.mean(error**2) / np.mean(reference**2))) for error in (worse, better)]
    np.testing.assert_allclose(rms, [zero_filled["nrmse"], dip["nrmse"]], rtol=0.05)
    assert run_cli(*arguments, "--force", "--report", page, "--identify").code == 0
    assert html.escape(f"{HOSTILE}.h5") in page.read_text(encoding="utf-8")


def unpack(layer):
    steps = np.frombuffer(zlib.decompress(base64.b64decode(layer["voxels"])), "<u2")
    return layer["low"] + layer["step"] * steps


def test_projections_over_a_limited_angle(run_cli, tmp_path):
    """A disc of attenuation 0.02/mm, seen over 120 degrees: its back-projections are in its unit, as the image is."""
    angles, columns = np.arange(0, 120, 4.0), np.arange(48) - 23.5
    rows = 2 * 0.02 * np.sqrt(np.clip(15.0**2 - columns**2, 0, None)) * np.ones((len(angles), 1))
    np.save(tmp_path / "scan.npy", rows.astype(np.float32))
    beam = {"kind": "parallel", "angles_deg": list(angles), "n_columns": 48, "column_mm": 1.0}
    (tmp_path / "scan.json").write_text(json.dumps({"beam": beam}))
    page = tmp_path / "page.html"
    done = run_cli("recon", tmp_path / "scan.npy", "-o", tmp_path / "a.nii", "--method", "sirt", "--report", page)
    assert done.code == 0, done.err
    outline = Outline(page.read_text(encoding="utf-8"))
    assert re.search(r"limited: lines over (5\d|6\d)° of 180° were not measured", outline.text)
    assert "30 views at angles from 0° to 116°" in outline.text
    assert len(re.findall("<polyline", page.read_text())) >= len(angles)
    data = json.loads(re.search(r'id="viewer-data">(.*?)</script>', page.read_text())[1])
    image, filtered, disagreement = (layer["window"][1] for layer in data["layers"])
    assert 0.015 < image < 0.03
    assert 0.01 < filtered < 0.02  # two thirds, as of the angles
    assert disagreement < 0.2 * image
