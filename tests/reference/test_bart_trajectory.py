"""Reconstructions along a trajectory against BART's, on the same samples and maps."""

import os
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from dipmed.baselines import CGSense
from dipmed.phantom import brain_phantom_scan
from operators import NonCartesianMRI, NonUniformFourier, density_compensation, radial

pytestmark = pytest.mark.reference

BART = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "bart_sweep.py"))
MATRIX = (64, 64)


@pytest.fixture(autouse=True)
def _bart() -> None:
    if not BART["has_bart"]():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("bart is not on the path")


@pytest.fixture(scope="module")
def measured():
    """Noiseless samples of a head along 48 spokes, with the operator that they come from."""
    _, truth = brain_phantom_scan(MATRIX, n_coils=5)
    positions = 0.95 * radial(MATRIX, 48, golden=True).reshape(-1, 2).float()
    maps = torch.from_numpy(truth.maps)
    samples = NonUniformFourier((5, *MATRIX), positions)(maps * torch.from_numpy(truth.image))
    A = NonCartesianMRI(maps, positions, density_compensation(positions, MATRIX))
    return samples, A, truth


def nrmse(image, truth):
    return np.linalg.norm(image - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("weighted", [False, True])
def test_images_and_their_units_are_the_same(measured, weighted):
    samples, A, truth = measured
    root = A.weights.sqrt().numpy() if weighted else None
    trajectory = BART["Trajectory"](A.trajectory.numpy(), root)
    theirs = BART["bart_pics"](samples.numpy(), A.maps.numpy(), ["-l2", "-r", "0.001", "-i", "60"], trajectory)
    ours = CGSense(lam=1e-4)(A.weigh(samples), A).image[0].numpy()
    inside = np.abs(truth.image[0]) > 0.05
    assert nrmse(theirs[inside], ours[inside]) < 0.05
    assert np.abs(theirs[inside]).mean() == pytest.approx(np.abs(truth.image[0][inside]).mean(), rel=0.02)


def test_maps_from_the_gridded_centre_are_the_true_ones(measured):
    samples, A, truth = measured
    maps = BART["bart_trajectory_maps"](samples.numpy(), A.trajectory.numpy(), MATRIX)
    where = (np.abs(truth.image[0]) > 0.3) & maps.any(axis=0)
    agreement = np.abs((maps.conj() * truth.maps).sum(axis=0)) / np.where(where, np.linalg.norm(maps, axis=0), 1)
    assert where.mean() > 0.2
    assert np.quantile(agreement[where], 0.05) > 0.98


def test_the_sweep_gives_a_row_for_each_method_and_maps(measured):
    samples, A, truth = measured
    globals_ = BART["sweep_trajectory"].__globals__
    few = {name: (options, weights[2:3]) for name, (options, weights) in globals_["BART_TRAJECTORY_METHODS"].items()}
    ours = {name: (make, weights[2:3]) for name, (make, weights) in globals_["OUR_METHODS"].items()}
    original = globals_["BART_TRAJECTORY_METHODS"], globals_["OUR_METHODS"]
    globals_["BART_TRAJECTORY_METHODS"], globals_["OUR_METHODS"] = few, ours
    try:
        rows = BART["sweep_trajectory"](samples.numpy(), A, np.abs(truth.image[0]), None)
    finally:
        globals_["BART_TRAJECTORY_METHODS"], globals_["OUR_METHODS"] = original
    assert len(rows) == 4 + 4 * 3
    assert {row.maps for row in rows} == {"dipmed", "bart", "bart, weighted", "dipmed, weighted"}
    assert all(row.psnr > 20 for row in rows if row.method != "zero-filled")
