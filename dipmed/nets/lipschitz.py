"""Convolutions whose kernels have a bounded spectral norm, so that a network cannot turn steep to fit noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from dipmed.scan import DipmedError


class SpectralBound(nn.Module):
    """Divide a kernel by what its spectral norm exceeds a bound: ``W / max(1, σ(W) / c)``.

    The norm σ is the largest singular value of the kernel as a matrix ``(n_out, n_in * size)``, from a full
    decomposition, because a power iteration proved inaccurate. The bound ``c = softplus(ĉ)`` can be fitted
    (Z. Shi et al., IJCV 2022, arXiv:2107.01125; Y. Liu et al., ECCV 2024, arXiv:2312.09988).

    Parameters
    ----------
    bound
        First value of c.
    learnable
        Fit c with the weights; its `lipschitz_penalty` then pulls it down.
    """

    def __init__(self, bound: float, *, learnable: bool = True) -> None:
        super().__init__()
        if bound <= 0:
            raise DipmedError(f"the bound of a spectral norm must be positive, got {bound}")
        raw = torch.tensor(bound + math.log(-math.expm1(-bound)))
        self.raw_bound = nn.Parameter(raw, requires_grad=learnable)

    @property
    def bound(self) -> Tensor:
        """The bound c."""
        return functional.softplus(self.raw_bound)

    def forward(self, weight: Tensor) -> Tensor:
        norm = torch.linalg.matrix_norm(weight.flatten(1), 2)
        return weight / (norm / self.bound).clamp(min=1)


def bound_convolutions(network: nn.Module, bound: float | None = None, *, learnable: bool = True) -> list[str]:
    """Bound every convolution of an initialised network, in place, and return their names.

    A normalisation after a convolution takes any scale of its kernel away again, and with it the effect of the bound:
    see `subtract_means`. The network can then be copied, and stored by its ``state_dict``, but not pickled.

    Parameters
    ----------
    network
        With its first weights, which the bound is set from and which cannot be drawn afterwards.
    bound
        The same for all; without it each starts from the norm of its own kernel.
    learnable
        Fit the bounds with the weights.
    """
    names = [name for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))]
    for name in names:
        module = network.get_submodule(name)
        if parametrize.is_parametrized(module, "weight"):
            raise DipmedError(f"the convolution {name} has a bound already")
        weight: Tensor = module.get_parameter("weight").detach()
        first = float(torch.linalg.matrix_norm(weight.flatten(1), 2)) if bound is None else bound
        parametrize.register_parametrization(module, "weight", SpectralBound(first, learnable=learnable))
    return names


def lipschitz_penalty(network: nn.Module) -> Tensor:
    """Sum the squared bounds of all bounded convolutions of a network."""
    squares = [module.bound.square() for module in network.modules() if isinstance(module, SpectralBound)]
    if not squares:
        raise DipmedError("the network has no bounded convolution")
    return torch.stack(squares).sum()


class MeanNorm(nn.Module):
    """Subtract the mean of each channel and add a constant that is fitted; the scale stays.

    Parameters
    ----------
    n_channels
        Channels of the features.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(n_channels))

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(2, x.ndim))
        return x - x.mean(axes, keepdim=True) + self.bias.reshape(-1, *(1 for _ in axes))


def subtract_means(network: nn.Module) -> None:
    """Put a `MeanNorm` in the place of every group normalisation, so that bounds on the kernels keep their effect."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, MeanNorm(child.num_channels))
