"""A fresh network from its configuration and a random generator: the same seed gives the same weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dipmed.config import NetworkConfig
from dipmed.nets.unet import UNet


def make_network(config: NetworkConfig, n_in: int, n_out: int, ndim: int, generator: torch.Generator) -> nn.Module:
    """Build and initialise a network on the CPU.

    Weights are drawn from ``generator`` alone, uniformly with variance 1 / (3 fan-in), torch's own default for
    convolutions; the global random state is neither read nor changed.
    """
    with torch.device("meta"):
        network = UNet(config, n_in, n_out, ndim)
    network = network.to_empty(device="cpu")
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            _fill_uniform(module.weight, bound, generator)
            if module.bias is not None:
                _fill_uniform(module.bias, bound, generator)
        elif isinstance(module, nn.GroupNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def _fill_uniform(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    with torch.no_grad():
        parameter.uniform_(-bound, bound, generator=generator)
