"""Fresh networks from a random generator: the same seed gives the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from dipmed.config import NetworkConfig
from dipmed.nets.unet import UNet

Network = TypeVar("Network", bound=nn.Module)


@runtime_checkable
class DrawsItsWeights(Protocol):
    """A layer with a rule of its own for its first weights."""

    def draw_weights(self, generator: torch.Generator) -> None:
        """Fill all parameters of the layer from ``generator`` alone."""


def make_network(
    config: NetworkConfig,
    n_in: int,
    n_out: int,
    ndim: int,
    generator: torch.Generator,
    *,
    gain: float = 1.0,
    block: int = 1,
) -> nn.Module:
    """Build and initialise a U-Net on the CPU, see `initialise`, with its kernels multiplied by ``gain``."""
    network = build(lambda: UNet(config, n_in, n_out, ndim, block=block), generator)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                module.weight.mul_(gain)
    return network


def build(construct: Callable[[], Network], generator: torch.Generator) -> Network:
    """Call ``construct`` and initialise the network that it returns, on the CPU.

    Layers are made without weights, so that the global random state is neither read nor changed.
    """
    with torch.device("meta"):
        network = construct()
    return initialise(network, generator)


def initialise(network: Network, generator: torch.Generator) -> Network:
    """Draw all weights of a network on the CPU, in place, and return it.

    Convolutions and linear layers are drawn from ``generator`` alone, uniformly with variance 1 / (3 fan-in), torch's
    own default; a layer with `DrawsItsWeights.draw_weights` draws its own. Parameters on torch's meta device, where
    `build` makes them, get their memory here.

    Raises
    ------
    TypeError
        For parameters without a rule, such as those of a bound on the weights, which is set after this.
    """
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                filled = torch.empty_like(parameter, device="cpu")
                setattr(module, name, nn.Parameter(filled, parameter.requires_grad))
    _draw(network, generator)
    return network


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    if isinstance(module, DrawsItsWeights):
        module.draw_weights(generator)
        return
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
        bound = 1 / math.sqrt(module.weight[0].numel())
        _fill_uniform(module.weight, bound, generator)
        if module.bias is not None:
            _fill_uniform(module.bias, bound, generator)
    elif isinstance(module, nn.GroupNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif any(True for _ in module.parameters(recurse=False)):
        raise TypeError(f"there is no rule for the first weights of {type(module).__name__}")
    for child in module.children():
        _draw(child, generator)


def _fill_uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        parameter.uniform_(-bound, bound, generator=generator)
