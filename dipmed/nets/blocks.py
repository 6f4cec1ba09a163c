"""Parts that the networks share: convolutions that keep the size, and normalisations within one item of a batch.

There is no batch normalisation anywhere, which is our deviation from most published networks: its statistics would tie
the slices of a batch together. For a batch of one, normalising each channel by itself gives the same values.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from dipmed.nets.normalise import GroupNorm

SLOPE = 0.2


class _ThinConvolution:
    """Takes care of thin images: in bfloat16 on processors, strides that leave a last axis of one give false values.

    https://github.com/pytorch/pytorch/issues/169688, which is there in torch 2.13: some come from memory that nobody
    wrote to. With zeros behind, which the convolution has around it anyway, the first output is what it has to be.
    """

    stride: tuple[int, ...]

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(batch, channel, x, y[, z])``."""
        convolve: Callable[[Tensor], Tensor] = super().forward  # type: ignore[misc]  # of the class beside this one
        stride = self.stride[-1]
        if stride == 1 or input.shape[-1] > stride:
            return convolve(input)
        return convolve(functional.pad(input, [0, stride + 1 - input.shape[-1]])).narrow(-1, 0, 1)


class _Conv2d(_ThinConvolution, nn.Conv2d): ...


class _Conv3d(_ThinConvolution, nn.Conv3d): ...


_CONVOLUTIONS: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: _Conv2d, 3: _Conv3d}


def convolution(
    ndim: int, n_in: int, n_out: int, size: int, stride: int = 1, *, bias: bool = True, copies: int = 1
) -> nn.Module:
    """Make a convolution with an odd kernel and zeros around, which keeps the size or divides it, rounding up.

    Several ``copies`` lie beside each other along channels, as groups that do not see each other.
    """
    return _CONVOLUTIONS[ndim](copies * n_in, copies * n_out, size, stride, size // 2, groups=copies, bias=bias)


def group_norm(n_channels: int, most: int = 8, copies: int = 1) -> nn.GroupNorm:
    """Normalise groups of channels: as many groups as divide the channels of a copy, ``most`` at most."""
    groups = max(count for count in range(1, most + 1) if n_channels % count == 0)
    return GroupNorm(copies * groups, copies * n_channels)


def channel_norm(n_channels: int) -> nn.GroupNorm:
    """Normalise each channel by itself, with a scale and a shift that are fitted."""
    return GroupNorm(n_channels, n_channels)
