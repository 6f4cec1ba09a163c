"""Group normalisation with a leaky rectifier behind it, in bfloat16 on the CPU, compiled by numba; imported when used.

Features lie with their channels last. Each pass over them widens bfloat16 to float32 in registers, so that nothing is
written but what is asked for: forward reads twice and writes once, where torch's own modules read three times and
write twice; the gradient makes two passes in place of ten. Sums are taken over blocks of pixels that do not depend on
the number of threads, so neither does the result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.nets.channels import last_format
from operators.numba_kernels import compiled, share

Bits = NDArray[np.uint16]
"""Values in bfloat16, ``(pixel, channel)``: the upper halves of float32."""

Values = NDArray[np.float32]

_PIXELS = 256
"""Of a block: few enough that sums in float32 lose nothing, many enough that a block is work."""

_SHARED = 2**18
"""Values from which on it is worth to call other threads."""


def normalise(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, slope: float
) -> tuple[Tensor, NDArray[Any]]:
    """Normalise ``(batch, channel, x, y[, z])`` and multiply what is negative by ``slope``.

    Returns
    -------
    features
        In bfloat16, channels last in memory.
    of_groups
        Mean and inverse standard deviation of each group, ``(batch, 2, group)``, for `gradients`.
    """
    y = torch.empty_like(x, memory_format=last_format(x.ndim - 2))
    of_groups = np.empty((len(x), 2, groups), np.float64)
    for item, out, statistics in zip(_bits(x), _bits(y), of_groups, strict=True):
        sums = _sums(item.shape, add_up, item)
        describe_groups(sums, item.shape[0], eps, statistics)
        scale, shift = affine(statistics, _values(weight), _values(bias))
        _over_blocks(item.shape, rectify, item, scale, shift, np.float32(slope), out)
    return y, of_groups


def gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, bias: Tensor, slope: float, of_groups: NDArray[Any]
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate a loss by the features, the weight and the bias of `normalise`, from its gradient by the result."""
    out = torch.empty_like(x, memory_format=last_format(x.ndim - 2))
    of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for item, incoming, moved, statistics in zip(_bits(x), _bits(gradient), _bits(out), of_groups, strict=True):
        scale, shift = affine(statistics, _values(weight), _values(bias))
        rectifier = scale, shift, np.float32(slope)
        sums = _sums(item.shape, add_up_gradient, item, incoming, *rectifier)
        parts = project(sums, item.shape[0], statistics, _values(weight), of_weight.numpy(), of_bias.numpy())
        _over_blocks(item.shape, move_gradient, item, incoming, *rectifier, *parts, moved)
    return out, of_weight, of_bias


def _bits(x: Tensor) -> Bits:
    """The memory of features as ``(batch, pixel, channel)``; copied where the channels are not last."""
    last = x.contiguous(memory_format=last_format(x.ndim - 2)).detach().movedim(1, -1)
    bits: Bits = last.view(torch.int16).flatten(1, -2).numpy().view(np.uint16)
    return bits


def _values(parameter: Tensor) -> Values:
    values: Values = parameter.detach().float().numpy()
    return values


def _sums(shape: tuple[int, ...], kernel: Any, *arguments: Any) -> NDArray[Any]:
    """Two sums of each channel, ``(2, channel)``."""
    sums = np.empty((math.ceil(shape[0] / _PIXELS), 2, shape[1]), np.float32)
    _over_blocks(shape, kernel, *arguments, sums)
    total: NDArray[Any] = sums.sum(0, dtype=np.float64)
    return total


def _over_blocks(shape: tuple[int, ...], kernel: Any, *arguments: Any) -> None:
    n_blocks = math.ceil(shape[0] / _PIXELS)
    n_parts = torch.get_num_threads() if math.prod(shape) >= _SHARED else 1
    share(n_blocks, math.ceil(n_blocks / n_parts), kernel, _PIXELS, *arguments)


@compiled
def widen(bits: Any) -> Any:
    """Turn a value in bfloat16 into float32."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled
def narrow(value: Any) -> Any:
    """Round a value in float32 to bfloat16, ties to even."""
    bits = np.float32(value).view(np.uint32)
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@compiled
def add_up(first: int, end: int, n_pixels: int, x: Bits, sums: Values) -> None:
    """Sum values and their squares over the pixels of each block."""
    n_channels = x.shape[1]
    for block in range(first, end):
        total, squares = np.zeros(n_channels, np.float32), np.zeros(n_channels, np.float32)
        for pixel in range(block * n_pixels, min((block + 1) * n_pixels, x.shape[0])):
            row = x[pixel]
            for channel in range(n_channels):
                value = widen(row[channel])
                total[channel] += value
                squares[channel] += value * value
        sums[block, 0], sums[block, 1] = total, squares


@compiled
def describe_groups(sums: NDArray[Any], n_pixels: int, eps: float, out: NDArray[Any]) -> None:
    """Mean and inverse standard deviation of each group from the sums of its channels."""
    n_groups = out.shape[1]
    per_group = sums.shape[1] // n_groups
    count = n_pixels * per_group
    for group in range(n_groups):
        channels = sums[:, group * per_group : (group + 1) * per_group]
        mean = channels[0].sum() / count
        variance = max(channels[1].sum() / count - mean * mean, 0.0)
        out[0, group], out[1, group] = mean, 1 / math.sqrt(variance + eps)


@compiled
def affine(of_groups: NDArray[Any], weight: Values, bias: Values) -> tuple[Values, Values]:
    """The factor and the offset that normalise each channel."""
    scale, shift = np.empty_like(weight), np.empty_like(bias)
    per_group = len(weight) // of_groups.shape[1]
    for channel in range(len(weight)):
        mean, inverse = of_groups[0, channel // per_group], of_groups[1, channel // per_group]
        scale[channel] = weight[channel] * inverse
        shift[channel] = bias[channel] - weight[channel] * inverse * mean
    return scale, shift


@compiled
def rectify(
    first: int, end: int, n_pixels: int, x: Bits, scale: Values, shift: Values, slope: np.float32, out: Bits
) -> None:
    """Scale and shift each channel, and multiply what is negative then by ``slope``."""
    for pixel in range(first * n_pixels, min(end * n_pixels, x.shape[0])):
        row, result = x[pixel], out[pixel]
        for channel in range(x.shape[1]):
            value = widen(row[channel]) * scale[channel] + shift[channel]
            result[channel] = narrow(value if value > 0 else slope * value)


@compiled
def before_rectifier(incoming: Any, value: np.float32, scale: np.float32, shift: np.float32, slope: np.float32) -> Any:
    """The gradient by what the rectifier saw."""
    gradient = widen(incoming)
    return gradient if value * scale + shift > 0 else slope * gradient


@compiled
def add_up_gradient(
    first: int,
    end: int,
    n_pixels: int,
    x: Bits,
    incoming: Bits,
    scale: Values,
    shift: Values,
    slope: np.float32,
    sums: Values,
) -> None:
    """Sum the gradient, and its product with the values, over the pixels of each block."""
    n_channels = x.shape[1]
    for block in range(first, end):
        total, products = np.zeros(n_channels, np.float32), np.zeros(n_channels, np.float32)
        for pixel in range(block * n_pixels, min((block + 1) * n_pixels, x.shape[0])):
            row, from_above = x[pixel], incoming[pixel]
            for channel in range(n_channels):
                value = widen(row[channel])
                gradient = before_rectifier(from_above[channel], value, scale[channel], shift[channel], slope)
                total[channel] += gradient
                products[channel] += gradient * value
        sums[block, 0], sums[block, 1] = total, products


@compiled
def project(
    sums: NDArray[Any], n_pixels: int, of_groups: NDArray[Any], weight: Values, of_weight: Values, of_bias: Values
) -> tuple[Values, Values, Values]:
    """What the gradient and the values are multiplied by, and what is added, to make the gradient by the values.

    The gradient loses, over each group, its mean and its part along the values. Those of weight and bias are added up.
    """
    n_groups = of_groups.shape[1]
    per_group = len(weight) // n_groups
    of_gradient, of_value, offset = np.empty_like(weight), np.empty_like(weight), np.empty_like(weight)
    for group in range(n_groups):
        mean, inverse = of_groups[0, group], of_groups[1, group]
        along_ones, along_values = 0.0, 0.0
        for channel in range(group * per_group, (group + 1) * per_group):
            normalised = (sums[1, channel] - mean * sums[0, channel]) * inverse
            of_weight[channel] += normalised
            of_bias[channel] += sums[0, channel]
            along_ones += weight[channel] * sums[0, channel]
            along_values += weight[channel] * normalised
        along_ones /= n_pixels * per_group
        along_values /= n_pixels * per_group
        for channel in range(group * per_group, (group + 1) * per_group):
            of_gradient[channel] = weight[channel] * inverse
            of_value[channel] = -along_values * inverse * inverse
            offset[channel] = inverse * (along_values * inverse * mean - along_ones)
    return of_gradient, of_value, offset


@compiled
def move_gradient(
    first: int,
    end: int,
    n_pixels: int,
    x: Bits,
    incoming: Bits,
    scale: Values,
    shift: Values,
    slope: np.float32,
    of_gradient: Values,
    of_value: Values,
    offset: Values,
    out: Bits,
) -> None:
    """Make the gradient by the values before normalisation."""
    for pixel in range(first * n_pixels, min(end * n_pixels, x.shape[0])):
        row, from_above, result = x[pixel], incoming[pixel], out[pixel]
        for channel in range(x.shape[1]):
            value = widen(row[channel])
            gradient = before_rectifier(from_above[channel], value, scale[channel], shift[channel], slope)
            result[channel] = narrow(gradient * of_gradient[channel] + value * of_value[channel] + offset[channel])
