"""Implicit representations: an image as a function from a position to a value."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from dipmed.nets.blocks import convolution


def coordinates(shape: tuple[int, ...]) -> Tensor:
    """Positions of all pixels, ``(1, axis, x, y[, z])``, from -1 at the first to 1 at the last along each axis."""
    axes = [torch.linspace(-1, 1, n) if n > 1 else torch.zeros(1) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def fourier_features(positions: Tensor, n: int, scale: float, generator: torch.Generator) -> Tensor:
    """Turn positions into ``2 n`` channels, the sine and cosine of ``2π B`` times the position.

    M. Tancik et al., NeurIPS 2020, arXiv:2006.10739.

    Parameters
    ----------
    positions
        ``(batch, axis, x, y[, z])``.
    n
        Frequencies.
    scale
        Standard deviation of the Gaussian matrix B, in cycles per unit of position. An axis from -1 to 1 has two
        units: half of what is published for axes from 0 to 1.
    generator
        Of B, on the CPU.
    """
    frequencies = scale * torch.randn(n, positions.shape[1], generator=generator).to(positions)
    phase = 2 * math.pi * torch.einsum("fa,ba...->bf...", frequencies, positions)
    return torch.cat([phase.sin(), phase.cos()], 1)


class ImplicitNetwork(nn.Module):
    """A multilayer perceptron that sees each pixel by itself: 1x1 convolutions, with sines or rectifiers.

    With sines, the first weights keep the distribution of features from layer to layer: uniform to ``1 / n_in`` in the
    first, to ``√(6 / n_in) / w0`` in the others (SIREN: V. Sitzmann et al., NeurIPS 2020, arXiv:2006.09661).

    Parameters
    ----------
    n_in, n_out
        Channels of the positions, or of features made of them, and of the image.
    ndim
        2 or 3.
    channels
        Features of every layer.
    layers
        Layers before the last one, which is linear.
    activation
        ``"sine"`` or ``"relu"``.
    w0
        Factor in each sine, which sets the finest detail that the first weights give.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        ndim: int,
        *,
        channels: int = 256,
        layers: int = 8,
        activation: Literal["sine", "relu"] = "sine",
        w0: float = 30.0,
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        widths = (n_in, *(channels for _ in range(layers)), n_out)
        for index, (i, o) in enumerate(pairwise(widths)):
            if activation == "relu":
                stages += [convolution(ndim, i, o, 1), nn.ReLU()]
            else:
                bound = 1 / i if index == 0 else math.sqrt(6 / i) / w0
                stages += [_SirenConvolution(ndim, i, o, bound), _Sine(w0)]
        self.stages = nn.Sequential(*stages[:-1])

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(batch, n_in, x, y[, z])`` to ``(batch, n_out, x, y[, z])``."""
        return self.stages(features)


class _Sine(nn.Module):
    def __init__(self, w0: float) -> None:
        super().__init__()
        self.w0 = w0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.w0 * x)


class _SirenConvolution(nn.Module):
    """A 1x1 convolution with uniform first weights of a given bound, and torch's own for the constants."""

    def __init__(self, ndim: int, n_in: int, n_out: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.constant_bound = 1 / math.sqrt(n_in)
        self.convolution = convolution(ndim, n_in, n_out, 1)

    @torch.no_grad()
    def draw_weights(self, generator: torch.Generator) -> None:
        self.convolution.get_parameter("weight").uniform_(-self.bound, self.bound, generator=generator)
        bound = self.constant_bound
        self.convolution.get_parameter("bias").uniform_(-bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x)
