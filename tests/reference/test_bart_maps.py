"""Our sensitivity maps against those of BART's ecalib."""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion

from dipmed.calib.coils import estimate_maps
from dipmed.io import load
from dipmed.phantom import brain_phantom_scan
from operators import CartesianMRI, make_mask

pytestmark = pytest.mark.reference

BART = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bart_sweep.py"))


@pytest.fixture(autouse=True)
def _bart() -> None:
    if not BART["has_bart"]():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("bart is not on the path")


def projection(ours, theirs):
    """<ours, theirs> of each voxel where both have maps: 1 in magnitude where they agree, the phase of the gauges."""
    both = ours.any(axis=0) & theirs.any(axis=0)
    length = np.linalg.norm(theirs, axis=0)
    return np.where(both, (ours.conj() * theirs).sum(axis=0) / np.where(both, length, 1), 0), both


@pytest.mark.parametrize("method", ["espirit", "jsense"])
def test_maps_and_their_phase_are_bart_s(method):
    scan, truth = brain_phantom_scan((72, 64), 6, noise=0.005)
    mask = make_mask("random:R=3,acs=20,seed=0", (72, 64)).numpy()
    kspace = scan.kspace[0, 0] * mask
    found, both = projection(estimate_maps(kspace, mask, method).cropped, BART["bart_maps"](kspace))
    core = binary_erosion(np.abs(truth.image[0]) > 0.1, iterations=2)
    assert both[core].mean() > 0.97
    assert np.quantile(np.abs(found[core & both]), 0.05) > 0.98
    # both refer phases to the first principal component, so they differ by one constant
    gauge = found[core & both] / np.abs(found[core & both])
    assert np.abs(gauge.mean()) > 0.99


@pytest.mark.parametrize(
    ("spec", "agreement"), [("random:R=4,acs=16,seed=0", 0.99), ("random:R=6,acs=12,seed=0", 0.97)]
)
def test_maps_of_a_real_scan(data_dir: Path, spec, agreement):
    scan = load(data_dir / "bart_brain8" / "full")
    mask = make_mask(spec, scan.matrix_shape).numpy()
    kspace = scan.kspace[0, 0] * mask
    ours, theirs = estimate_maps(kspace, mask).cropped, BART["bart_maps"](kspace)
    found, both = projection(ours, theirs)
    A = CartesianMRI(torch.from_numpy(ours), torch.from_numpy(mask))
    image = A.adjoint(torch.from_numpy(kspace))[0].abs().numpy()
    bright = both & (image > 0.2 * image.max())
    assert np.quantile(np.abs(found[bright]), 0.05) > agreement


def test_classical_methods_of_both_programs_agree():
    scan, truth = brain_phantom_scan((48, 40), 5, noise=0.01)
    mask = make_mask("random:R=2,acs=12,seed=0", (48, 40)).numpy()
    rows = BART["sweep"](scan.kspace[0, 0], mask, np.abs(truth.image[0]), None)
    best = {(row.method, row.maps): row for row in rows}
    assert {maps for _, maps in best} == {"dipmed", "bart"}
    # the same minimum for least squares; other wavelets and another kind of total variation
    for method, tolerance in (("cg-sense", 0.05), ("l1-wavelet", 0.5), ("tv", 0.5)):
        ours, theirs = best[method, "dipmed"], best[f"bart-{method}", "dipmed"]
        assert len(ours.trials) == len(theirs.trials) == 7
        assert ours.psnr == max(trial.scores.psnr for trial in ours.trials)
        assert ours.psnr == pytest.approx(theirs.psnr, abs=tolerance), method
