"""Parts that the networks share: convolutions that keep the size, and normalisations within one item of a batch.

There is no batch normalisation anywhere, which is our deviation from most published networks: its statistics would tie
the slices of a batch together. For a batch of one, normalising each channel by itself gives the same values.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from dipmed.nets.channels import crop_to
from dipmed.nets.normalise import GroupNorm

SLOPE = 0.2


class _ThinConvolution:
    """Takes care of thin images, of which torch 2.13 makes false values in bfloat16 on processors.

    Some of them come from memory that nobody wrote to: all that strides make of a last axis of one
    (https://github.com/pytorch/pytorch/issues/169688), and, on processors that have bfloat16 but no matrix unit, the
    gradient of kernels that are longer than the first axis of a volume. Zeros behind, which the convolution has around
    the image anyway, change nothing of what is there.
    """

    stride: tuple[int, ...]
    kernel_size: tuple[int, ...]

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(batch, channel, x, y[, z])``."""
        convolve: Callable[[Tensor], Tensor] = super().forward  # type: ignore[misc]  # of the class beside this one
        shape, stride = input.shape[2:], self.stride[-1]
        behind = [0] * len(shape)
        if len(shape) == 3:
            behind[0] = max(0, self.kernel_size[0] - shape[0])
        if stride > 1:
            behind[-1] = max(0, stride + 1 - shape[-1])
        if not any(behind):
            return convolve(input)
        padded = functional.pad(input, [size for n in reversed(behind) for size in (0, n)])
        return crop_to(convolve(padded), tuple(-(-n // stride) for n in shape))


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
