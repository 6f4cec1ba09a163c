"""One bad slice does not cost the volume: it is tried again, then filled, and said to be."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from dipmed.dip.fit import Fit
from dipmed.io.image_store import open_store
from dipmed.jobs import jobs
from dipmed.phantom import brain_phantom_scan
from dipmed.prepare import prepare
from dipmed.recon import reconstruct
from dipmed.run_job import run_or_fill
from dipmed.scan import DipmedError, DivergedError, ProjectionScan
from dipmed.settings import ReconSettings
from operators import ConeBeam, Grid, ParallelBeam, SliceProjector, VolumeProjector, angles_over

TINY = ("network.channels=4,4", "network.skip_channels=2", "network.up_channels=4", "inputs=noise")
SETTINGS = ReconSettings(changes={"iterations": 10}, sets=TINY, undersample="random:R=2,acs=12,seed=0", device="cpu")


@pytest.fixture(scope="module")
def scan():
    """Three slices, each twice as bright as the one before."""
    scan = brain_phantom_scan((32, 28), n_coils=3, noise=0.01)[0]
    kspace = np.concatenate([scan.kspace * 2**i for i in range(3)], axis=1)
    return scan.replace(kspace=kspace, mask=np.repeat(scan.mask, 3, axis=1))


def poison(monkeypatch, scales, seeds):
    """Let fits of these data, or all, and of these seeds lose their numbers."""
    update = Fit.decay_rates

    def poisoned(fit):
        of_data = scales is None or any(abs(fit.problem.scale / scale - 1) < 0.01 for scale in scales)
        if of_data and (seeds is None or fit.config.seed in seeds):
            with torch.no_grad():
                next(fit.network.parameters()).fill_(float("nan"))
        return update(fit)

    monkeypatch.setattr(Fit, "decay_rates", poisoned)


def test_a_slice_that_diverges_is_tried_with_another_seed(scan, monkeypatch):
    whole = reconstruct(scan, SETTINGS)
    scale = whole.reconstructions[1].scale
    poison(monkeypatch, [scale], seeds=[0])
    result = reconstruct(scan, SETTINGS)
    assert [part.status for part in result.reconstructions] == ["done", "retried", "done"]
    assert result.warnings[0].startswith("slice 1 was retried with seed 1000, after the fit diverged")
    other = reconstruct(scan, replace(SETTINGS, changes={"iterations": 10, "seed": 1000}))
    assert np.array_equal(result.volume.data[:, :, 1], other.volume.data[:, :, 1])
    assert np.array_equal(result.volume.data[:, :, ::2], whole.volume.data[:, :, ::2])


def test_then_it_is_filled(scan, monkeypatch, tmp_path):
    scale = reconstruct(scan, replace(SETTINGS, slices=(2, 3))).reconstructions[0].scale
    poison(monkeypatch, [scale], seeds=None)
    settings = replace(SETTINGS, slices=(1, 3))
    with open_store(tmp_path / "a.nii") as store:
        result = reconstruct(scan, settings, store=store)
        assert store.places() == [(0, 0), (0, 1)]
    assert [(part.status, part.method) for part in result.reconstructions] == [("done", "dip"), ("filled", "cg-sense")]
    assert result.warnings[0].startswith("slice 2 was filled by cg-sense, because the fit diverged again")
    filled = reconstruct(scan, replace(settings, method="cg-sense", sets=()))
    assert np.array_equal(result.volume.data[:, :, 1], filled.volume.data[:, :, 1])
    with open_store(tmp_path / "a.nii", resume=True) as store:
        assert reconstruct(scan, settings, store=store).warnings == result.warnings


def test_a_volume_of_fillings_is_none(scan, monkeypatch, tmp_path):
    poison(monkeypatch, None, seeds=None)
    with (
        open_store(tmp_path / "a.nii") as store,
        pytest.raises(DivergedError, match="first was filled by cg-sense"),
    ):
        reconstruct(scan, SETTINGS, store=store)
    assert list(tmp_path.iterdir()) == []


def test_a_series_is_filled_frame_by_frame(scan, monkeypatch):
    poison(monkeypatch, None, seeds=None)
    series = scan.replace(
        kspace=np.concatenate([scan.kspace] * 2),
        mask=np.concatenate([scan.mask] * 2),
        frame_labels=({"contrast": 0}, {"contrast": 1}),
    )
    settings = ReconSettings(method="time-dependent", changes={"iterations": 10}, device="cpu")
    job = next(jobs(prepare(series, settings), settings, torch.device("cpu")))
    part = run_or_fill(job, settings)
    assert part.status == "filled"
    assert part.image.shape == (2, 32, 28)
    assert torch.allclose(part.image[0], part.image[1], atol=1e-4 * part.image.abs().max())


@pytest.mark.parametrize("name", ["fbp", "sirt"])
def test_projections_are_filled(name, monkeypatch):
    poison(monkeypatch, None, seeds=None)
    angles = angles_over(20, 2 * math.pi)
    if name == "fbp":
        beam, grid = ParallelBeam(angles, 24, 1.0), Grid((16, 16), (1.0, 1.0))
    else:  # a helix, which is not back-projected
        beam = ConeBeam(angles, 10, 24, 1.0, 1.0, 60.0, 100.0, z_mm=tuple(np.linspace(-2, 2, 20)))
        grid = Grid((16, 16, 4), (1.0, 1.0, 1.0))
    projector = SliceProjector(grid, beam) if name == "fbp" else VolumeProjector(grid, beam)
    projections = projector(torch.full((1, *grid.shape), 0.02)).numpy()
    scan = ProjectionScan(projections, beam, grid, np.eye(4), "test")
    settings = ReconSettings(changes={"iterations": 10}, sets=TINY, device="cpu")
    part = run_or_fill(next(jobs(prepare(scan, settings), settings, torch.device("cpu"))), settings)
    assert (part.status, part.method) == ("filled", name)
    assert part.trouble.startswith(f"by {name}, because")
    assert part.image[0, 4:12, 4:12].mean() == pytest.approx(0.02, rel=0.3)


def test_a_full_gpu_is_told_of(scan, monkeypatch):
    def full(_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Fit, "step", full)
    with pytest.raises(DipmedError, match=r"GPU's memory is full.*--coils.*--device cpu"):
        reconstruct(scan, SETTINGS)
