"""Jobs whose fits run together on one device, as many as its memory holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from dipmed.dip import ProgressCallback
from dipmed.dip.batch import Batch, Order, objection
from dipmed.jobs import Job
from dipmed.memory import holds
from dipmed.methods import find_method
from dipmed.mode import memory_limit, memory_needed
from dipmed.run_job import FULL, as_status, make_fit, rescue, run_direct, sees_nothing
from dipmed.scan import DipmedError, DivergedError, Reconstruction, Scan
from dipmed.settings import ReconSettings

_MOST = 16
"""Slices that a GPU is given at a time where nobody says how many; not measured."""

Place = tuple[int, int]

COMPILE = ("auto", "on", "off")


@dataclass(frozen=True)
class Plan:
    """How many slices are fitted at a time, whether their program is compiled, and what was done otherwise than asked.

    ``is_joint`` says whether anything is: slices that are fitted one by one take the way of `dipmed.run_job`.
    """

    in_flight: int
    compiles: bool
    notes: tuple[str, ...] = ()

    @property
    def is_joint(self) -> bool:
        return self.in_flight > 1 or self.compiles


ALONE = Plan(1, compiles=False)


def make_plan(scan: Scan, settings: ReconSettings, device: torch.device, n_images: int) -> Plan:
    """Decide how many slices run together: on the CPU one, since more are not faster there (docs/engine.md).

    A method or a setting that a batch cannot have makes it one, and where a batch was asked for a note says why.

    Raises
    ------
    DipmedError
        When there is no such choice.
    """
    if settings.compile not in COMPILE or (settings.in_flight is not None and settings.in_flight < 1):
        raise DipmedError(f"--compile is one of {', '.join(COMPILE)}, and --slices-in-flight at least 1")
    why_not = _why_not(scan, settings)
    if why_not is not None:
        was_asked = settings.compile == "on" or (settings.in_flight or 1) > 1
        return replace(ALONE, notes=(f"slices were fitted one by one, not compiled: {why_not}",) if was_asked else ())
    wanted = settings.in_flight or (_MOST if device.type == "cuda" else 1)
    limit = memory_limit(settings, device)
    n = max(1, min(wanted, n_images))
    while n > 1 and not holds(memory_needed(scan, settings, device, n), limit):
        n -= 1
    notes: tuple[str, ...] = ()
    if settings.in_flight is not None and n < min(settings.in_flight, n_images):
        notes = (f"memory holds {n} slices at a time, and not {settings.in_flight}",)
    compiles = settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda" and n > 1)
    return Plan(n, compiles, notes)


def _why_not(scan: Scan, settings: ReconSettings) -> str | None:
    fit = find_method(settings.method).fit
    if fit is None:
        return f"{settings.method} is no fit"
    if settings.warm_start:
        return "a warm start goes from slice to slice"
    return objection(fit, settings.fit_config(scan.modality, settings.ndim_for(scan)), settings.uncertainty)


class _Todo:
    """The jobs that are left, as a batch takes them.

    Attributes
    ----------
    left
        Jobs that no one has asked for yet.
    running
        Those in the batch, by place.
    apart
        Those that are done after it: of slices in which there is nothing, and of fits that diverged, with the error.
    was_lost
        Whether an interruption came between two fits, and took with it what has to be known of the slices that follow.
    """

    def __init__(
        self, todo: Iterable[Job], settings: ReconSettings, report: Callable[[Job], ProgressCallback | None]
    ) -> None:
        self.left = iter(todo)
        self.settings = settings
        self.report = report
        self.running: dict[Place, Job] = {}
        self.apart: list[tuple[Job, DivergedError | None]] = []
        self.was_lost = False

    def orders(self) -> Iterator[Order[Place]]:
        """Yield the fits."""
        try:
            for job in self.left:
                if sees_nothing(job):
                    self.apart.append((job, None))
                    continue
                self.running[job.place] = job
                yield job.place, make_fit(job, self.settings, progress=self.report(job)), job.y, job.A
        except KeyboardInterrupt:
            self.was_lost = True
            raise

    def by_batch(self, batch: Batch[Place]) -> Iterator[tuple[Job, Reconstruction]]:
        """Yield what comes of the fits that run together."""
        for place, ended in batch.run(self.orders()):
            job = self.running.pop(place)
            if isinstance(ended, DivergedError):
                self.apart.append((job, ended))
            else:
                yield job, run_direct(job, self.settings) if ended is None else as_status(ended)
        if self.was_lost:
            raise KeyboardInterrupt

    def afterwards(self, *, is_over: bool) -> Iterator[tuple[Job, Reconstruction]]:
        """Yield the rest, which takes no time after an interruption, and of which else little is left."""
        for job, error in self.apart:
            if is_over or error is None:
                yield job, run_direct(job, self.settings)
                continue
            part = rescue(job, self.settings, error, progress=self.report(job))
            is_over = part.status == "interrupted"
            yield job, part
        for job in self.left:
            yield job, run_direct(job, self.settings)


def run_together(
    todo: Iterable[Job],
    settings: ReconSettings,
    report: Callable[[Job], ProgressCallback | None],
    plan: Plan,
    tell: Callable[[str], None],
) -> Iterator[tuple[Job, Reconstruction]]:
    """Yield each job with its image, as they come; the images are those of `dipmed.run_job.run_or_fill`, to rounding.

    A fit that diverges is tried again by itself. After an interruption, what was not begun takes no time.

    Parameters
    ----------
    report
        What takes the progress of a job; None for nothing.
    tell
        Takes what went another way than was planned.

    Raises
    ------
    DipmedError
        When the GPU's memory does not hold a single slice.
    """
    jobs = _Todo(todo, settings, report)
    batch: Batch[Place] = Batch(plan.in_flight, compiles=plan.compiles)
    is_over = False
    try:
        for job, part in jobs.by_batch(batch):
            is_over = is_over or part.status == "interrupted"
            yield job, part
        yield from jobs.afterwards(is_over=is_over)
    except torch.cuda.OutOfMemoryError as error:
        raise DipmedError(FULL) from error
    finally:
        for message in batch.messages:
            tell(message)
