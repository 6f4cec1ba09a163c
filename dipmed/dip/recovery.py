"""What a fit falls back to when its loss becomes NaN or explodes."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

_EXPLOSION = 100.0
"""A loss this many times the last good one, and above that of a zero image, has exploded."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything that an iteration changes."""

    iteration: int
    loss: float
    network: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    tensors: dict[str, Tensor]
    average: Tensor | None

    @classmethod
    def take(
        cls,
        iteration: int,
        loss: float,
        network: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        tensors: dict[str, Tensor],
        average: Tensor | None,
    ) -> Self:
        """Copy the state after ``iteration``."""
        return cls(
            iteration=iteration,
            loss=loss,
            network={name: value.detach().clone() for name, value in network.state_dict().items()},
            optimizers=[copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers],
            tensors={name: value.detach().clone() for name, value in tensors.items()},
            average=None if average is None else average.clone(),
        )

    def restore(
        self, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]
    ) -> tuple[int, Tensor | None]:
        """Put the state back; return the iteration and the running average."""
        network.load_state_dict(self.network)
        for optimizer, state in zip(optimizers, self.optimizers, strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))  # which would go on with these very tensors
        with torch.no_grad():
            for name, value in self.tensors.items():
                tensors[name].copy_(value)
        return self.iteration, None if self.average is None else self.average.clone()


def has_diverged(loss: float, last_good: float) -> bool:
    """Whether a loss is not finite or far above the last good one."""
    return not math.isfinite(loss) or loss > max(2.0, _EXPLOSION * last_good)
