"""Group normalisation whose gradient in bfloat16 is not slower than the convolutions around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_WORTH_IT = 2**18
"""Values of an image's features from which on fewer passes over memory make up for more calls."""


class GroupNorm(nn.GroupNorm):
    """The values of torch's module, with a backward pass of a few whole passes for bfloat16 on the CPU.

    Y. Wu, K. He, "Group normalization", 2018, arXiv:1803.08494. torch's own backward pass takes three times as long
    there as a 3 x 3 convolution of the same features (docs/engine.md).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``(batch, channel, x, y[, z])``."""
        is_slow = x.device.type == "cpu" and x.dtype == torch.bfloat16 and x[0].numel() >= _WORTH_IT
        if not (is_slow and x.requires_grad):
            return super().forward(x)
        normalised: Tensor = _Normalise.apply(x, self.weight, self.bias, self.num_groups, self.eps)  # type: ignore[no-untyped-call]
        return normalised


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        n_items, n_channels = x.shape[:2]
        n_pixels = x[0, 0].numel()
        y, mean, deviation = torch.native_group_norm(x, weight, bias, n_items, n_channels, n_pixels, groups, eps)
        ctx.save_for_backward(x, weight, mean, deviation)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        (n_items, n_channels), n_groups = x.shape[:2], mean.shape[1]
        of_group = (n_items, n_groups, n_channels // n_groups)
        mean, inverse = mean.float()[..., None], inverse.float()[..., None]
        weight_ = weight.view(1, *of_group[1:])
        total, product = _sums(gradient).view(of_group), _sums(gradient * x).view(of_group)
        # a gradient loses its mean and its part along the values, over each group
        of_ones = (total * weight_).sum(-1, keepdim=True) * inverse / x[0].numel() * n_groups
        of_values = (product * weight_).sum(-1, keepdim=True) * inverse / x[0].numel() * n_groups
        slope = (of_ones * mean - of_values) * inverse.square()
        offset = -slope * mean - of_ones
        shape = (n_items, n_channels, *(1 for _ in x.shape[2:]))
        slope, offset = (values.to(x.dtype).expand(of_group).reshape(shape) for values in (slope, offset))
        moved = torch.addcmul(offset, x, slope).addcmul_(gradient, (inverse * weight_).to(x.dtype).view(shape))
        return moved, ((product - mean * total) * inverse).sum(0).flatten(), total.sum(0).flatten(), None, None


def _sums(x: Tensor) -> Tensor:
    """Sum the pixels of each channel, ``(batch, channel)``: rows in the precision of the result, then in float32."""
    rows = x.movedim(1, -1).sum(-2)
    return rows.flatten(1, -2).sum(1, dtype=torch.float32)
