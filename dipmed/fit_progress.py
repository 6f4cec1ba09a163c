"""Fits in progress on a terminal: how far each is, its curves as small drawings, and why the finished ones stopped."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from dipmed.dip import Progress
from dipmed.jobs import Job
from dipmed.listener import Listener
from dipmed.places import Places, places_of
from dipmed.scan import Reconstruction, Scan
from dipmed.settings import ReconSettings
from dipmed.stacks import n_jobs_of

_BLOCKS = "▁▂▃▄▅▆▇█"
_LETTERS = "_.-=+*#@"
_CURVE_WIDTH, _BAR_WIDTH = 10, 12
_MOST_FITS = 8
"""Of many workers, the table shows so many fits."""


class FitProgress(Listener):
    """Shows fits while they run, and a line for each that has ended; lines alone where there is no terminal.

    As a listener it shows the slices of a run. Called with a number, how many there are, and the state of a fit, it
    shows fits one after the other.

    Parameters
    ----------
    console
        Where to.
    clock
        Seconds from any moment on.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._lock = threading.RLock()
        self._live = Live(self, console=console, auto_refresh=True, refresh_per_second=4, transient=True)
        self._places: Places | None = None
        self._n = 0
        self._fits: dict[int, _Curves] = {}
        self._announced: set[int] = set()
        self._ended: set[int] = set()
        self._n_resumed = 0
        self._start = clock()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, prepared: Scan, settings: ReconSettings, n_resumed: int) -> None:
        """Learn what the slices are called, and how many are there already."""
        self._places = places_of(prepared, settings)
        self._n, self._n_resumed, self._start = n_jobs_of(prepared, settings), n_resumed, self._clock()

    def progress(self, job: Job, state: Progress) -> None:
        """Show the state of a fit."""
        assert self._places is not None  # noqa: S101  # a run begins before its fits
        self(self._places.number(*job.place), self._n, state)

    def __call__(self, image: int, n_images: int, state: Progress) -> None:
        """Show the state of a fit."""
        with self._lock:
            self._n = n_images
            if image in self._ended:  # a word from a worker that came late
                return
            if self._places is None:  # one after the other: whatever ran before has ended
                self._ended |= self._fits.keys() - {image}
                self._fits = {number: curves for number, curves in self._fits.items() if number == image}
            self._fits.setdefault(image, _Curves()).add(state)
            if not self._console.is_terminal and image not in self._announced:
                self._console.print(f"image {image + 1}/{n_images}: the fit has begun", soft_wrap=True)
            self._announced.add(image)

    def finished(self, job: Job, parts: Sequence[Reconstruction]) -> None:
        """Say why a fit has ended; of methods that do no iterations there is nothing to say."""
        assert self._places is not None  # noqa: S101  # a run begins before its fits
        number, part = self._places.number(*job.place), parts[0]
        with self._lock:
            self._fits.pop(number, None)
            self._ended.add(number)
        if part.iterations or part.trouble:
            self._console.print(f"{self._name(number)}: {_end_of(part)}", soft_wrap=True, highlight=False)

    def _name(self, number: int) -> str:
        return f"image {number + 1}" if self._places is None else self._places.name_part(number)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            running = sorted(self._fits.items())[:_MOST_FITS]
            n_done = self._n_resumed + len(self._ended)
            share = sum(curves.share for curves in self._fits.values())
        if not self._n:
            return
        rule = running[0][1].last.rule if running else ""
        blocks = _LETTERS if options.ascii_only else _BLOCKS
        table = Table(box=None, padding=(0, 1, 0, 0))
        for column, header in enumerate(("", "", "", "data error", rule, "left")):
            table.add_column(header, no_wrap=True, justify="right" if column in (2, 5) else "left")
        for number, curves in running:
            table.add_row(self._name(number), *curves.cells(blocks))
        gone = self._clock() - self._start
        new = share + len(self._ended)
        left = "" if new < 0.05 else "about " + _time(gone * (self._n - self._n_resumed - new) / new)
        bar = ProgressBar(total=self._n, completed=n_done + share, width=_BAR_WIDTH)
        table.add_row("all", bar, f"{n_done}/{self._n}", f"after {_time(gone)}", "", left)
        yield table


class _Curves:
    """The state of one fit, and the curves that led there."""

    def __init__(self) -> None:
        self.last: Progress = Progress(0, 1, 0.0, "", None, {}, 0.0, 0.0)
        self._errors: list[float] = []
        self._criteria: list[float] = []

    def add(self, state: Progress) -> None:
        if state.iteration < self.last.iteration:  # the fit of another seed
            self._errors, self._criteria = [], []
        self.last = state
        self._errors.append(state.data_error)
        if state.criterion is not None:
            self._criteria.append(state.criterion)

    @property
    def share(self) -> float:
        return min(1.0, self.last.iteration / self.last.iterations)

    def cells(self, blocks: str) -> Iterator[ProgressBar | str]:
        yield ProgressBar(total=self.last.iterations, completed=self.last.iteration, width=_BAR_WIDTH)
        yield f"{self.last.iteration}/{self.last.iterations}"
        for values in (self._errors, self._criteria):
            yield f"{curve(values, blocks):{_CURVE_WIDTH}} {values[-1]:.3g}" if values else ""
        yield _time(self.last.seconds_left)


def curve(values: Sequence[float], blocks: str = _BLOCKS, width: int = _CURVE_WIDTH) -> str:
    """Draw values in letters of different height, logarithmically where all are above zero.

    The last of the values that fall on one letter stands for them.
    """
    n = min(width, len(values))
    kept = [values[math.ceil((i + 1) * len(values) / n) - 1] for i in range(n)]
    heights = [math.log(value) for value in kept] if kept and min(kept) > 0 else kept
    finite = [height for height in heights if math.isfinite(height)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    top = len(blocks) - 1
    return "".join(
        blocks[round(top * (height - low) / ((high - low) or 1.0))] if math.isfinite(height) else " "
        for height in heights
    )


def _end_of(part: Reconstruction) -> str:
    """What became of an image, in rich's markup."""
    words = f"kept is iteration {part.stop.iteration} of {part.iterations}, by {part.stop.rule}: {part.stop.reason}"
    if not part.iterations:
        words = part.stop.reason
    trouble = f"; [yellow]{part.status} {escape(part.trouble)}[/]" if part.trouble else ""
    return f"{escape(words)} ({part.seconds:.1f} s){trouble}"


def _time(seconds: float) -> str:
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
