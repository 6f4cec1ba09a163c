"""Images from moments: a curve through time, a small network that maps it to seeds, and a decoder for all frames."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from dipmed.nets.blocks import channel_norm, convolution
from dipmed.nets.ladder import check_shape, ladder_sizes
from dipmed.nets.upsample import Resize
from dipmed.scan import DipmedError

_SEED = 8


def helix(times: Tensor, cycles: float) -> Tensor:
    """Points ``(cos 2πct, sin 2πct, t)`` of a helix, ``(frame, 3)``: near for moments that look alike.

    Parameters
    ----------
    times
        ``(frame,)``, 0 at the start of the scan and 1 at its end.
    cycles
        How often the motion repeats in the scan, c.
    """
    angle = 2 * math.pi * cycles * times
    return torch.stack([angle.cos(), angle.sin(), times], -1)


class TimeDecoder(nn.Module):
    """Two linear layers from a point in time to a small seed, then up-sampling and pairs of 3x3 convolutions.

    J. Yoo et al., IEEE TMI 2021, arXiv:1910.01684. Each channel is normalised by itself and not over the batch, so
    that an image does not depend on which frames are computed with it.

    Parameters
    ----------
    n_in, n_out
        Axes of the points in time, 3 for those of a `helix`, and channels of the image.
    ndim
        2 or 3.
    shape
        Of the image, in pixels.
    hidden
        Features between the linear layers.
    seed_channels
        Channels of the seed, which has 8 pixels along each axis, or fewer where the image has.
    channels
        Features of every convolution.
    upsample
        ``"nearest"`` or ``"linear"``; the sizes grow by a constant ratio of two at most.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        ndim: int,
        *,
        shape: tuple[int, ...],
        hidden: int = 512,
        seed_channels: int = 1,
        channels: int = 128,
        upsample: Literal["nearest", "linear"] = "nearest",
    ) -> None:
        super().__init__()
        check_shape(shape, ndim)
        seed_shape = tuple(min(_SEED, n) for n in shape)
        steps = max(1, math.ceil(math.log2(max(shape) / _SEED)))
        sizes = ladder_sizes(shape, steps, upsample, seed_shape)
        self.seed_shape = (seed_channels, *seed_shape)
        self.to_seed = nn.Sequential(nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, math.prod(self.seed_shape)))
        stages: list[nn.Module] = _pair(ndim, seed_channels, channels)
        for smaller, larger in pairwise(sizes):
            stages += [Resize(smaller, larger, upsample), *_pair(ndim, channels, channels)]
        self.stages = nn.Sequential(*stages)
        self.out = convolution(ndim, channels, n_out, 1)

    def forward(self, points: Tensor) -> Tensor:
        """Map points ``(frame, n_in)`` to images ``(frame, n_out, x, y[, z])``."""
        if points.ndim != 2:
            raise DipmedError(f"points in time need two axes, frame and axis, got the shape {tuple(points.shape)}")
        return self.out(self.stages(self.to_seed(points).unflatten(1, self.seed_shape)))


def _pair(ndim: int, n_in: int, n_out: int) -> list[nn.Module]:
    return [layer for i in (n_in, n_out) for layer in (convolution(ndim, i, n_out, 3), channel_norm(n_out), nn.ReLU())]
