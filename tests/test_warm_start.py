"""From one slice to the next: a volume whose fits start from each other is the same however its run was cut."""

from dataclasses import replace

import numpy as np
import pytest

from dipmed.dip import Uncertainty
from dipmed.io.image_store import open_store
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.record import recon_record
from dipmed.scan import DipmedError
from dipmed.settings import ReconSettings

TINY = ("network.channels=4,4", "network.skip_channels=2", "network.up_channels=4", "inputs=noise", "warm_share=0.5")
COLD = ReconSettings(changes={"iterations": 20}, sets=TINY, undersample="random:R=2,acs=12,seed=0", device="cpu")
WARM = replace(COLD, warm_start=True)


@pytest.fixture(scope="module")
def scan():
    """Three slices, each brighter than the one before."""
    scan = brain_phantom_scan((32, 28), n_coils=3, noise=0.01)[0]
    kspace = np.concatenate([scan.kspace * factor for factor in (1, 2, 3)], axis=1)
    return scan.replace(kspace=kspace, mask=np.repeat(scan.mask, 3, axis=1))


@pytest.fixture(scope="module")
def whole(scan):
    return reconstruct(scan, WARM)


def test_the_record_says_which_slices_were_warm(scan, whole):
    record = recon_record(whole, WARM)
    assert record["warm_start"]
    assert [image["started_from_neighbour"] for image in record["images"]] == [False, True, True]
    assert [image["iterations"] for image in record["images"]] == [20, 10, 10]
    cold = reconstruct(scan, COLD)
    same = [np.array_equal(cold.volume.data[:, :, i], whole.volume.data[:, :, i]) for i in range(3)]
    assert same == [True, False, False]
    assert all(part.weights is None for part in whole.reconstructions)


def test_a_resumed_run_gives_the_same_volume(scan, whole, tmp_path):
    class Crash(Exception):
        pass

    def crash(number, *_):
        if number == 1:
            raise Crash

    out = tmp_path / "image.npz"
    with pytest.raises(Crash), open_store(out) as store:
        reconstruct(scan, WARM, store=store, progress=crash)
    with open_store(out, resume=True) as store:
        result = reconstruct(scan, WARM, store=store)
    assert result.n_resumed == 1
    assert [part.is_warm for part in result.reconstructions] == [False, True, True]
    assert np.array_equal(result.volume.data, whole.volume.data)


def test_another_start_is_not_resumed(scan, tmp_path):
    out = tmp_path / "image.npz"
    with open_store(out) as store:
        reconstruct(scan, WARM, store=store)
    with (
        open_store(out, resume=True) as store,
        pytest.raises(DipmedError, match="warm_start was True and is now False"),
    ):
        reconstruct(scan, COLD, store=store)


def test_what_cannot_start_warm_is_refused(scan):
    with pytest.raises(
        DipmedError, match="deep-decoder cannot start from a neighbour's weights; --warm-start is for dip"
    ):
        reconstruct(scan, replace(WARM, method="deep-decoder", sets=()))
    with pytest.raises(DipmedError, match="an ensemble"):
        reconstruct(scan, replace(WARM, uncertainty=Uncertainty("ensemble", 2)))
    with pytest.raises(DipmedError, match="one after the other"):
        reconstruct(scan, WARM, cluster=object())
