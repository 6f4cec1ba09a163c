"""Measurement noise, for simulations and tests."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.errors import DipmedError


def add_noise(y: Tensor, sigma: float, generator: torch.Generator | None = None) -> Tensor:
    """Add white Gaussian noise, complex for complex ``y``.

    Parameters
    ----------
    y
        Measurement of any shape.
    sigma
        Standard deviation of one sample, in the units of ``y``: ``E|n|² = sigma²``, so that real and imaginary part
        of a complex sample have ``sigma / sqrt(2)`` each.
    generator
        Source of randomness. One on the CPU gives the same noise on every device.

    Raises
    ------
    DipmedError
        When ``sigma`` is negative or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise DipmedError(f"the standard deviation of noise must be finite and not negative, got {sigma}")
    source = generator.device if generator is not None else y.device
    noise = torch.randn(y.shape, dtype=y.dtype, device=source, generator=generator)
    return y + sigma * noise.to(y.device)
