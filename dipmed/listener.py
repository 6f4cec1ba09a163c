"""What follows a run from outside, slice by slice; what it finds out never reaches a fit."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dipmed.dip import Progress
from dipmed.jobs import Job
from dipmed.scan import Reconstruction, Scan
from dipmed.settings import ReconSettings


class Listener:
    """Does nothing; those that do something replace what they need.

    With workers, `progress` is called from another thread than the others.
    """

    def begin(self, prepared: Scan, settings: ReconSettings, n_resumed: int) -> None:
        """The scan is prepared, and ``n_resumed`` of its images were there before."""

    def progress(self, job: Job, state: Progress) -> None:
        """A fit has done some more iterations."""

    def finished(self, job: Job, parts: Sequence[Reconstruction]) -> None:
        """An image is there, or those of all frames of a series."""


class Listeners(Listener):
    """Several of them; ``seconds`` is the time that they took with finished images."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = tuple(listeners)
        self.seconds = 0.0

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def begin(self, prepared: Scan, settings: ReconSettings, n_resumed: int) -> None:
        for listener in self._listeners:
            listener.begin(prepared, settings, n_resumed)

    def progress(self, job: Job, state: Progress) -> None:
        for listener in self._listeners:
            listener.progress(job, state)

    def finished(self, job: Job, parts: Sequence[Reconstruction]) -> None:
        start = time.perf_counter()
        for listener in self._listeners:
            listener.finished(job, parts)
        self.seconds += time.perf_counter() - start
