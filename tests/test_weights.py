"""From synthetic images to a reconstruction: the script, its file, and what refuses it."""

import subprocess
import sys
from pathlib import Path

import pytest

from dipmed.compare import compare
from dipmed.config import NetworkConfig
from dipmed.io.weights_file import load_weights
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.record import recon_record
from dipmed.scan import DipmedError
from dipmed.settings import ReconSettings, check_weights
from dipmed.weights import PretrainedWeights

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "pretrain.py"
FOR_CT = PretrainedWeights(NetworkConfig(), "ct", 2, {})


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mri.safetensors"
    options = ["--steps", "4", "--size", "24", "--batch", "1", "--directions", "2", "--seed", "7"]
    done = subprocess.run([sys.executable, SCRIPT, path, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def test_what_the_script_writes_is_taken(file):
    weights = load_weights(file)
    assert (weights.modality, weights.ndim, weights.steps, weights.seed, weights.n_directions) == ("mri", 2, 4, 7, 2)
    scan, _ = brain_phantom_scan((32, 32), n_coils=3)
    for method in ("edip", "subspace"):
        settings = ReconSettings(method=method, weights=weights, changes={"iterations": 3}, maps="jsense", device="cpu")
        result = reconstruct(scan, settings)
        assert result.reconstructions[0].method == method
        assert recon_record(result, settings)["weights"]["steps"] == 4


def test_the_weights_bring_their_network():
    weights = PretrainedWeights(NetworkConfig((8,), 4, 4), "mri", 2, {})
    assert ReconSettings(method="edip", weights=weights).fit_config("mri", 2).network == weights.network
    assert ReconSettings(method="dip", weights=weights).fit_config("mri", 2).network == NetworkConfig()


@pytest.mark.parametrize(
    ("method", "weights", "match"),
    [
        ("edip", None, r"edip starts from pre-trained weights; give --weights FILE: `python scripts/pretrain\.py"),
        ("subspace", None, "subspace starts from"),
        ("dip", FOR_CT, "dip cannot start from weights; --weights is for edip and subspace"),
        ("edip", FOR_CT, "for CT images of 2 dimensions, but this scan is MRI in 2"),
    ],
)
def test_weights_and_methods_that_do_not_go_together_are_refused(method, weights, match):
    scan, _ = brain_phantom_scan((32, 32), n_coils=3)
    with pytest.raises(DipmedError, match=match):
        reconstruct(scan, ReconSettings(method=method, weights=weights))
    with pytest.raises(DipmedError, match=match):
        compare(scan, [method], ReconSettings(weights=weights))


def test_one_of_several_methods_may_take_the_weights():
    weights = PretrainedWeights(NetworkConfig(), "mri", 2, {})
    check_weights(ReconSettings(weights=weights), ["zero-filled", "edip"], "mri", 2)
