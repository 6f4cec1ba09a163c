"""Group normalisation that does not take longer, in bfloat16 on the CPU, than the convolutions around it."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """The values of torch's module, by compiled passes over memory for bfloat16 on the CPU where numba is installed.

    Y. Wu, K. He, "Group normalization", 2018, arXiv:1803.08494. torch's own backward pass takes three times as long
    there as a 3 x 3 convolution of the same features (docs/engine.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(batch, channel, x, y[, z])``."""
        return self.rectified(x, 1.0) if self.is_compiled_for(x) else super().forward(x)

    def is_compiled_for(self, x: Tensor) -> bool:
        """Whether there are compiled passes for these features."""
        is_meant = x.device.type == "cpu" and x.dtype == torch.bfloat16 and x.ndim in (4, 5)
        return is_meant and self.weight.dtype == torch.float32 and _has_numba() and not torch.compiler.is_compiling()

    def rectified(self, x: Tensor, slope: float) -> Tensor:
        """Normalise and multiply what is negative by ``slope``, in one go, where `is_compiled_for` says so."""
        result: Tensor = _Normalise.apply(x, self.weight, self.bias, self.num_groups, self.eps, slope)  # type: ignore[no-untyped-call]
        return result


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, slope: float) -> Tensor:
        from dipmed.nets.normalise_numba import normalise

        y, ctx.of_groups = normalise(x, weight, bias, groups, eps, slope)
        ctx.save_for_backward(x, weight, bias)
        ctx.slope = slope
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        from dipmed.nets.normalise_numba import gradients

        x, weight, bias = ctx.saved_tensors
        return *gradients(gradient, x, weight, bias, ctx.slope, ctx.of_groups), None, None, None
