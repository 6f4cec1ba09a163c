"""Scans that each method is tried on, small enough for a few dozen iterations a second."""

import importlib.util
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from dipmed.config import NetworkConfig
from dipmed.nets import to_channels
from operators import CartesianMRI, ConeBeam, FanBeam, Grid, SliceProjector, VolumeProjector, angles_over

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "pretrain.py"


def _ellipsoid(grid):
    axes = torch.meshgrid(*[torch.from_numpy(grid.coordinates(axis)) for axis in range(len(grid.shape))], indexing="ij")
    inside = sum((axis / (0.35 * n)) ** 2 for axis, n in zip(axes, grid.shape, strict=True)) < 1
    return 0.02 * inside.float()[None]


@pytest.fixture
def small_slice():
    """An ellipse of 24 x 20 pixels seen by a fan from 12 sides: (y, A, truth)."""
    grid = Grid((24, 20), (1.0, 1.0))
    A = SliceProjector(grid, FanBeam(angles_over(12, 2 * math.pi), 36, 1.5, 60.0, 120.0))
    truth = _ellipsoid(grid)
    return A(truth), A, truth


@pytest.fixture
def small_volume():
    """An ellipsoid of 12 x 10 x 8 voxels seen by a cone from 8 sides: (y, A, truth)."""
    grid = Grid((12, 10, 8), (1.0, 1.0, 1.0))
    A = VolumeProjector(grid, ConeBeam(angles_over(8, 2 * math.pi), 14, 18, 2.0, 2.0, 60.0, 120.0))
    truth = _ellipsoid(grid)
    return A(truth), A, truth


@pytest.fixture
def small_mri_volume():
    """A box of 8 x 12 x 10 voxels seen by two coils, half of its lines measured: (y, A, truth)."""
    truth = torch.zeros(1, 8, 12, 10, dtype=torch.complex64)
    truth[:, 2:6, 3:9, 3:7] = 1
    slope = torch.linspace(0.5, 1, 12)[:, None].expand(8, 12, 10)
    maps = torch.stack([slope, (1 - slope.square()).sqrt()]).to(torch.complex64)
    mask = torch.zeros(8, 12, 10, dtype=torch.bool)
    mask[:, ::2] = mask[:, 4:8] = True
    A = CartesianMRI(maps, mask)
    return A(truth), A, truth


@pytest.fixture
def watch():
    """Note what a method's network saw at each step, and what came out: lists of channels."""

    def watched(method):
        log = SimpleNamespace(inputs=[], seen=[], outputs=[], towards_data=[])
        network_input, after_step = method.network_input, method.after_step

        def note_input(fit):
            log.inputs.append(fit.input.detach().clone())
            seen = network_input(fit)
            log.seen.append(seen.detach().clone())
            return seen

        def note_output(fit, gradient):
            log.outputs.append(to_channels(fit.output))
            log.towards_data.append(to_channels(fit.data_consistent(gradient)))
            after_step(fit, gradient)

        method.network_input, method.after_step = note_input, note_output
        return log

    return watched


@pytest.fixture(scope="session")
def pretraining():
    """The script that pre-trains networks, as a module."""
    specification = importlib.util.spec_from_file_location("pretrain", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    sys.modules["pretrain"] = module  # where its dataclass looks for its types
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pretrained(pretraining):
    """A small network after some seconds with synthetic images of 32 x 32 pixels."""
    network = NetworkConfig(channels=(16, 16), skip_channels=8)
    return pretraining.pretrain(pretraining.Settings(size=32, batch=2, steps=60, n_directions=20, network=network))


@pytest.fixture(scope="session")
def pretrained_for_ct(pretraining):
    """The same for slices of CT."""
    network = NetworkConfig(channels=(16, 16), skip_channels=8)
    return pretraining.pretrain(
        pretraining.Settings("ct", size=32, batch=2, steps=40, n_directions=20, network=network)
    )
