"""Filtered back-projection of slices from parallel and fan beams."""

from __future__ import annotations

import math
import warnings
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from operators.ct_geometry import Array, Beam, FanBeam, Grid, ParallelBeam
from operators.errors import DipmedError, ShapeError

Filter = Literal["ramp", "shepp-logan", "cosine", "hamming", "hann"]


def filtered_back_projection(sinogram: Tensor, beam: Beam, grid: Grid, filter: Filter = "ramp") -> Tensor:
    """Reconstruct slices from line integrals, ``(batch..., 1, view, column)`` to ``(batch..., 1, x, y)`` in 1/mm.

    Fan beams are filtered after a cosine weight and back-projected by the squared distance from the source; rays that
    were measured twice are shared between their views, smoothly where the scan is shorter than a full turn
    (A. C. Kak, M. Slaney, 1988, chapter 3, doi:10.1137/1.9780898719277; D. L. Parker, 1982, doi:10.1118/1.595078).

    Parameters
    ----------
    sinogram
        Line integrals, without unit.
    beam
        How the rays ran. Angles may be in any order; a `FanBeam` needs its views over half a turn and the fan at least.
    grid
        Pixels to reconstruct.
    filter
        Window on the ramp: smoother ones suppress noise and detail.

    Raises
    ------
    ShapeError
        When the sinogram does not fit the beam, or the grid is a volume.
    DipmedError
        When the filter is unknown.

    Warns
    -----
    UserWarning
        When the views do not cover what an exact reconstruction needs (limited angle).
    """
    if filter not in get_args(Filter):
        raise DipmedError(f"unknown filter {filter!r}; choose one of {', '.join(get_args(Filter))}")
    expected = (1, len(beam.angles), beam.n_columns)
    if tuple(sinogram.shape[-3:]) != expected or sinogram.is_complex():
        raise ShapeError(f"the sinogram must be real (batch..., {', '.join(map(str, expected))}), got {sinogram.shape}")
    if len(grid.shape) != 2:
        raise ShapeError(f"a slice has two axes, the grid is {grid.shape}")
    shares = torch.from_numpy(ray_weights(beam)).to(sinogram)
    filtered = filter_rows(sinogram * shares, torch.from_numpy(ramp_spectrum(beam, filter)).to(sinogram))
    return _back_project(filtered, beam, grid)


def ray_weights(beam: Beam) -> Array:
    """Return weights of measured rays before the filter, ``(view, column)``: cosine, redundancy and angular step."""
    angles = np.array(beam.angles)
    if isinstance(beam, ParallelBeam):
        return np.repeat(_steps(angles, math.pi, "half a turn")[:, None], beam.n_columns, axis=1)
    gamma = beam.fan_angles
    cosine = beam.source_to_axis_mm * np.cos(gamma)
    steps = _steps(angles, 2 * math.pi, None)
    start, span = _span(angles)
    if len(angles) > 1 and span > 2 * math.pi - 1e-3 - 1.5 * np.median(np.diff(np.sort(angles))):
        return steps[:, None] * cosine[None, :] / 2
    opening = 2 * float(np.abs(gamma).max())
    if span < math.pi + opening - 1e-6:
        warnings.warn(
            f"limited angle: the views cover {math.degrees(span):.0f} degrees, and this fan needs "
            f"{math.degrees(math.pi + opening):.0f}",
            stacklevel=3,
        )
    return steps[:, None] * cosine[None, :] * _parker(angles - start, gamma, span)


def _steps(angles: Array, period: float, needed: str | None) -> Array:
    """Share of the circle that each view stands for; a gap wider than usual is nobody's."""
    if len(angles) == 1:
        return np.array([period])
    order = np.argsort(angles % period, kind="stable")
    gaps = np.diff(np.append(angles[order] % period, angles[order[0]] % period + period))
    usual = 3 * max(float(np.median(gaps)), period / len(angles))
    if needed is not None and gaps.max() > usual:
        missing = math.degrees(gaps.max())
        warnings.warn(f"limited angle: {missing:.0f} degrees of {needed} are without a view", stacklevel=4)
    gaps = np.where(gaps > usual, np.median(gaps), gaps)
    steps = np.empty_like(gaps)
    steps[order] = (gaps + np.roll(gaps, 1)) / 2
    return steps


def _span(angles: Array) -> tuple[float, float]:
    """First angle and arc of a scan, each view with its step: the circle less its widest gap."""
    ordered = np.sort(angles % (2 * math.pi))
    gaps = np.diff(np.append(ordered, ordered[0] + 2 * math.pi))
    widest = int(gaps.argmax())
    start = ordered[(widest + 1) % len(ordered)]
    return float(start), float(2 * math.pi - gaps[widest] + (np.median(gaps) if len(gaps) > 1 else 0))


def _parker(turn: Array, gamma: Array, span: float) -> Array:
    """Weights that rise and fall smoothly at the ends of the scan, ``(view, column)``; a ray's two weights add to one.

    The ray (β, γ) is measured again as (β + π + 2γ, -γ).
    """
    excess = max((span - math.pi) / 2, 1e-6)
    beta = (turn % (2 * math.pi))[:, None]
    rise, fall = excess + gamma, excess - gamma
    with np.errstate(divide="ignore", invalid="ignore"):
        up = np.sin(np.clip(math.pi / 4 * beta / np.maximum(rise, 1e-9), 0, math.pi / 2)) ** 2
        left = math.pi + 2 * excess - beta
        down = np.sin(np.clip(math.pi / 4 * left / np.maximum(fall, 1e-9), 0, math.pi / 2)) ** 2
    weights: Array = np.where(beta < 2 * rise, up, np.where(left < 2 * fall, down, 1.0))
    return weights


def _spacing(beam: Beam) -> float:
    """Distance of two columns where the filter works: at the axis in mm, or in radians on a curved detector."""
    if isinstance(beam, ParallelBeam):
        return beam.column_mm
    if beam.curved:
        return beam.column_mm / beam.source_to_detector_mm
    return beam.column_mm * beam.source_to_axis_mm / beam.source_to_detector_mm


def ramp_spectrum(beam: Beam, filter: str) -> Array:
    """Return the spectrum of the ramp for rows padded to twice their length; made in space, which keeps the mean."""
    n = 2 ** math.ceil(math.log2(2 * beam.n_columns))
    step = _spacing(beam)
    index = np.fft.fftfreq(n, 1 / n)
    odd = index.astype(int) % 2 != 0
    ramp = np.zeros(n)
    ramp[odd] = -1 / (math.pi * index[odd] * step) ** 2
    ramp[0] = 1 / (4 * step**2)
    if isinstance(beam, FanBeam) and beam.curved:
        angle = index * step
        inside = np.abs(angle) < math.pi
        ramp = np.where(inside, ramp / np.sinc(np.where(inside, angle, 0) / math.pi) ** 2, 0)
    frequency = np.abs(np.fft.rfftfreq(n))  # up to one half
    windows = {
        "ramp": np.ones_like(frequency),
        "shepp-logan": np.sinc(frequency),
        "cosine": np.cos(math.pi * frequency),
        "hamming": 0.54 + 0.46 * np.cos(2 * math.pi * frequency),
        "hann": 0.5 + 0.5 * np.cos(2 * math.pi * frequency),
    }
    spectrum: Array = np.fft.rfft(ramp).real * step * windows[filter]
    return spectrum


def filter_rows(rows: Tensor, spectrum: Tensor) -> Tensor:
    """Filter the columns of each view by a real spectrum, padded with zeros; its own adjoint."""
    n = 2 * (len(spectrum) - 1)
    return torch.fft.irfft(torch.fft.rfft(rows, n) * spectrum, n)[..., : rows.shape[-1]]


def _back_project(filtered: Tensor, beam: Beam, grid: Grid) -> Tensor:
    """Add up what each view says about each pixel, linear between columns."""
    x, y = (torch.from_numpy(grid.coordinates(axis)).to(filtered) for axis in (0, 1))
    image = filtered.new_zeros((*filtered.shape[:-2], *grid.shape))
    for view in range(len(beam.angles)):
        column, weight = _columns_of_pixels(beam, view, x[:, None], y[None, :])
        low = column.floor().clamp(0, beam.n_columns - 2) if beam.n_columns > 1 else torch.zeros_like(column)
        fraction = column - low
        seen = (column >= 0) & (column <= beam.n_columns - 1)
        index = low.long()
        row = filtered[..., view, :]
        value = row[..., index] * (1 - fraction) + row[..., (index + 1).clamp(max=beam.n_columns - 1)] * fraction
        image += value * (weight * seen)
    return image


def _columns_of_pixels(beam: Beam, view: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Where on the detector, counted in columns, each pixel is seen, and the weight of the distance."""
    cos, sin = math.cos(beam.angles[view]), math.sin(beam.angles[view])
    middle = (beam.n_columns - 1) / 2 - beam.column_offset
    if isinstance(beam, ParallelBeam):
        return (x * cos + y * sin) / beam.column_mm + middle, torch.ones_like(x * y)
    source = beam.source(view)
    dx, dy = x - source[0], y - source[1]
    lateral, depth = dx * cos + dy * sin, dy * cos - dx * sin
    if beam.curved:
        place = torch.atan2(lateral, depth) * beam.source_to_detector_mm
        return place / beam.column_mm + middle, 1 / (lateral**2 + depth**2)
    place = lateral / depth * beam.source_to_detector_mm
    return place / beam.column_mm + middle, beam.source_to_axis_mm / depth**2
