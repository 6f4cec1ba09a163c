"""Between detected photons and line integrals, and between attenuation and Hounsfield units."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from operators.errors import DipmedError, ShapeError

_FAINTEST = 1e-6
"""Transmission below which nothing can be told from a detector of today."""


def line_integrals(counts: Tensor, flat: Tensor | float, dark: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Return ``p = −log((counts − dark) / (flat − dark))`` and which rays were dark, both shaped as ``counts``.

    A ray that nothing came through would have an infinite integral. It gets that of the faintest ray that was seen,
    and is marked, so that the caller can weight it with zero.

    Parameters
    ----------
    counts
        Detected intensity, ``(..., column)``, in any unit.
    flat
        Intensity without an object, broadcastable to ``counts``.
    dark
        Reading without radiation, broadcastable to ``counts``.

    Raises
    ------
    ShapeError
        When flat or dark cannot be broadcast to the counts.
    DipmedError
        When a value is not finite, a flat is not above its dark, no ray has a count, or most rays are brighter than the
        flat.
    """
    kind = counts.dtype if counts.is_floating_point() else torch.float32
    readings, beam, offset = (torch.as_tensor(part).to(kind) for part in (counts, flat, dark))
    try:
        signal = readings - offset
        transmission = signal / (beam - offset)
    except RuntimeError:
        shapes = f"{tuple(beam.shape)} and {tuple(offset.shape)}"
        raise ShapeError(f"flat and dark {shapes} do not fit counts of {tuple(counts.shape)}") from None
    if transmission.shape != counts.shape:
        raise ShapeError(f"flat and dark must not have more axes than the counts {tuple(counts.shape)}")
    if not bool((beam > offset).all()):
        raise DipmedError("the flat must be above the dark everywhere; a dead column has to be left out or repaired")
    if not bool(torch.isfinite(transmission).all()):
        raise DipmedError("counts, flat and dark must be finite")
    seen = transmission > _FAINTEST
    if not bool(seen.any()):
        raise DipmedError("no ray has a count above the dark: there is nothing to take a logarithm of")
    brighter = float((transmission > 1).float().mean())
    if brighter > 0.9 and float(transmission.median()) > 1.1:
        raise DipmedError(
            f"{brighter:.0%} of the rays are brighter than the flat; check that flat and projections are not exchanged "
            "and were taken at the same exposure"
        )
    faintest = transmission[seen].min()
    return -torch.log(torch.where(seen, transmission, faintest)), ~seen


def photon_counts(integrals: Tensor, photons: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw what a counting detector would read, Poisson distributed about ``photons · exp(−p)``.

    Parameters
    ----------
    integrals
        Line integrals p, of any shape.
    photons
        Expected without an object.
    generator
        Source of randomness, on the CPU.

    Raises
    ------
    DipmedError
        When the number of photons is not positive.
    """
    if not (math.isfinite(photons) and photons > 0):
        raise DipmedError(f"the number of photons must be positive, got {photons}")
    expected = photons * torch.exp(-integrals.double()).cpu()
    return torch.poisson(expected, generator=generator).to(integrals)


def hounsfield(attenuation: Tensor, water_per_mm: float) -> Tensor:
    """Return Hounsfield units ``1000 (μ − μ_water) / μ_water`` of attenuation in 1/mm; water must be positive."""
    _check_water(water_per_mm)
    return 1000 * (attenuation / water_per_mm - 1)


def attenuation(hounsfield: Tensor, water_per_mm: float) -> Tensor:
    """Return the attenuation in 1/mm of Hounsfield units; what is below air is taken as air."""
    _check_water(water_per_mm)
    return (water_per_mm * (1 + hounsfield / 1000)).clamp(min=0)


def _check_water(water_per_mm: float) -> None:
    if not (math.isfinite(water_per_mm) and water_per_mm > 0):
        raise DipmedError(f"the attenuation of water must be positive, about 0.02 / mm, got {water_per_mm}")
