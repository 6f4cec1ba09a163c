"""Deep Decoder: an image from few weights, where up-sampling alone looks at the neighbours."""

from __future__ import annotations

from torch import Tensor, nn

from dipmed.nets.blocks import channel_norm, convolution
from dipmed.nets.ladder import check_seed, check_shape, ladder_sizes
from dipmed.nets.upsample import Resize, Upsampling


class DeepDecoder(nn.Module):
    """1x1 convolution, up-sampling, rectifier, normalisation, again and again; a 1x1 convolution at the end.

    R. Heckel and P. Hand, ICLR 2019, arXiv:1810.03982. The last of the layers does not up-sample. There is no
    activation at the end, because real and imaginary parts have any sign, and each channel is normalised by itself and
    not over the batch, which for a batch of one is the same.

    Parameters
    ----------
    n_in, n_out
        Channels of the small input and of the image.
    ndim
        2 or 3.
    shape
        Of the image, in pixels.
    channels
        Features of every layer.
    layers
        Sizes from the input to the image, both counted.
    upsample
        Way of up-sampling; a filter doubles.
    seed_shape
        Size of the input; the sizes then grow by a constant ratio. Without it they are the halves of ``shape``,
        rounded up.

    Attributes
    ----------
    seed_shape
        Size that the input must have.

    Raises
    ------
    DipmedError
        When the sizes do not fit each other.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        ndim: int,
        *,
        shape: tuple[int, ...],
        channels: int = 128,
        layers: int = 6,
        upsample: Upsampling = "linear",
        seed_shape: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__()
        check_shape(shape, ndim)
        sizes = ladder_sizes(shape, layers - 1, upsample, seed_shape)
        self.seed_shape = sizes[0]
        stages: list[nn.Module] = []
        for smaller, larger in zip(sizes, [*sizes[1:], None], strict=True):
            stages.append(convolution(ndim, n_in, channels, 1, bias=False))
            if larger is not None:
                # a 1x1 convolution and interpolation commute, and the convolution is cheaper on the coarser grid
                stages.append(Resize(smaller, larger, upsample))
            stages += [nn.ReLU(), channel_norm(channels)]
            n_in = channels
        self.stages = nn.Sequential(*stages)
        self.out = convolution(ndim, channels, n_out, 1, bias=False)

    def forward(self, seed: Tensor) -> Tensor:
        """Map ``(batch, n_in, *seed_shape)`` to ``(batch, n_out, x, y[, z])``."""
        check_seed(seed, self.seed_shape)
        return self.out(self.stages(seed))
