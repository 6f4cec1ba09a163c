"""What a tracker is told of a run: curves and pictures by the names of slices, settings without a name or a path."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed import __version__
from dipmed.dip import Progress
from dipmed.jobs import Job
from dipmed.listener import Listener
from dipmed.patient import picture_axes
from dipmed.places import Places, places_of
from dipmed.scan import Reconstruction, Scan
from dipmed.settings import ReconSettings
from operators import combine_sets

Picture = NDArray[np.uint8]

_WHITE = 99.9
_PREVIEW_S = 10.0
"""Between pictures of a slice: to look at, not to slow the fit down."""


class Writer(Protocol):
    """Where curves and pictures go; ``step`` is an iteration, or the number of an image."""

    def settings(self, values: dict[str, str]) -> None: ...

    def scalar(self, name: str, value: float, step: int) -> None: ...

    def picture(self, name: str, pixels: Picture, step: int) -> None: ...

    def text(self, name: str, words: str) -> None: ...

    def flush(self) -> None: ...

    def close(self, status: str) -> None:
        """End the run: ``"finished"``, ``"failed"`` or ``"interrupted"``."""


class Tracker(Listener):
    """Tells a writer what happens in a run; when that fails, the run goes on without it.

    Parameters
    ----------
    writer
        Where to.
    warn
        Takes a sentence when the writer fails.
    clock
        Seconds from any moment on.
    """

    def __init__(
        self, writer: Writer, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._writer = writer
        self._warn = warn
        self._clock = clock
        self._has_failed = False
        self._was_interrupted = False
        self._places: Places
        self._affine: NDArray[np.float64]
        self._shown_at: dict[str, float] = {}
        self._fits: dict[int, tuple[int, int]] = {}
        self._written_to: dict[str, int] = {}

    def begin(self, prepared: Scan, settings: ReconSettings, n_resumed: int) -> None:
        self._places, self._affine = places_of(prepared, settings), prepared.affine
        self._try(lambda: self._writer.settings(_described(prepared, settings, n_resumed)))

    def progress(self, job: Job, state: Progress) -> None:
        name = self._name(self._places.number(*job.place), state.iteration)
        self._try(partial(self._progress, name, state))

    def _progress(self, name: str, state: Progress) -> None:
        self._add("loss", name, [(state.iteration, state.data_error)])
        for rule, points in state.points.items():
            self._add(rule, name, points)
        self._writer.scalar(f"seconds/{name}", state.seconds, state.iteration)
        now = self._clock()
        if state.image is not None and now - self._shown_at.get(name, -_PREVIEW_S) >= _PREVIEW_S:
            self._shown_at[name] = now
            self._writer.picture(f"image/{name}", picture(state.image(), self._affine), state.iteration)
        self._writer.flush()

    def finished(self, job: Job, parts: Sequence[Reconstruction]) -> None:
        for frame, part in enumerate(parts, start=job.frame):
            number = self._places.number(frame, job.slice)
            self._was_interrupted |= part.status == "interrupted"
            self._try(partial(self._finished, number, part))

    def _add(self, curve: str, name: str, points: Sequence[tuple[int, float]]) -> None:
        """Write what of a curve has not been written yet."""
        tag = f"{curve}/{name}"
        for at, value in points:
            if at > self._written_to.get(tag, -1):
                self._writer.scalar(tag, value, at)
                self._written_to[tag] = at

    def _finished(self, number: int, part: Reconstruction) -> None:
        again, _ = self._fits.get(number, (1, 0))
        for curve, points in part.curves.items():  # rules that watch are heard of late
            self._add(curve, self._called(number, again), points)
        name = self._places.name_part(number)
        self._writer.picture(f"image/{name}", picture(part.image, self._affine), part.iterations)
        self._writer.scalar("kept iteration", part.stop.iteration, number)
        self._writer.scalar("seconds of an image", part.seconds, number)
        trouble = f" It was {part.status} {part.trouble}." if part.trouble else ""
        self._writer.text(f"stop/{name}", f"{part.stop.rule}: {part.stop.reason}.{trouble}")
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        """End the run."""
        status = "failed" if failed else "interrupted" if self._was_interrupted else "finished"
        self._try(lambda: self._writer.close(status))

    def _name(self, number: int, iteration: int) -> str:
        """What a fit is called; one that begins again, from another seed, has a number as well."""
        again, last = self._fits.get(number, (1, 0))
        if iteration < last:
            again += 1
        self._fits[number] = again, iteration
        return self._called(number, again)

    def _called(self, number: int, again: int) -> str:
        return self._places.name_part(number) + (f" ({again})" if again > 1 else "")

    def _try(self, act: Callable[[], None]) -> None:
        if self._has_failed:
            return
        try:
            act()
        except Exception as error:  # whatever a server or a disk says, it costs no image
            self._has_failed = True
            reason = " ".join(str(error).split())[:200]
            self._warn(f"nothing more is logged: {type(error).__name__}: {reason}")


def picture(image: Tensor, affine: NDArray[np.float64]) -> Picture:
    """The middle slice of an image, ``(row, column)`` as doctors look at it, from black to white."""
    with torch.no_grad():
        values = combine_sets(image)[0].detach().cpu()
    values = values.abs() if values.is_complex() else values
    plane = values[..., values.shape[2] // 2] if values.ndim == 3 else values
    grey = np.nan_to_num(plane.numpy().astype(np.float32), posinf=0.0, neginf=0.0)
    white = float(np.percentile(grey, _WHITE)) or 1.0
    turned: Picture = picture_axes(affine).turn((255 * np.clip(grey / white, 0, 1)).round().astype(np.uint8))
    return np.ascontiguousarray(turned)


def _described(scan: Scan, settings: ReconSettings, n_resumed: int) -> dict[str, str]:
    """Settings that name nobody: no file, no path."""
    config = settings.fit_config(scan.modality, settings.ndim_for(scan))
    values: dict[str, Any] = {
        "dipmed": __version__,
        "modality": scan.modality,
        "method": settings.method,
        "preset": settings.preset_for(scan.modality, settings.ndim_for(scan)),
        "mode": settings.mode,
        "slices": scan.n_slices,
        "resumed images": n_resumed,
        "iterations": config.iterations,
        "stop": config.stop,
        "watch": ", ".join(config.watch or ()),
        "seed": config.seed,
        "undersample": settings.undersample,
        "views": settings.views,
        "maps": settings.maps if settings.maps in ("espirit", "jsense") else "file",
    }
    return {name: str(value) for name, value in values.items() if value not in (None, "")}
