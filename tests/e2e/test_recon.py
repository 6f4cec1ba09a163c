import json
import os
import signal
import subprocess
import sys
import time

import nibabel
import numpy as np
import pytest

from dipmed.io import load

UNDERSAMPLED = ("--undersample", "random:R=2,acs=12,seed=0")


def test_every_output_holds_the_same_image(run_cli, scan_file, tmp_path):
    names = ["image.nii.gz", "image.nii", "image.npz", "image.cfl", "image.h5", "image.png"]
    outputs = [argument for name in names for argument in ("-o", tmp_path / name)]
    done = run_cli("recon", scan_file, *outputs, "--method", "cg-sense", *UNDERSAMPLED, "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names, "image.hdr", "r.json"])
    image = nibabel.load(tmp_path / "image.nii.gz")
    np.testing.assert_allclose(image.affine, load(scan_file).affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.shape[:3] == (48, 40, 1)
    from dipmed.io.images import load_image

    for name in ("image.nii", "image.npz", "image.cfl"):
        np.testing.assert_allclose(np.abs(load_image(tmp_path / name).data), image.get_fdata(), rtol=1e-5, atol=1e-7)


def test_record_says_how_the_image_came_about(run_cli, scan_file, tmp_path):
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", *UNDERSAMPLED, "--iterations", 20, "--json", "-")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    wanted = {"method", "preset", "seed", "stop", "iterations", "seconds", "peak_memory_mib", "device", "image"}
    assert wanted | {"assumptions", "versions"} <= set(record)
    assert set(record["stop"]) == {"rule", "iteration", "reason"}
    assert set(record["seconds"]) == {"total", "calibration", "fit"}
    assert record["image"]["shape"] == [48, 40, 1]
    assert np.array(record["image"]["affine"]).shape == (4, 4)
    assert record["iterations"] == 20
    assert record["method"] == "dip"
    assert record["seconds"]["fit"] <= record["seconds"]["total"]


def test_same_seed_same_file(run_cli, scan_file, tmp_path):
    images = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        out = tmp_path / f"{name}.npz"
        assert run_cli("recon", scan_file, "-o", out, *UNDERSAMPLED, "--iterations", 10, "--seed", seed).code == 0
        images.append(np.load(out)["image"])
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_dip_is_closer_to_the_truth_than_the_zero_filled_image(run_cli, scan_file, tmp_path):
    truth = tmp_path / "truth.npz"
    run_cli("recon", scan_file, "-o", truth, "--method", "zero-filled")
    reference = np.load(truth)["image"]
    errors = {}
    for method in ("zero-filled", "dip"):
        out = tmp_path / f"{method}.npz"
        options = ("--method", method, *UNDERSAMPLED, "--iterations", 80)
        assert run_cli("recon", scan_file, "-o", out, *options).code == 0
        errors[method] = np.linalg.norm(np.load(out)["image"] - reference)
    assert errors["dip"] < 0.6 * errors["zero-filled"]


def test_slices_keep_their_place_and_brightness(run_cli, three_slices, tmp_path):
    run_cli("recon", three_slices, "-o", tmp_path / "all.nii", "--method", "zero-filled")
    done = run_cli("recon", three_slices, "-o", tmp_path / "two.nii", "--method", "zero-filled", "--slices", "1:3")
    assert done.code == 0, done.err
    whole, part = (nibabel.load(tmp_path / name) for name in ("all.nii", "two.nii"))
    np.testing.assert_allclose(part.get_fdata(), whole.get_fdata()[:, :, 1:], rtol=1e-4)
    np.testing.assert_allclose(part.affine @ [3, 4, 0, 1], whole.affine @ [3, 4, 1, 1], atol=1e-4)
    means = whole.get_fdata().mean(axis=(0, 1))
    np.testing.assert_allclose(means[1:] / means[:-1], 2, rtol=1e-3)


def test_coils_maps_and_masks_can_be_chosen(run_cli, scan_file, tmp_path):
    mask = np.zeros(40, dtype=bool)
    mask[::2] = mask[14:26] = True
    np.save(tmp_path / "mask.npy", mask)
    options = ("--method", "cg-sense", "--mask", tmp_path / "mask.npy", "--coils", 3, "--maps", "jsense")
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.npz", *options)
    assert done.code == 0, done.err
    plain = run_cli("recon", scan_file, "-o", tmp_path / "b.npz", "--method", "cg-sense")
    assert plain.code == 0, plain.err
    a, b = (np.load(tmp_path / name)["image"] for name in ("a.npz", "b.npz"))
    inside = b > 0.3 * b.max()
    assert np.linalg.norm((a - b)[inside]) < 0.35 * np.linalg.norm(b[inside])


def test_existing_files_are_kept_unless_forced(run_cli, scan_file, tmp_path):
    out = tmp_path / "image.nii"
    out.write_text("precious")
    done = run_cli("recon", scan_file, "-o", out, "--method", "zero-filled")
    assert done.code == 1
    assert len(done.error_lines) == 1
    assert "--force" in done.err
    assert out.read_text() == "precious"
    assert run_cli("recon", scan_file, "-o", out, "--method", "zero-filled", "--force").code == 0
    assert nibabel.load(out).shape[:2] == (48, 40)


def test_ctrl_c_keeps_the_best_image_so_far(scan_file, tmp_path):
    out, log = tmp_path / "image.nii.gz", tmp_path / "log.txt"
    command = [sys.executable, "-m", "dipmed.cli", "recon", str(scan_file), "-o", str(out), "--iterations", "1000000"]
    with log.open("w") as stream:
        process = subprocess.Popen([*command, *UNDERSAMPLED, "--json", str(tmp_path / "r.json")], stderr=stream)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and "image 1/1" not in log.read_text():
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(60) == 130, log.read_text()
    assert "interrupted" in log.read_text()
    assert float(np.abs(nibabel.load(out).get_fdata()).max()) > 0
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["stop"]["rule"] == "interrupted"
    # beside it what --resume goes on from
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.nii.gz", "image.nii.gz.parts", "log.txt", "r.json"]


def test_a_time_limit_is_kept(run_cli, scan_file, tmp_path):
    options = ("--iterations", 10**6, "--time-limit", 2, *UNDERSAMPLED, "--json", "-")
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", *options)
    record = json.loads(done.out)
    assert record["stop"]["rule"] == "time-limit"
    assert record["seconds"]["fit"] < 20


@pytest.mark.parametrize("rule", ["held-out", "windowed-variance", "exponential-variance", "discrepancy", "budget"])
def test_every_rule_can_decide(run_cli, scan_file, tmp_path, rule):
    options = ("--stop", rule, "--iterations", 20, *UNDERSAMPLED, "--json", "-")
    done = run_cli("recon", scan_file, "-o", tmp_path / "a.nii", *options)
    if rule == "discrepancy" and "noise measurement" in done.err:
        assert done.code == 1  # a file that was written without a noise scan says so
        return
    assert done.code == 0, done.err
    assert json.loads(done.out)["stop"]["iteration"] > 0


@pytest.mark.parametrize(("chosen", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_sleep_while_they_wait_unless_told_otherwise(scan_file, chosen, policy):
    settings = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-m", "dipmed", "info", str(scan_file)],
        env={**settings, **chosen, "OMP_DISPLAY_ENV": "TRUE"},  # the library says what it found when torch loads it
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
