import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tmp_path_factory.mktemp("compare")


def test_compare_scores_the_methods_on_one_reference(run_cli, scan_file, pictures):
    options = ("--methods", "zero-filled,cg-sense,dip", "--undersample", "random:R=2,acs=12,seed=0")
    watch = ("--watch", "spectral-band,windowed-variance")
    plot = ("--plot", pictures / "plot.png")
    done = run_cli("compare", scan_file, *options, *watch, "--iterations", 60, "--json", "-", *plot)
    assert done.code == 0, done.err
    rows = {row["method"]: row for row in json.loads(done.out)["rows"]}
    assert list(rows) == ["zero-filled", "cg-sense", "dip"]
    wanted = {"method", "psnr", "ssim", "nrmse", "psnr_raw", "seconds", "seconds_fit", "iterations", "stop", "regret"}
    assert all(wanted <= set(row) for row in rows.values())
    assert rows["zero-filled"]["psnr"] < rows["cg-sense"]["psnr"]
    assert rows["zero-filled"]["psnr"] < rows["dip"]["psnr"]
    assert rows["dip"]["regret"] >= 0
    assert rows["cg-sense"]["regret"] is None
    # each rule's choice from the one run, and every 25th iterate's score to hold it against
    assert rows["cg-sense"]["choices"] == {}
    assert set(rows["dip"]["choices"]) == {"held-out", "spectral-band", "windowed-variance"}
    assert rows["dip"]["choices"]["held-out"] == rows["dip"]["stop"]["iteration"]
    assert [at for at, *_ in rows["dip"]["snapshots"]] == [25, 50]
    assert (pictures / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_reference_cannot_change_the_fit(run_cli, scan_file, tmp_path):
    """The same fit is scored against two references: its own figures, scores aside, stay the same."""
    run_cli("recon", scan_file, "-o", tmp_path / "full.nii", "--method", "zero-filled")
    image = np.load(_npz_of(run_cli, scan_file, tmp_path))["image"]
    np.savez(tmp_path / "other.npz", image=image[::-1], affine=np.eye(4))
    options = ("--methods", "dip", "--undersample", "random:R=2,acs=12,seed=0", "--iterations", 20, "--json", "-")
    results = [
        json.loads(run_cli("compare", scan_file, *options, "--reference", reference).out)["rows"][0]
        for reference in ("full", tmp_path / "other.npz")
    ]
    assert results[0]["psnr"] != results[1]["psnr"]
    for name in ("iterations", "stop"):
        assert results[0][name] == results[1][name]


def _npz_of(run_cli, scan_file, tmp_path):
    out = tmp_path / "image.npz"
    assert run_cli("recon", scan_file, "-o", out, "--method", "zero-filled").code == 0
    return out


def test_an_undersampled_scan_is_not_its_own_reference(run_cli, scan, tmp_path):
    from dipmed.io import save_ismrmrd

    mask = scan.mask.copy()
    mask[..., 1::2] = False
    mask[..., 14:26] = True
    save_ismrmrd(scan.replace(kspace=scan.kspace * mask[:, :, None], mask=mask), tmp_path / "scan.h5")
    done = run_cli("compare", tmp_path / "scan.h5", "--methods", "zero-filled")
    assert done.code == 1
    assert "not fully sampled" in done.err
    assert "--reference" in done.err


def test_demo_leaves_a_scan_an_image_and_a_comparison(run_cli, tmp_path, monkeypatch):
    from dipmed import config

    # a short fit: what is tested is that everything comes out
    monkeypatch.setitem(config.PRESETS, "mri-2d", config.PRESETS["mri-2d"].replace(iterations=10))
    done = run_cli("demo", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"scan.h5", "image.nii.gz", "image.png", "recon.json", "compare.json", "compare.png"}


def test_settings_are_given_by_key_and_value(run_cli, scan_file):
    options = ("--undersample", "random:R=2,acs=12,seed=0", "--methods", "dip,dip-tv", "--json", "-")
    sets = ("--set", "iterations=20", "--set", "dip-tv.iterations=30", "--set", "network.channels=16,16")
    done = run_cli("compare", scan_file, *options, *sets)
    assert done.code == 0, done.err
    assert {row["method"]: row["iterations"] for row in json.loads(done.out)["rows"]} == {"dip": 20, "dip-tv": 30}


@pytest.mark.parametrize(
    ("text", "said"),
    [("tv", "KEY=VALUE"), ("tvweight=1", "no setting 'tvweight'"), ("iterations=few", "takes a whole number")],
)
def test_a_wrong_setting_is_named(run_cli, scan_file, tmp_path, text, said):
    done = run_cli("recon", scan_file, "-o", tmp_path / "image.nii.gz", "--set", text)
    assert done.code == 1
    assert said in done.err
    assert not list(tmp_path.glob("image*"))


def test_methods_are_listed_for_programs(run_cli):
    listed = json.loads(run_cli("methods", "--json", "-").out)
    methods = {method["name"]: method for method in listed["methods"]}
    assert {"dip", "dip-tv", "fbp"} <= set(methods)
    assert methods["dip-tv"]["citation"].startswith("doi:")
    assert methods["dip-tv"]["settings"]["tv_weight"] == "float"
    assert "held-out" in listed["rules"]


def test_lists_and_health(run_cli):
    listed = run_cli("methods")
    assert listed.code == 0
    for name in ("dip-vanilla", "l1-wavelet", "held-out", "mri-2d"):
        assert name in listed.out
    healthy = run_cli("doctor")
    assert healthy.code == 0
    assert "adjoint on cpu" in healthy.out
    assert run_cli("--version").out.startswith("dipmed ")
