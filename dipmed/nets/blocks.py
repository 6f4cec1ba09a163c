"""Parts that the networks share: convolutions that keep the size, and normalisations within one item of a batch.

There is no batch normalisation anywhere, which is our deviation from most published networks: its statistics would tie
the slices of a batch together. For a batch of one, normalising each channel by itself gives the same values.
"""

from __future__ import annotations

from torch import nn

from dipmed.nets.normalise import GroupNorm

SLOPE = 0.2
_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


def convolution(ndim: int, n_in: int, n_out: int, size: int, stride: int = 1, *, bias: bool = True) -> nn.Module:
    """Make a convolution with an odd kernel and zeros around, which keeps the size or divides it, rounding up."""
    return _CONVOLUTIONS[ndim](n_in, n_out, size, stride, size // 2, bias=bias)


def group_norm(n_channels: int, most: int = 8) -> nn.GroupNorm:
    """Normalise groups of channels: as many groups as divide the channels, ``most`` at most."""
    groups = max(count for count in range(1, most + 1) if n_channels % count == 0)
    return GroupNorm(groups, n_channels)


def channel_norm(n_channels: int) -> nn.GroupNorm:
    """Normalise each channel by itself, with a scale and a shift that are fitted."""
    return GroupNorm(n_channels, n_channels)
