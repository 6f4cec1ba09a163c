"""A fit that starts from what another one has ended with: the weights of all layers as one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dipmed.scan import DipmedError


def weights_of(network: nn.Module) -> Tensor:
    """Copy all weights of a network, ``(weight,)``, to the CPU."""
    return torch.cat([parameter.detach().reshape(-1) for parameter in network.parameters()]).cpu()


@torch.no_grad()
def start_from(network: nn.Module, weights: Tensor) -> None:
    """Give a network the weights that `weights_of` has copied of another one of the same layers.

    Raises
    ------
    DipmedError
        When they are not as many.
    """
    parameters = list(network.parameters())
    n_weights = sum(parameter.numel() for parameter in parameters)
    if weights.shape != (n_weights,):
        raise DipmedError(f"a network of {n_weights} weights cannot start from {tuple(weights.shape)}")
    shares = torch.split(weights, [parameter.numel() for parameter in parameters])
    for parameter, share in zip(parameters, shares, strict=True):
        parameter.copy_(share.view(parameter.shape))
