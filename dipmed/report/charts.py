"""Curves over the iterations of a fit, as points of a small drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 420, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 24
_MOST_POINTS = 300
_LOGARITHMIC_FROM = 30
"""Ratio of the largest to the smallest value from which the axis is logarithmic."""


@dataclass(frozen=True)
class Mark:
    """A place on an axis or a line at an iteration, with its text."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """A curve, drawn in `WIDTH` x `HEIGHT`: ``line`` are the points of an SVG polyline."""

    title: str
    about: str
    line: str
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    marks: tuple[Mark, ...]
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM
    width: int = WIDTH
    height: int = HEIGHT


def draw(
    title: str, about: str, points: Sequence[tuple[int, float]], marks: Sequence[tuple[str, int]], last: int
) -> Chart | None:
    """Draw a curve up to the iteration ``last``, with lines at marked iterations; None where nothing can be drawn."""
    from matplotlib.ticker import MaxNLocator

    found = np.array([point for point in points if np.isfinite(point[1])], dtype=float).reshape(-1, 2)
    if len(found) < 2:
        return None
    found = found[np.unique(np.linspace(0, len(found) - 1, _MOST_POINTS).round().astype(int))]
    is_log = found[:, 1].min() > 0 and found[:, 1].max() > _LOGARITHMIC_FROM * found[:, 1].min()
    heights = np.log10(found[:, 1]) if is_log else found[:, 1]
    low, high = float(heights.min()), float(heights.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    last = max(last, int(found[-1, 0]), 1)

    def across(iteration: float) -> float:
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * iteration / last, 1)

    def down(height: float) -> float:
        return round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (high - height) / (high - low), 1)

    at_x = [value for value in MaxNLocator(5, integer=True).tick_values(0, last) if 0 <= value <= last]
    at_y = [value for value in MaxNLocator(4).tick_values(low, high) if low <= value <= high]
    return Chart(
        title=title,
        about=about + (" Logarithmic axis." if is_log else ""),
        line=" ".join(f"{across(x)},{down(y)}" for x, y in zip(found[:, 0], heights, strict=True)),
        x_ticks=tuple(Mark(across(value), f"{value:.0f}") for value in at_x),
        y_ticks=tuple(Mark(down(value), f"{10**value if is_log else value:.3g}") for value in at_y),
        marks=tuple(Mark(across(iteration), name) for name, iteration in marks),
    )
