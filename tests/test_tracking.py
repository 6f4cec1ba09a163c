"""Runs in TensorBoard and MLflow, read back with their own readers; nobody is named in them."""

import os
from pathlib import Path

import numpy as np
import pytest

from dipmed.phantom import brain_phantom_scan
from dipmed.recon import reconstruct
from dipmed.scan import DipmedError
from dipmed.settings import ReconSettings
from dipmed.tracking import check_targets, open_trackers
from dipmed.tracking.base import Tracker

WATCH = {"iterations": 40, "watch": ("windowed-variance", "self-referenced")}
FIT = ReconSettings(device="cpu", sets=("network.channels=8,8",), changes=WATCH, slices=(1, 3))


@pytest.fixture(scope="module")
def scan():
    one = brain_phantom_scan((24, 20), n_coils=3, noise=0.01)[0]
    return one.replace(kspace=np.repeat(one.kspace, 3, axis=1), mask=np.repeat(one.mask, 3, axis=1))


@pytest.fixture(scope="module")
def logged(scan, tmp_path_factory):
    """One run in both; its folder, its result, and what was warned of."""
    folder = tmp_path_factory.mktemp("logs")
    warned = []
    targets = (f"tensorboard:{folder / 'tb'}", f"mlflow:{(folder / 'mlruns').as_uri()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        check_targets(targets)
        with open_trackers(targets, FIT.method, warned.append) as trackers:
            result = reconstruct(scan, FIT, listeners=trackers)
    return folder, result, warned


def test_tensorboard_reads_curves_stops_and_pictures(logged):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, result, warned = logged
    assert not warned
    (run,) = (folder / "tb").iterdir()
    assert run.name.startswith("dip-")
    events = EventAccumulator(str(run)).Reload()
    for number, part in enumerate(result.reconstructions):
        name = f"slice {number + 1}"
        for curve in ("loss", "held-out", "self-referenced"):
            found = {event.step: event.value for event in events.Scalars(f"{curve}/{name}")}
            expected = {at: value for at, value in part.curves[curve] if at > 1}  # the first is before the first report
            assert found == pytest.approx(expected, rel=1e-5)
        pictures = events.Images(f"image/{name}")
        assert (pictures[0].step, pictures[-1].step) == (10, 40)
        assert (pictures[0].width, pictures[0].height) == (24, 20)
        (text,) = events.Tensors(f"stop/{name}/text_summary")
        assert part.stop.reason in text.tensor_proto.string_val[0].decode()
    kept = [(event.step, event.value) for event in events.Scalars("kept iteration")]
    assert kept == [(number, part.stop.iteration) for number, part in enumerate(result.reconstructions)]


def test_mlflow_reads_the_same(logged, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder, result, _ = logged
    client = MlflowClient((folder / "mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("dipmed").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["method"] == "dip"
    assert run.data.params["watch"] == "windowed-variance, self-referenced"
    loss = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, "loss/slice 1")]
    assert loss[-1] == (40, pytest.approx(result.reconstructions[0].curves["loss"][-1][1]))
    assert result.reconstructions[1].stop.reason in run.data.tags["stop/slice 2"]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["images"]
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    user = Path.home().name
    assert run.data.tags.get("mlflow.user", "") != user
    assert run.info.user_id != user


class Broken:
    """A server that is gone after the first word."""

    said = 0

    def settings(self, values):
        self.values = values

    def __getattr__(self, name):
        def fail(*_):
            self.said += 1
            raise ConnectionError("nobody answers")

        return fail


def test_a_server_that_dies_costs_no_image(scan):
    warned, broken = [], Broken()
    tracker = Tracker(broken, warned.append)
    result = reconstruct(scan, FIT, listeners=[tracker])
    tracker.close(failed=False)
    assert [part.status for part in result.reconstructions] == ["done", "done"]
    assert warned == ["nothing more is logged: ConnectionError: nobody answers"]
    assert broken.said == 1
    assert "maps" in broken.values


@pytest.mark.parametrize("target", ["wandb:x", "tensorboard", "tensorboard:", "mlflow"])
def test_other_targets_are_refused(target):
    with pytest.raises(DipmedError, match="tensorboard:DIR or mlflow:URI"):
        check_targets([target])


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DipmedError, match="cannot write"),
        open_trackers([f"tensorboard:{tmp_path / 'file'}"], "dip", print),
    ):
        pass
