"""What a fit in progress tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Progress:
    """What a progress display may show after some iterations.

    Parameters
    ----------
    data_error
        The loss.
    rule, criterion
        Name of the rule that decides, and its last value; None before it has judged.
    points
        Of each rule by its name, what has been added to its curve since the report before, ``(iteration, value)``.
    seconds, seconds_left
        Since the fit began, and until its last iteration.
    image
        Makes the image of now, without the steps that end a fit, ``(set, x, y[, z])``; None where that is elsewhere.
    """

    iteration: int
    iterations: int
    data_error: float
    rule: str
    criterion: float | None
    points: dict[str, list[tuple[int, float]]]
    seconds: float
    seconds_left: float
    image: Callable[[], Tensor] | None = field(default=None, compare=False, repr=False)
