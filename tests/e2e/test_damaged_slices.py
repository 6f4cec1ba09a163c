"""A slice of which samples are no numbers does not cost the volume: it stays empty, and is said to be."""

import json

import h5py
import numpy as np
import pytest
import torch

from dipmed.io import load
from dipmed.io.projection_file import save_projections
from dipmed.phantom import brain_phantom_scan
from dipmed.scan import FormatError, ProjectionScan
from operators import Grid, ParallelBeam, SliceProjector, angles_over


def in_npz(folder, values):
    np.savez(folder / "scan.npz", kspace=values)
    return folder / "scan.npz"


def in_fastmri(folder, values):
    with h5py.File(folder / "scan.h5", "w") as file:
        file["kspace"] = values
    return folder / "scan.h5"


@pytest.fixture(scope="module")
def kspace():
    """Three slices, (slice, coil, x, y)."""
    one = brain_phantom_scan((32, 28), n_coils=3, noise=0.01)[0].kspace[0]
    return np.concatenate([one, 2 * one, 4 * one])


@pytest.mark.parametrize("write", [in_npz, in_fastmri])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_kspace(run_cli, kspace, tmp_path, write, bad):
    (tmp_path / "in").mkdir()
    whole = write(tmp_path / "in", kspace)
    run_cli("recon", whole, "-o", tmp_path / "whole.npz", "--method", "cg-sense")
    damaged = kspace.copy()
    damaged[1, 2, 3, 4] = bad
    file = write(tmp_path / "in", damaged)
    done = run_cli("recon", file, "-o", tmp_path / "a.npz", "--method", "cg-sense", "--json", tmp_path / "r.json")
    assert done.code == 0, done.err
    assert "these images were left empty: slice 1." in done.err
    assert "warning: slice 1 was filled with zeros" in done.err
    image, expected = (np.load(tmp_path / name)["image"] for name in ("a.npz", "whole.npz"))
    assert not image[:, :, 1].any()
    np.testing.assert_allclose(image[:, :, ::2], expected[:, :, ::2], rtol=1e-3, atol=1e-4 * expected.max())
    record = json.loads((tmp_path / "r.json").read_text())
    assert [part["status"] for part in record["images"]] == ["done", "filled", "done"]


def test_projections(run_cli, tmp_path):
    beam, grid = ParallelBeam(angles_over(30), 32, 1.0), Grid((20, 20), (1.0, 1.0))
    image = torch.zeros(1, 20, 20)
    image[:, 5:15, 5:15] = 0.02
    values = np.repeat(SliceProjector(grid, beam)(image).numpy(), 3, axis=0)
    save_projections(ProjectionScan(values, beam, grid, np.eye(4), "test"), tmp_path / "scan.h5")
    with h5py.File(tmp_path / "scan.h5", "r+") as file:
        file["projections"][1, 0, 0] = np.nan
    done = run_cli("recon", tmp_path / "scan.h5", "-o", tmp_path / "a.npz", "--method", "fbp")
    assert done.code == 0, done.err
    assert "warning: slice 1 was filled with zeros" in done.err
    image = np.load(tmp_path / "a.npz")["image"]
    assert not image[:, :, 1].any()
    assert image[8:12, 8:12, ::2].mean() == pytest.approx(0.02, rel=0.1)


def test_frames_are_told_apart(kspace, tmp_path):
    frames = np.stack([kspace, kspace])
    frames[1, 2, 0, 0, 0] = np.nan
    np.savez(tmp_path / "scan.npz", kspace=frames)
    scan = load(tmp_path / "scan.npz")
    assert any("left empty: slice 2 of frame 1." in sentence for sentence in scan.assumptions)
    assert not scan.kspace[1, 2].any()
    assert scan.kspace[0, 2].any()


def test_where_no_slice_is_left_the_file_is_refused(kspace, tmp_path):
    damaged = kspace.copy()
    damaged[:, 0, 0, 0] = np.nan
    np.savez(tmp_path / "scan.npz", kspace=damaged)
    with pytest.raises(FormatError, match="3 of 8064 samples"):
        load(tmp_path / "scan.npz")
