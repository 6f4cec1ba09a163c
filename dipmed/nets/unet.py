"""A U-Net with skip connections and group normalisation, in two and three dimensions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dipmed.config import NetworkConfig
from dipmed.nets.blocks import SLOPE, convolution, group_norm
from dipmed.nets.channels import blocks_as_channels, channels_as_blocks, crop_to, pad_to_multiple
from dipmed.nets.normalise import GroupNorm
from dipmed.nets.upsample import Upsampling, upsample_beside


class _Block(nn.Sequential):
    """Convolution, group normalisation, leaky rectifier."""

    def __init__(self, ndim: int, n_in: int, n_out: int, size: int, stride: int = 1, *, copies: int = 1) -> None:
        super().__init__(
            convolution(ndim, n_in, n_out, size, stride, copies=copies),
            group_norm(n_out, copies=copies),
            nn.LeakyReLU(SLOPE, inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        convolve, norm, rectifier = self
        x = convolve(x)
        if isinstance(norm, GroupNorm) and norm.is_compiled_for(x):
            return norm.rectified(x, SLOPE)
        result: Tensor = rectifier(norm(x))
        return result


class UNet(nn.Module):
    """Encoder by strided convolutions, decoder by fixed up-sampling, a 1x1 skip convolution on every scale.

    There is no activation at the end, because real and imaginary parts have any sign, and no batch
    normalisation, because its statistics would tie the slices of a batch together.

    Parameters
    ----------
    config
        Sizes of the parts.
    n_in, n_out
        Input and output channels.
    ndim
        2 or 3.
    block
        Pixels along each of the first two axes that are seen and made as the channels of one (W. Shi et al., 2016,
        doi:10.1109/CVPR.2016.207).
    upsample
        Way of up-sampling.
    copies
        Networks that run as one, each with its own weights and its own channels, behind each other along that axis.

    Attributes
    ----------
    checkpointing
        Forget what is inside a block until the gradient needs it, and compute it again then: less memory, the same
        gradients, up to a third more time (T. Chen et al., 2016, arXiv:1604.06174).
    """

    checkpointing = False

    def __init__(
        self,
        config: NetworkConfig,
        n_in: int,
        n_out: int,
        ndim: int,
        *,
        block: int = 1,
        upsample: Upsampling = "linear",
        copies: int = 1,
    ) -> None:
        super().__init__()
        self.block = block
        n_in, n_out = n_in * block**2, n_out * block**2
        self.upsample: Upsampling = upsample
        self.copies = copies
        channels = config.channels
        inputs = (n_in, *channels[:-1])
        self.skips = nn.ModuleList(
            nn.Sequential(
                convolution(ndim, i, config.skip_channels, 1, copies=copies), nn.LeakyReLU(SLOPE, inplace=True)
            )
            for i in inputs
        )
        self.downs = nn.ModuleList(
            nn.Sequential(_Block(ndim, i, c, 3, stride=2, copies=copies), _Block(ndim, c, c, 3, copies=copies))
            for i, c in zip(inputs, channels, strict=True)
        )
        below = (*channels[1:], channels[-1])
        # a 1x1 convolution and up-sampling commute, and the convolution is cheaper on the coarser grid
        self.reductions = nn.ModuleList(convolution(ndim, b, config.up_channels, 1, copies=copies) for b in below)
        self.ups = nn.ModuleList(
            nn.Sequential(
                _Block(ndim, config.up_channels + config.skip_channels, c, 3, copies=copies),
                _Block(ndim, c, c, 1, copies=copies),
            )
            for c in channels
        )
        self.out = convolution(ndim, channels[0], n_out, 1, copies=copies)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(batch, n_in, x, y[, z])`` to ``(batch, n_out, x, y[, z])``, padded to what its strides divide.

        With ``copies`` there are that many times the channels.
        """
        shape = tuple(x.shape[2:])
        run = _run_again if self.checkpointing else _run
        stride = 2 ** len(self.downs)
        x = pad_to_multiple(x, (*(2 * [self.block * stride]), stride)[: len(shape)])
        x = blocks_as_channels(x, self.block)
        kept = []
        for skip, down in zip(self.skips, self.downs, strict=True):
            kept.append(run(skip, x))
            for block in down.children():
                x = run(block, x)
        coarse_to_fine = zip(reversed(kept), reversed(self.reductions), reversed(self.ups), strict=True)
        for skip_features, reduction, up in coarse_to_fine:
            first, second = up.children()
            x = run(second, run(partial(self._join, reduction, first), x, skip_features))
        return crop_to(channels_as_blocks(self.out(x), self.block), shape)

    def _join(self, reduction: nn.Module, block: nn.Module, coarse: Tensor, skip_features: Tensor) -> Tensor:
        """Bring features up by one scale, and pass them on with those of the skip connection."""
        return block(upsample_beside(reduction(coarse), skip_features, self.upsample, self.copies))


def _run(part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    return part(*inputs)


def _run_again(part: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)


def checkpoint_activations(network: nn.Module) -> None:
    """Let every `UNet` of a network compute its features again for the gradient; other networks stay as they are."""
    for module in network.modules():
        if isinstance(module, UNet):
            module.checkpointing = True
