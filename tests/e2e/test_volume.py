"""A scan of a volume from the command line: a cone beam in our own file, to an image in its place."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch

from dipmed.io.projection_file import save_projections
from dipmed.scan import ProjectionScan
from operators import ConeBeam, Grid, ParallelBeam, SliceProjector, VolumeProjector, angles_over

GRID = Grid((20, 20, 16), (1.5, 1.5, 2.0), (0.0, 0.0, 1.0))
AFFINE = np.array([[-1.5, 0, 0, 14], [0, -1.5, 0, 13], [0, 0, 2.0, -30], [0, 0, 0, 1.0]])


def write(path, heights=()):
    x, y, z = torch.meshgrid(*[torch.from_numpy(GRID.coordinates(axis)).float() for axis in range(3)], indexing="ij")
    body = ((x / 12) ** 2 + (y / 11) ** 2 + ((z - 1) / 13) ** 2 < 1).float()
    truth = 0.02 * (body + 0.5 * ((x - 5) ** 2 + y**2 < 9).float() * body)[None]
    beam = ConeBeam(angles_over(48, 2 * math.pi), 30, 34, 2.4, 2.4, 120.0, 200.0, z_mm=heights)
    projections = VolumeProjector(GRID, beam)(truth).numpy()
    save_projections(ProjectionScan(projections, beam, GRID, AFFINE, "test", water_per_mm=0.02), path)
    return truth[0].numpy()


@pytest.fixture(scope="module")
def cone(tmp_path_factory):
    path = tmp_path_factory.mktemp("cone") / "scan.h5"
    return path, write(path)


def error(image, truth):
    return np.linalg.norm(image - truth) / np.linalg.norm(truth)


def test_info_tells_of_the_rays(run_cli, cone):
    record = json.loads(run_cli("info", cone[0], "--json", "-").out)
    assert record["beam"] == "ConeBeam"
    assert (record["dimensions"], record["views"], record["n_rows"]) == (3, 48, 30)
    assert record["image_shape"] == [20, 20, 16]


@pytest.mark.parametrize("method", ["fbp", "sirt", "cg-tv", "dip"])
def test_every_method_puts_the_volume_in_its_place(run_cli, cone, tmp_path, method):
    path, truth = cone
    options = ("--method", method, "--views", 24, *(("--iterations", 30) if method == "dip" else ()))
    done = run_cli("recon", path, "-o", tmp_path / "image.nii", "--json", tmp_path / "record.json", *options)
    assert done.code == 0, done.err
    image = nib.load(tmp_path / "image.nii")
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    assert error(image.get_fdata(), truth) < 0.3
    assert json.loads((tmp_path / "record.json").read_text())["preset"] == "ct-3d"


def test_a_coarser_volume_covers_the_same_place(run_cli, cone, tmp_path):
    options = ("--method", "fbp", "--matrix", 10, "--hounsfield")
    done = run_cli("recon", cone[0], "-o", tmp_path / "image.nii", *options)
    assert done.code == 0, done.err
    image = nib.load(tmp_path / "image.nii")
    assert image.shape == (10, 10, 8)
    assert np.abs(np.diag(image.affine)[:3]) == pytest.approx([3, 3, 4])
    assert image.get_fdata()[4:6, 3:5, 3:5].mean() == pytest.approx(0, abs=60)


def test_volumes_have_no_slices_to_choose(run_cli, cone, tmp_path):
    done = run_cli("recon", cone[0], "-o", tmp_path / "image.nii", "--slices", "2:4")
    assert done.code == 1
    assert "seen by a cone" in done.err


def test_a_helix_is_iterated_and_not_back_projected(run_cli, tmp_path):
    truth = write(tmp_path / "helix.h5", tuple(np.linspace(-5, 7, 48)))
    done = run_cli("recon", tmp_path / "helix.h5", "-o", tmp_path / "image.nii", "--method", "fbp")
    assert done.code == 1
    assert "choose sirt, cg-tv or dip" in done.err
    done = run_cli("recon", tmp_path / "helix.h5", "-o", tmp_path / "image.nii", "--method", "sirt")
    assert done.code == 0, done.err
    assert error(nib.load(tmp_path / "image.nii").get_fdata(), truth) < 0.2
    # by default, without the method that it has not
    done = run_cli("compare", tmp_path / "helix.h5", "--views", 12, "--iterations", 20, "--json", "-")
    assert done.code == 0, done.err
    assert [row["method"] for row in json.loads(done.out)["rows"]] == ["sirt", "cg-tv", "dip"]


def test_compare_scores_volumes(run_cli, cone, tmp_path):
    options = ("--methods", "fbp,cg-tv", "--views", 12, "--json", "-", "--plot", tmp_path / "plot.png")
    done = run_cli("compare", cone[0], *options)
    assert done.code == 0, done.err
    rows = {row["method"]: row for row in json.loads(done.out)["rows"]}
    assert rows["fbp"]["psnr"] < rows["cg-tv"]["psnr"]
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_stack_of_alike_slices_is_one_volume_unless_told_otherwise(run_cli, tmp_path):
    grid, beam = Grid((20, 20), (1.5, 1.5)), ParallelBeam(angles_over(16, math.pi), 34, 1.5)
    x, y = torch.meshgrid(*[torch.from_numpy(grid.coordinates(axis)).float() for axis in range(2)], indexing="ij")
    images = torch.stack([0.02 * ((x - 0.2 * z) ** 2 + y**2 < 100).float() for z in range(8)])
    lines = torch.stack([SliceProjector(grid, beam)(image[None])[0] for image in images]).numpy()
    save_projections(ProjectionScan(lines, beam, grid, np.diag([1.5, 1.5, 3.0, 1.0]), "test"), tmp_path / "scan.h5")
    found = {}
    for mode in ("auto", "slice"):
        out, record = tmp_path / f"{mode}.nii", tmp_path / f"{mode}.json"
        done = run_cli("recon", tmp_path / "scan.h5", "-o", out, "--json", record, "--mode", mode, "--iterations", 30)
        assert done.code == 0, done.err
        found[mode] = json.loads(record.read_text())
        assert error(nib.load(out).get_fdata(), images.permute(1, 2, 0).numpy()) < 0.3
    assert found["auto"]["mode"]["name"] == found["auto"]["asked"]["settings"]["mode"] == "3d"
    assert found["auto"]["preset"] == "ct-3d-slices"
    assert "of the image changes; one network fits all 8 slices" in found["auto"]["mode"]["reason"]
    assert [len(found[mode]["images"]) for mode in ("auto", "slice")] == [1, 8]
