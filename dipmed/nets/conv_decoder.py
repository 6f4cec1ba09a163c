"""ConvDecoder: a narrow and deep network from a small random input to the image, without skip connections."""

from __future__ import annotations

from torch import Tensor, nn

from dipmed.nets.blocks import channel_norm, convolution
from dipmed.nets.ladder import check_seed, check_shape, ladder_sizes
from dipmed.nets.upsample import Resize, Upsampling

_SEED = (8, 4, 4)


class ConvDecoder(nn.Module):
    """Up-sampling, 3x3 convolution, rectifier, normalisation, again and again; a 1x1 convolution at the end.

    M. Zalbagi Darestani and R. Heckel, IEEE TCI 7:724-733, 2021, arXiv:2007.02471, who give each coil an image of
    two channels, and need no sensitivity maps. Each channel is normalised by itself and not over the batch, which for
    a batch of one is the same. The size (8, 4) of the input is theirs, the third axis is ours.

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
        ``"nearest"`` or ``"linear"`` on sizes with a constant ratio; a filter doubles, and the sizes are then the
        halves of ``shape``, rounded up.
    seed_shape
        Size of the input, which interpolations alone can choose; (8, 4, 4) unless the image is smaller.
    convolutions
        Convolutions on each size.
    bias
        Give them a constant, which the normalisation does not take away, because it comes after the rectifier.

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
        channels: int = 160,
        layers: int = 8,
        upsample: Upsampling = "nearest",
        seed_shape: tuple[int, ...] | None = None,
        convolutions: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__()
        check_shape(shape, ndim)
        if seed_shape is None and (upsample == "nearest" or upsample == "linear"):
            seed_shape = tuple(min(a, n) for a, n in zip(_SEED, shape, strict=False))
        sizes = ladder_sizes(shape, layers - 1, upsample, seed_shape)
        self.seed_shape = sizes[0]
        stages: list[nn.Module] = []
        for smaller, larger in zip(sizes, [*sizes[1:], None], strict=True):
            if larger is not None:
                stages.append(Resize(smaller, larger, upsample))
            for _ in range(convolutions):
                stages += [convolution(ndim, n_in, channels, 3, bias=bias), nn.ReLU(), channel_norm(channels)]
                n_in = channels
        self.stages = nn.Sequential(*stages)
        self.out = convolution(ndim, channels, n_out, 1)

    def forward(self, seed: Tensor) -> Tensor:
        """Map ``(batch, n_in, *seed_shape)`` to ``(batch, n_out, x, y[, z])``."""
        check_seed(seed, self.seed_shape)
        return self.out(self.stages(seed))
