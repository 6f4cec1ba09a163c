import os
import signal
import socket
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import torch

from dipmed.cluster import connect, find_cluster, local_cluster
from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError, ImageVolume
from dipmed.settings import ReconSettings
from dipmed.simulate import ProjectionSettings, simulate

pytest.importorskip("distributed")
FIT = ReconSettings(device="cpu", sets=("network.channels=8,8",), changes={"iterations": 30})


@pytest.fixture(scope="module")
def workers():
    """Two processes, with one thread each as in `one_thread`, while something else has Dask's usual port."""
    with socket.socket() as other, pytest.MonkeyPatch.context() as patch:
        with suppress(OSError):  # somebody has it already
            other.bind(("127.0.0.1", 8787))
            other.listen()
        patch.setattr(torch, "get_num_threads", lambda: 2)
        with local_cluster(2) as cluster:
            yield cluster


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scan():
    """Four slices, one of them air."""
    one = brain_phantom_scan((24, 20), n_coils=3, noise=0.01)[0]
    kspace = np.concatenate([one.kspace * factor for factor in (1, 2, 0, 3)], axis=1)
    return one.replace(kspace=kspace, mask=np.repeat(one.mask, 4, axis=1))


@pytest.mark.usefixtures("one_thread")
def test_workers_give_the_same_images(workers, scan):
    seen = set()
    found = reconstruct(scan, FIT, cluster=workers, progress=lambda number, n, _: seen.add((number, n)))
    expected = reconstruct(scan, FIT)
    np.testing.assert_array_equal(found.volume.data, expected.volume.data)
    assert [part.stop for part in found.reconstructions] == [part.stop for part in expected.reconstructions]
    assert seen <= {(number, 4) for number in range(4)}
    assert len(seen) > 1


@pytest.mark.usefixtures("one_thread")
def test_slices_share_one_projector(workers):
    x, y = np.meshgrid(np.arange(32) - 15.5, np.arange(32) - 15.5, indexing="ij")
    disc = np.where(np.hypot(x, y) < 12, 0.0, -1000.0)[:, :, None].repeat(3, axis=-1).astype(np.float32)
    scan = simulate(ImageVolume(disc, np.eye(4)), ProjectionSettings(12, "parallel")).scan
    settings = replace(FIT, method="sirt")
    found, expected = (reconstruct(scan, settings, cluster=cluster).volume.data for cluster in (workers, None))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("one_thread")
def test_killing_a_worker_changes_nothing_but_the_time(workers, scan):
    before = set(workers.processes())
    killed = []

    def kill(*_):
        if not killed:
            killed.append(min(before))
            os.kill(killed[0], signal.SIGKILL)

    settings = replace(FIT, changes={"iterations": 60})
    found = reconstruct(scan, settings, cluster=workers, progress=kill)
    assert killed
    assert killed[0] not in workers.processes()
    np.testing.assert_array_equal(found.volume.data, reconstruct(scan, settings).volume.data)


def test_a_job_that_cannot_be_done_is_told_as_without_workers(workers, scan):
    settings = replace(FIT, method="time-dependent")
    with pytest.raises(DipmedError, match="fits a series of frames"):
        reconstruct(scan, settings, cluster=workers)


@pytest.mark.parametrize(
    ("n_workers", "address", "expected"),
    [
        (None, "tcp://127.0.0.1:1", "no scheduler answers at tcp://127.0.0.1:1"),
        (None, "nonsense://x", "no scheduler answers at nonsense"),
        (2, "tcp://127.0.0.1:1", "give one of them"),
        (0, None, "at least one"),
    ],
)
def test_what_is_not_there_is_told(n_workers, address, expected, monkeypatch):
    monkeypatch.setattr("dipmed.cluster._PATIENCE_S", 1)
    with pytest.raises(DipmedError, match=expected), find_cluster(n_workers, address):
        pass


def test_a_gpu_is_asked_for_where_none_is(workers, scan):
    with pytest.raises(DipmedError, match="no worker announces a GPU"):
        reconstruct(scan, replace(FIT, device="cuda"), cluster=workers)


@pytest.mark.usefixtures("one_thread")
def test_a_running_scheduler_is_used(workers, scan):
    with connect(workers.address) as cluster:
        assert cluster.n_workers == 2
        found = reconstruct(scan, replace(FIT, method="cg-sense"), cluster=cluster)
    np.testing.assert_array_equal(found.volume.data, reconstruct(scan, replace(FIT, method="cg-sense")).volume.data)
