"""An encoder and a decoder without connections between them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from dipmed.nets.blocks import SLOPE, channel_norm, convolution
from dipmed.nets.channels import crop_to
from dipmed.nets.upsample import Upsampling, upsample
from dipmed.scan import DipmedError

_POOLS: dict[int, type[nn.AvgPool2d] | type[nn.AvgPool3d]] = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


class Hourglass(nn.Module):
    """Two wide convolutions a scale on the way down, up-sampling and one convolution on the way up.

    The sizes are those that A. Ghosh et al. prune (Optimal Eye Surgeon, ICML 2024, arXiv:2406.05288). There is no
    activation at the end, and each channel is normalised by itself and not over the batch, which for a batch of one is
    the same; up-sampled features are not normalised a second time. Any size is taken: halves are rounded up on the way
    down, and cut to the same sizes on the way up.

    Parameters
    ----------
    n_in, n_out
        Input and output channels.
    ndim
        2 or 3.
    channels
        Features of each scale, finest first.
    upsample
        Way of up-sampling.
    down
        ``"average"`` of neighbouring pixels after a convolution, or a convolution with ``"stride"``.
    down_size
        Kernel on the way down, odd.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        ndim: int,
        *,
        channels: tuple[int, ...] = (16, 32, 64, 128, 128, 128),
        upsample: Upsampling = "nearest",
        down: Literal["average", "stride"] = "average",
        down_size: int = 5,
    ) -> None:
        super().__init__()
        self.upsample: Upsampling = upsample
        self.downs = nn.ModuleList()
        for i, c in zip((n_in, *channels[:-1]), channels, strict=True):
            halving: list[nn.Module] = [convolution(ndim, i, c, down_size, 2 if down == "stride" else 1)]
            if down == "average":
                halving.append(_POOLS[ndim](2, ceil_mode=True))
            self.downs.append(nn.Sequential(*halving, *_rectify(c), convolution(ndim, c, c, down_size), *_rectify(c)))
        below = (*channels[1:], channels[-1])
        self.ups = nn.ModuleList(
            nn.Sequential(convolution(ndim, b, c, 3), *_rectify(c)) for b, c in zip(below, channels, strict=True)
        )
        self.out = convolution(ndim, channels[0], n_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, n_in, x, y[, z])`` to ``(batch, n_out, x, y[, z])``."""
        if max(x.shape[2:]) <= 2 ** len(self.downs):
            raise DipmedError(
                f"{len(self.downs)} scales leave a single pixel of {tuple(x.shape[2:])}; take fewer channels"
            )
        sizes = []
        for down in self.downs:
            sizes.append(tuple(x.shape[2:]))
            x = down(x)
        for size, up in zip(reversed(sizes), reversed(self.ups), strict=True):
            x = up(crop_to(upsample(x, self.upsample), size))
        return self.out(x)


def _rectify(n_channels: int) -> tuple[nn.Module, nn.Module]:
    return channel_norm(n_channels), nn.LeakyReLU(SLOPE)
