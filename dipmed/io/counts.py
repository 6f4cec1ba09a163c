"""From readings of a detector to line integrals and the weights of the rays, dead elements filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dipmed.io.projection_scan import real_numbers
from dipmed.scan import DipmedError, Float32, FormatError, ShapeError
from operators.transmission import line_integrals


@dataclass(frozen=True)
class Integrals:
    """Line integrals, weights of the rays (readings above the dark, zero where they say nothing), and remarks."""

    values: Float32
    weights: Float32
    notes: tuple[str, ...]


def integrals_from_counts(counts: NDArray[Any], flat: NDArray[Any], dark: NDArray[Any], what: str) -> Integrals:
    """Take the logarithm of the transmission; elements whose flat is not above the dark get their neighbours' values.

    Parameters
    ----------
    counts
        Readings, ``(..., column)``.
    flat, dark
        Readings without an object and without radiation, broadcastable to `counts`.
    what
        Name of the array for messages.

    Raises
    ------
    FormatError
        When a value is no finite real number, no element works, or most rays are brighter than the flat.
    ShapeError
        When flat or dark does not fit the counts.
    """
    readings, bright, black = (real_numbers(part, what) for part in (counts, flat, dark))
    try:
        bright, black = np.broadcast_arrays(bright, black)
        np.broadcast_to(bright, readings.shape)
    except ValueError:
        raise ShapeError(f"{what}: flat and dark of {flat.shape} and {dark.shape} do not fit {counts.shape}") from None
    alive = bright > black  # not where one is NaN
    if not alive.any(axis=-1).all():
        raise FormatError(f"{what}: a row of the detector has no element whose flat is above the dark")
    # dead elements take part as if they saw what they should, and are filled afterwards
    usable = np.where(alive, readings, 1)
    try:
        found, unseen = line_integrals(
            *(torch.from_numpy(part) for part in (usable, np.where(alive, bright, 1), np.where(alive, black, 0)))
        )
    except DipmedError as error:
        raise FormatError(f"{what}: {error}") from error
    values = found.numpy()
    weights = np.where(alive & ~unseen.numpy(), usable - black, 0).astype(np.float32)
    brighter = float((values < 0).mean())
    if not alive.all():
        _fill(values, np.broadcast_to(alive, values.shape))
    return Integrals(values, weights, _remarks(alive, int(unseen.sum()), brighter))


def _fill(values: Float32, alive: NDArray[np.bool_]) -> None:
    """Interpolate along the columns, in place."""
    column = np.arange(values.shape[-1])
    for place in np.ndindex(values.shape[:-1]):
        works = alive[place]
        if not works.all():
            values[place][~works] = np.interp(column[~works], column[works], values[place][works])


def _remarks(alive: NDArray[np.bool_], n_unseen: int, brighter: float) -> tuple[str, ...]:
    sentences = []
    if not alive.all():
        sentences.append(
            f"{int((~alive).sum())} of {alive.size} detector elements are dead, their flat is not above the dark: they "
            "were filled from their neighbours and have no weight."
        )
    if n_unseen:
        sentences.append(
            f"{n_unseen} rays were not seen above the dark: they count as the faintest one, without weight."
        )
    if brighter > 0:
        sentences.append(
            f"{brighter:.2%} of the rays are brighter than the flat, so their line integrals are negative."
        )
    return tuple(sentences)
