import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from monai.bundle import verify_metadata

from dipmed.bundle import SCHEMA
from dipmed.io import load, load_image
from dipmed.recon import reconstruct
from dipmed.settings import ReconSettings

REQUIRED = (
    *("version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "changelog"),
    *("task", "description", "authors", "copyright", "network_data_format"),
)


@pytest.fixture
def bundle(run_cli, tmp_path):
    done = run_cli("init-bundle", tmp_path / "bundle")
    assert done.code == 0
    assert len(done.out.splitlines()) == 4
    return tmp_path / "bundle"


def test_monai_runs_the_bundle_on_a_file(bundle, scan_file, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", bundle / "configs/inference.json"]
    options = {"bundle_root": bundle, "scan": scan_file, "output_dir": tmp_path / "out", "method": "cg-sense"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    subprocess.run(list(map(str, [*command, *words])), check=True, capture_output=True, timeout=250)
    found = load_image(tmp_path / "out/scan_cg-sense.nii.gz")
    expected = reconstruct(load(scan_file), ReconSettings(method="cg-sense", device="cpu")).volume
    np.testing.assert_allclose(found.data, np.abs(expected.data), rtol=1e-5)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)


def test_monai_finds_its_metadata_complete(bundle, tmp_path):
    # what MONAI's documentation of bundles asks for; its own schema lies on a server
    field = {"type": "object", "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]}
    fields = {"type": "object", "minProperties": 1, "additionalProperties": field}
    formats = {"type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": fields, "outputs": fields}}
    schema = {"type": "object", "required": list(REQUIRED), "properties": {"network_data_format": formats}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    digest = hashlib.sha256((tmp_path / "schema.json").read_bytes()).hexdigest()
    against = {"filepath": str(tmp_path / "schema.json"), "hash_val": digest, "hash_type": "sha256"}
    verify_metadata(meta_file=str(bundle / "configs/metadata.json"), **against)
    content = json.loads((bundle / "configs/metadata.json").read_text())
    assert content["schema"] == SCHEMA
    del content["task"]
    (tmp_path / "worse.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(meta_file=str(tmp_path / "worse.json"), **against)


def test_what_is_there_is_not_replaced(bundle, run_cli):
    (bundle / "configs/inference.json").write_text("mine")
    done = run_cli("init-bundle", bundle)
    assert done.code == 1
    assert "already" in done.error_lines[0] or "exists" in done.error_lines[0]
    assert (bundle / "configs/inference.json").read_text() == "mine"


def test_methods_that_need_another_file_are_refused(run_cli, tmp_path):
    done = run_cli("init-bundle", tmp_path / "bundle", "--method", "edip")
    assert done.code == 1
    assert "needs a file beside the scan" in done.error_lines[0]
    assert not (tmp_path / "bundle").exists()
