"""From what a user names to trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from dipmed.scan import DipmedError, MissingExtra
from dipmed.tracking.base import Tracker, Writer
from dipmed.tracking.mlflow import MLflowWriter
from dipmed.tracking.tensorboard import TensorBoardWriter

KINDS = ("tensorboard", "mlflow")


def check_targets(targets: Sequence[str]) -> None:
    """Refuse before the work begins what is no target, or what is not installed.

    Raises
    ------
    DipmedError
        When a text is neither ``tensorboard:DIR`` nor ``mlflow:URI``.
    MissingExtra
        When its package is missing.
    """
    for target in targets:
        kind, colon, where = target.partition(":")
        if kind not in KINDS or not colon or (kind == "tensorboard" and not where):
            raise DipmedError(f"--log-to takes tensorboard:DIR or mlflow:URI, got {target!r}")
        if find_spec(kind) is None:
            raise MissingExtra(f"--log-to {kind}: needs another package: pip install 'dipmed[{kind}]'")


@contextmanager
def open_trackers(targets: Sequence[str], method: str, warn: Callable[[str], None]) -> Iterator[list[Tracker]]:
    """Begin a run of its own in each target, and end it; its name is the method with the time.

    Raises
    ------
    DipmedError
        When a server does not answer, or a folder cannot be written.
    """
    name = f"{method}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    trackers: list[Tracker] = []
    failed = True
    try:
        for target in targets:
            trackers.append(Tracker(_open(target, name), warn))  # noqa: PERF401  # those before are ended if one fails
        yield trackers
        failed = False
    finally:
        for tracker in trackers:
            tracker.close(failed=failed)


def _open(target: str, name: str) -> Writer:
    kind, _, where = target.partition(":")
    if kind == "mlflow":
        return MLflowWriter(where, name)
    try:
        return TensorBoardWriter(Path(where) / name)
    except OSError as error:
        raise DipmedError(f"cannot write to {where}: {error.strerror}") from error
