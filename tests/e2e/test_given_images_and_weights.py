"""What a method is given beside the scan, through the command line: weights from a file, a similar image."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pretrain.py"
SHORT = ("--undersample", "random:R=2,acs=12,seed=0", "--iterations", 15, "--json", "-")


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """Weights after a few steps of pre-training: what is tested is that they arrive."""
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    options = ["--steps", "4", "--size", "32", "--batch", "1", "--directions", "2"]
    done = subprocess.run([sys.executable, SCRIPT, path, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("method", ["edip", "subspace"])
def test_weights_are_read_and_recorded(run_cli, scan_file, weights_file, tmp_path, method):
    done = run_cli(
        "recon", scan_file, "-o", tmp_path / "image.nii.gz", "--method", method, "--weights", weights_file, *SHORT
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["method"] == method
    assert np.isfinite(nib.load(tmp_path / "image.nii.gz").get_fdata()).all()


@pytest.mark.parametrize(
    ("method", "given", "said"),
    [
        ("edip", (), "give --weights FILE"),
        ("dip", ("--weights", "{weights}"), "cannot start from weights"),
        ("edip", ("--weights", "{scan}"), "weights"),
        ("reference-guided", (), "--reference-image"),
        ("reference-guided", ("--reference-image", "nothing.nii.gz"), "nothing.nii.gz"),
    ],
)
def test_what_is_missing_or_not_taken_is_named(run_cli, scan_file, weights_file, tmp_path, method, given, said):
    given = [part.format(weights=weights_file, scan=scan_file) for part in given]
    done = run_cli("recon", scan_file, "-o", tmp_path / "image.nii.gz", "--method", method, *given, *SHORT)
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert said in done.err
    assert not list(tmp_path.iterdir())


def test_a_similar_image_guides_the_fit(run_cli, scan_file, tmp_path):
    guide, image = tmp_path / "guide.nii.gz", tmp_path / "image.nii.gz"
    assert run_cli("recon", scan_file, "-o", guide, "--method", "zero-filled").code == 0
    options = ("--method", "reference-guided", "--reference-image", guide)
    done = run_cli("recon", scan_file, "-o", image, *options, *SHORT)
    assert done.code == 0, done.err
    other = run_cli("recon", scan_file, "-o", tmp_path / "other.nii.gz", "--method", "dip-input", *SHORT)
    assert other.code == 0, other.err
    images = [nib.load(path).get_fdata() for path in (image, tmp_path / "other.nii.gz")]
    assert not np.allclose(*images)
