"""A run in an MLflow tracking server or file store."""

from __future__ import annotations

import os
import time

from dipmed.scan import DipmedError, MissingExtra
from dipmed.tracking.base import Picture

EXPERIMENT = "dipmed"

_BETWEEN_S = 2.0
_MOST = 1000  # metrics of one request, as the protocol has it
_ENDS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no word to the makers of MLflow
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is gone costs seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MLflowWriter:
    """Writes a run; metrics go in batches every few seconds.

    Parameters
    ----------
    uri
        Of the tracking server or store; empty for the one that ``MLFLOW_TRACKING_URI`` names.
    name
        Of the run.

    Raises
    ------
    MissingExtra
        When MLflow is not installed.
    DipmedError
        When the server does not answer, or the store cannot be used.
    """

    def __init__(self, uri: str, name: str) -> None:
        for key, value in _SETTINGS.items():
            os.environ.setdefault(key, value)
        try:
            from mlflow.entities import Metric
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise MissingExtra("--log-to mlflow: needs MLflow: pip install 'dipmed[mlflow]'") from error
        self._make_metric = Metric
        try:
            self._client = MlflowClient(tracking_uri=uri or None)
            found = self._client.get_experiment_by_name(EXPERIMENT)
            experiment = self._client.create_experiment(EXPERIMENT) if found is None else found.experiment_id
            self._run = self._client.create_run(experiment, run_name=name).info.run_id
        except Exception as error:  # of many kinds: of the store, of the network, of what is not installed
            reason = " ".join(str(error).split())[:300]
            raise DipmedError(f"MLflow does not take the run: {reason}") from error
        self._waiting: list[tuple[str, float, int, int]] = []
        self._sent_at = time.monotonic()

    def settings(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            self._client.log_param(self._run, name, value)

    def scalar(self, name: str, value: float, step: int) -> None:
        self._waiting.append((name, value, round(1000 * time.time()), step))

    def picture(self, name: str, pixels: Picture, step: int) -> None:
        self._client.log_image(self._run, pixels, key=name, step=step)

    def text(self, name: str, words: str) -> None:
        self._client.set_tag(self._run, name, words)

    def flush(self) -> None:
        if time.monotonic() - self._sent_at >= _BETWEEN_S:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for first in range(0, len(waiting), _MOST):
            metrics = [self._make_metric(*values) for values in waiting[first : first + _MOST]]
            self._client.log_batch(self._run, metrics=metrics)
        self._sent_at = time.monotonic()

    def close(self, status: str) -> None:
        self._send()
        self._client.set_terminated(self._run, _ENDS[status])
