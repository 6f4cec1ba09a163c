"""Random inputs without the finest detail."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def low_pass_noise(shape: tuple[int, ...], sigma: float, generator: torch.Generator) -> Tensor:
    """Draw uniform noise on [0, 1) and blur it once by a Gaussian, on a grid whose ends meet.

    A network that sees no fine detail is slower to make some up: Y. Liu et al., ECCV 2024, arXiv:2312.09988.

    Parameters
    ----------
    shape
        ``(batch, channel, x, y[, z])``; the axes after the channels are blurred.
    sigma
        Standard deviation in pixels; 0 leaves the noise white.
    generator
        Of the noise, on the CPU.
    """
    noise = torch.rand(shape, generator=generator)
    axes = tuple(range(2, len(shape)))
    spectrum = torch.fft.fftn(noise, dim=axes)
    for axis in axes:
        # the transform of a Gaussian
        gain = torch.exp(-2 * (math.pi * sigma * torch.fft.fftfreq(shape[axis])) ** 2)
        spectrum = spectrum * gain.reshape(-1, *(1 for _ in range(axis + 1, len(shape))))
    return torch.fft.ifftn(spectrum, dim=axes).real
