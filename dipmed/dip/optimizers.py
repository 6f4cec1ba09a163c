"""Optimizers of the fit: Adam, and orthogonalised momentum (Muon) for convolution kernels."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from dipmed.config import FitConfig

MUON_MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.99)
ADAM_EPS = 1e-8

_MIN_ROWS = 8  # kernels with fewer outputs, such as the last layer, have too few rows to orthogonalise


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Move the singular values of ``(..., rows, columns)`` matrices close to 1 by a quintic Newton-Schulz iteration.

    The coefficients trade accuracy for speed: singular values end between about 0.7 and 1.2
    (K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024).
    """
    transposed = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if transposed else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = _steps_towards_one(x @ x.mT, steps) @ x
    return x.mT if transposed else x


def _steps_towards_one(gram: Tensor, steps: int) -> Tensor:
    """The product of the polynomials of a Gram matrix ``(..., rows, rows)`` by which its factor is multiplied.

    Each step multiplies the factor by a polynomial of the Gram matrix at that step. All of them commute, so that the
    Gram matrix alone is followed: a kernel has ten times as many columns as rows.
    """
    product = None
    for step in range(steps):
        polynomial = 2.0315 * gram @ gram - 4.7750 * gram
        polynomial.diagonal(dim1=-2, dim2=-1).add_(3.4445)
        product = polynomial if product is None else polynomial @ product
        if step < steps - 1:
            gram = polynomial @ gram @ polynomial
    assert product is not None  # noqa: S101  # there is a step or more
    return product


class ConvolutionMuon(torch.optim.Optimizer):
    """Nesterov momentum whose update is the nearest orthogonal matrix, for kernels as (output, rest) matrices.

    Kernels of equal shape are orthogonalised together in one batch.

    Parameters
    ----------
    kernels
        Convolution kernels, ``(output, input, *size)``.
    lr
        Learning rate; an update of a square kernel has spectral norm ``lr``.
    momentum
        Decay of the gradient average.
    """

    def __init__(self, kernels: Iterable[Tensor], lr: float, momentum: float = MUON_MOMENTUM) -> None:
        super().__init__(list(kernels), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure: the loop owns the gradient
        """Update all kernels from their gradients."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(kernel)
                average = state["momentum"].mul_(group["momentum"]).add_(kernel.grad)
                direction = kernel.grad.add(average, alpha=group["momentum"]).flatten(1)
                by_shape[direction.shape].append((kernel, direction))
            for (rows, columns), members in by_shape.items():
                rate = group["lr"] * rate_for(rows, columns)
                updates = orthogonalise(torch.stack([direction for _, direction in members]))
                for (kernel, _), update in zip(members, updates, strict=True):
                    kernel.sub_(update.view_as(kernel), alpha=rate)


def rate_for(rows: int, columns: int) -> float:
    """Factor on the rate of an orthogonalised update of this shape."""
    return math.sqrt(max(1.0, rows / columns))


def is_orthogonalised(parameter: Tensor, config: FitConfig) -> bool:
    """Whether the updates of a parameter are orthogonalised, and not Adam's."""
    return config.optimizer == "muon" and parameter.ndim >= 4 and parameter.shape[0] >= _MIN_ROWS


def split_parameters(network: nn.Module, config: FitConfig) -> tuple[list[Tensor], list[Tensor]]:
    """The kernels whose updates are orthogonalised, and all other parameters."""
    kernels: list[Tensor] = []
    others: list[Tensor] = []
    for parameter in network.parameters():
        (kernels if is_orthogonalised(parameter, config) else others).append(parameter)
    return kernels, others


def make_optimizers(network: nn.Module, config: FitConfig) -> list[torch.optim.Optimizer]:
    """Share the network's parameters among the optimizers that ``config`` asks for."""
    kernels, others = split_parameters(network, config)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam(others, lr=config.adam_rate, betas=ADAM_BETAS, eps=ADAM_EPS, fused=True)
    ]
    if kernels:
        optimizers.append(ConvolutionMuon(kernels, lr=config.rate))
    return optimizers


def remember_rates(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Note the present learning rates as those that `set_rate` scales."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set each learning rate to ``factor`` times the one that it started with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor


def cosine_decay(progress: float, end: float = 0.0) -> float:
    """Fall from 1 to ``end`` as ``progress`` goes from 0 to 1."""
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
