"""A volume whose slices are fitted together is the one whose slices are fitted one by one."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from dipmed.dip.batch import Batch
from dipmed.dip.fit import Fit
from dipmed.io.image_store import open_store
from dipmed.mode import memory_needed
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.run_together import make_plan
from dipmed.scan import DipmedError
from dipmed.settings import ReconSettings

TINY = ("network.channels=8,8", "network.skip_channels=4", "network.up_channels=4", "inputs=zero-filled", "rate=1e-3")
SETTINGS = ReconSettings(
    changes={"iterations": 10, "mixed_precision": "off", "adam_rate": 3e-4},
    sets=TINY,
    undersample="random:R=2,acs=12,seed=0",
    device="cpu",
)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def scan():
    """Five slices, the second without a sample, the others each twice as bright as the one before."""
    scan = brain_phantom_scan((32, 28), n_coils=3, noise=0.01)[0]
    kspace = np.concatenate([scan.kspace * factor for factor in (1, 0, 2, 4, 8)], axis=1)
    return scan.replace(kspace=kspace, mask=np.repeat(scan.mask, 5, axis=1))


def test_slices_in_flight_change_no_image(scan, monkeypatch, tmp_path):
    """One of them diverges and is tried again, and one is empty."""
    bad = reconstruct(scan, replace(SETTINGS, slices=(2, 3))).reconstructions[0].scale
    decay_rates = Fit.decay_rates

    def poisoned(fit):
        decay_rates(fit)
        if abs(fit.problem.scale / bad - 1) < 0.01 and fit.config.seed == 0:
            with torch.no_grad():
                next(fit.network.parameters()).fill_(float("nan"))

    monkeypatch.setattr(Fit, "decay_rates", poisoned)
    one_by_one = reconstruct(scan, SETTINGS)
    with open_store(tmp_path / "a.nii") as store:
        together = reconstruct(scan, replace(SETTINGS, in_flight=3), store=store)
        assert len(store.places()) == 5
    assert together.in_flight == 3
    assert [part.status for part in together.reconstructions] == ["done", "filled", "retried", "done", "done"]
    assert together.warnings == one_by_one.warnings
    for one, other in zip(together.reconstructions, one_by_one.reconstructions, strict=True):
        assert torch.linalg.norm(one.image - other.image) <= 1e-4 * torch.linalg.norm(other.image)
        assert (one.status, one.stop.iteration) == (other.status, other.stop.iteration)


def test_an_interruption_leaves_the_rest_direct(scan):
    def interrupt(_number, _n_images, state):
        if state.iteration == 10:
            os.kill(os.getpid(), signal.SIGINT)

    longer = replace(SETTINGS, changes={**SETTINGS.changes, "iterations": 60}, in_flight=2)
    result = reconstruct(scan, longer, progress=interrupt)
    assert result.was_interrupted
    assert [part.method for part in result.reconstructions] == ["dip", "dip", "dip", "zero-filled", "zero-filled"]
    assert [part.iterations for part in result.reconstructions[:3]] == [10, 0, 10]


def test_messages_of_a_batch_are_warnings(scan, monkeypatch):
    run = Batch.run

    def talkative(batch, orders):
        batch.messages.append("said so")
        return run(batch, orders)

    monkeypatch.setattr(Batch, "run", talkative)
    result = reconstruct(scan, replace(SETTINGS, in_flight=2, slices=(2, 4)))
    assert result.warnings == ("said so",)


@pytest.mark.parametrize(
    ("changes", "n", "why"),
    [
        ({}, 1, None),
        ({"in_flight": 4}, 4, None),
        ({"in_flight": 9}, 5, None),
        ({"method": "conv-decoder", "sets": (), "in_flight": 4}, 1, "network"),
        ({"warm_start": True, "in_flight": 4}, 1, "warm start"),
        ({"method": "cg-sense", "sets": (), "changes": {}, "in_flight": 4}, 1, "no fit"),
        ({"in_flight": 5, "memory_gib": "for two"}, 2, "memory"),
    ],
)
def test_how_many_run_together(scan, changes, n, why):
    settings = replace(SETTINGS, mode="slice", **changes)
    if settings.memory_gib is not None:
        settings = replace(
            settings, memory_gib=1.01 * memory_needed(scan, replace(settings, memory_gib=None), CPU, 2) / 2**30
        )
    plan = make_plan(scan, settings, CPU, 5)
    assert plan.in_flight == n
    assert not plan.compiles
    assert plan.notes == () if why is None else why in plan.notes[0]


def test_a_gpu_gets_many_and_compiles(scan):
    settings = replace(SETTINGS, mode="slice", memory_gib=4.0)
    plan = make_plan(scan, settings, CUDA, 5)
    assert (plan.in_flight, plan.compiles) == (5, True)
    assert make_plan(scan, replace(settings, compile="off"), CUDA, 100).in_flight == 16
    assert not make_plan(scan, replace(settings, compile="off"), CUDA, 5).compiles
    with pytest.raises(DipmedError, match="--compile"):
        make_plan(scan, replace(settings, compile="maybe"), CPU, 5)
