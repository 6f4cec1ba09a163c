"""Every measured k-space case goes through `info`, and every Cartesian one through `recon`."""

import json

import numpy as np
import pytest

CARTESIAN = {
    "bart_brain8/full.cfl": (230, 180, 1),
    "bart_brain8/und2x2.cfl": (230, 180, 1),
    "fastmri_vfa13/vfa13_fa11.h5": (224, 224, 1),
    "mat73_brain16/raw_data.mat": (96, 96, 1),
    "dyn_vfa_cart4/vfa_cart4.cfl": (224, 224, 1, 6),
    "ismrmrd_bottles14_r3/meas_MID00349_FID09273_SNR_R3.h5": (192, 144, 1),
    "sim3d_mc6/ksp.cfl": (52, 64, 48),
    "twix_cimax_phantom16/20240206160052_flash16.dat": (128, 128, 1),
    "twix_skyra_gre2/gre.dat": (160, 160, 1),
}
NON_CARTESIAN = [
    "radial_cardiac12/radial_cardiac_25_projections.mat",
    "radial_cardiac12/radial_cardiac12_derived.mrd.h5",
    "dyn_vfa_radial5/vfa_radial5.h5",
]


@pytest.mark.parametrize("name", [*CARTESIAN, *NON_CARTESIAN])
def test_info(run_cli, data_dir, name):
    done = run_cli("info", data_dir / name, "--json", "-")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["cartesian"] == (name in CARTESIAN)
    assert record["coils"] > 1


@pytest.mark.parametrize("name", CARTESIAN)
def test_recon(run_cli, data_dir, tmp_path, name):
    out = tmp_path / "image.npz"
    done = run_cli("recon", data_dir / name, "-o", out, "--method", "zero-filled")
    assert done.code == 0, done.err
    image = np.load(out)["image"]
    assert image.shape == CARTESIAN[name]
    assert np.isfinite(image).all()
    # an object in air: a good part is dark, a good part is bright, and the middle is not empty
    first = image.reshape(*image.shape[:3], -1)[..., 0]
    bright = first > 0.1 * np.percentile(first, 99.5)
    assert 0.05 < bright.mean() < 0.9
    centre = bright[tuple(slice(n // 4, n - n // 4) for n in bright.shape[:2])]
    assert centre.mean() > bright.mean() * 0.9


@pytest.mark.parametrize("name", NON_CARTESIAN[::2])
def test_recon_along_a_trajectory(run_cli, data_dir, tmp_path, name):
    out = tmp_path / "image.npz"
    options = ("--coils", 4, "--join-frames", "--method", "cg-sense")
    done = run_cli("recon", data_dir / name, "-o", out, *options)
    assert done.code == 0, done.err
    image = np.load(out)["image"]
    assert image.shape == (256, 256, 1)
    bright = image[..., 0] > 0.1 * np.percentile(image, 99.5)
    assert bright[64:192, 64:192].mean() > 2 * bright[:, :32].mean()


def test_a_radial_scan_is_fitted(run_cli, data_dir):
    options = ("--undersample", "equispaced:R=10,acs=0,seed=0", "--join-frames", "--iterations", 40, "--json", "-")
    file = data_dir / "dyn_vfa_radial5/vfa_radial5.h5"
    done = run_cli("compare", file, "--methods", "zero-filled,dip", *options)
    assert done.code == 0, done.err
    zero_filled, dip = json.loads(done.out)["rows"]
    assert dip["psnr"] > zero_filled["psnr"] + 2
    assert dip["stop"]["rule"] == "held-out"


def test_a_measured_scan_is_fitted(run_cli, data_dir, tmp_path):
    options = ("--undersample", "random:R=3,acs=16,seed=0", "--iterations", 40, "--coils", 6, "--json", "-")
    done = run_cli("compare", data_dir / "mat73_brain16/raw_data.mat", "--methods", "zero-filled,dip", *options)
    assert done.code == 0, done.err
    zero_filled, dip = json.loads(done.out)["rows"]
    assert dip["psnr"] > zero_filled["psnr"] + 2
    assert list(tmp_path.iterdir()) == []
