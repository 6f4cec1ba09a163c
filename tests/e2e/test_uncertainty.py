import json

import nibabel
import numpy as np
import pytest

from dipmed.io.images import load_image, std_path

UNDERSAMPLED = ("--undersample", "random:R=2,acs=12,seed=0")
QUICK = ("--iterations", 10, "--set", "network.channels=8,8")


@pytest.mark.parametrize("kind", [("jitter", "--uncertainty-samples", 4), ("ensemble", "--uncertainty-samples", 2)])
def test_the_deviation_goes_beside_each_image(run_cli, scan_file, tmp_path, kind):
    outputs = ("-o", tmp_path / "image.nii.gz", "-o", tmp_path / "other.npz")
    done = run_cli("recon", scan_file, *outputs, *UNDERSAMPLED, *QUICK, "--uncertainty", *kind, "--json", "-")
    assert done.code == 0, done.err
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"image.nii.gz", "image.std.nii.gz", "other.npz", "other.std.npz"}
    image, std = (nibabel.load(tmp_path / name) for name in ("image.nii.gz", "image.std.nii.gz"))
    assert image.shape == std.shape
    np.testing.assert_array_equal(image.affine, std.affine)
    deviation = std.get_fdata()
    assert 0 < deviation.mean() < np.abs(image.get_fdata()).max()
    assert deviation.min() >= 0
    np.testing.assert_allclose(load_image(tmp_path / "other.std.npz").data, deviation, rtol=1e-5)
    assert json.loads(done.out)["uncertainty"] == {"kind": kind[0], "samples": kind[2]}


def test_samples_of_langevin_dynamics_have_a_deviation(run_cli, scan_file, tmp_path):
    method = ("--method", "sgld", "--uncertainty", "sgld")
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", *UNDERSAMPLED, *QUICK, *method)
    assert done.code == 0, done.err
    assert load_image(tmp_path / "a.std.nii").data.max() > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--uncertainty", "guess"), "guess"),
        (("--uncertainty-samples", "3"), "--uncertainty"),
        (("--uncertainty", "sgld"), "sgld"),
        (("--uncertainty", "ensemble", "--method", "tv"), "no fit"),
        (("--uncertainty", "jitter", "--set", "input_jitter=0"), "noise"),
    ],
)
def test_what_cannot_be_is_refused_before_the_scan_is_read(run_cli, tmp_path, arguments, words):
    done = run_cli("recon", tmp_path / "missing.h5", "-o", tmp_path / "a.nii", *arguments)
    assert done.code == 1
    assert words in done.err
    assert "missing.h5" not in done.err


def test_a_map_that_exists_is_not_replaced(run_cli, scan_file, tmp_path):
    (tmp_path / "a.std.nii").write_bytes(b"mine")
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", "--uncertainty", "jitter")
    assert done.code == 1
    assert "a.std.nii" in done.err
    assert (tmp_path / "a.std.nii").read_bytes() == b"mine"
    assert not (tmp_path / "a.nii").exists()


def test_two_outputs_of_one_name_are_refused(run_cli, scan_file, tmp_path):
    both = ("-o", tmp_path / "a.nii", "-o", tmp_path / "a.std.nii")
    done = run_cli("recon", scan_file, *both, "--uncertainty", "jitter")
    assert done.code == 1
    assert "twice" in done.err


def test_a_comparison_tells_how_errors_and_deviations_agree(run_cli, scan_file):
    methods = ("--methods", "zero-filled,dip", *QUICK, "--uncertainty", "jitter", "--json", "-")
    done = run_cli("compare", scan_file, *UNDERSAMPLED, *methods)
    assert done.code == 0, done.err
    direct, fit = json.loads(done.out)["rows"]
    assert direct["calibration"] is None
    one, two, three = fit["calibration"]["within"]
    assert 0 < one <= two <= three <= 1
    assert -1 <= fit["calibration"]["correlation"] <= 1
    assert "Gauss" in done.err


def test_attenuation_deviates_in_hounsfield_units(run_cli, data_dir, tmp_path):
    case = (data_dir / "ct_htc_tb_fan" / "htc2022_tb_merged.mat", "--views", 20, "--matrix", 32, *QUICK)
    spread = []
    for name, unit in (("a", ()), ("b", ("--hounsfield", "--water", 0.02))):
        done = run_cli("recon", *case, *unit, "-o", tmp_path / f"{name}.nii", "--uncertainty", "jitter")
        assert done.code == 0, done.err
        spread.append(load_image(std_path(tmp_path / f"{name}.nii")).data)
    np.testing.assert_allclose(spread[1], 1000 / 0.02 * spread[0], rtol=1e-3, atol=0.1)
