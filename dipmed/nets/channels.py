"""The border between images, complex or real, and the real channels that a network sees."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def to_channels(x: Tensor) -> Tensor:
    """Turn complex ``(batch, set, x, y[, z])`` into real ``(batch, 2 set, x, y[, z])``; a real image stays as it is.

    Real and imaginary part of one set are neighbours.
    """
    if not x.is_complex():
        return x.contiguous()
    return torch.view_as_real(x).movedim(-1, 2).flatten(1, 2).contiguous()


def to_image(channels: Tensor) -> Tensor:
    """Undo `to_channels`: each two channels are a complex image, one channel is a real one."""
    if channels.shape[1] == 1:
        return channels
    return torch.complex(channels[:, 0::2], channels[:, 1::2])


def pad_to_multiple(x: Tensor, multiple: int, ndim: int) -> Tensor:
    """Zero-pad the last ``ndim`` axes at their ends to multiples of ``multiple``, as a network with strides needs."""
    padding: list[int] = []
    for n in reversed(x.shape[-ndim:]):
        padding += [0, -n % multiple]
    return functional.pad(x, padding)


def crop_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Undo `pad_to_multiple`: keep the first ``shape`` elements of the trailing axes."""
    for axis, n in enumerate(shape, start=-len(shape)):
        x = x.narrow(axis, 0, n)
    return x


def last_format(ndim: int) -> torch.memory_format:
    """The order in memory, channels last, of features of images with ``ndim`` dimensions."""
    return torch.channels_last if ndim == 2 else torch.channels_last_3d


def channels_last(x: Tensor) -> Tensor:
    """Copy ``(batch, channel, x, y[, z])`` to an order in memory in which the channels come last, also a single one.

    Of one channel both orders are the same, and torch, asked to change it, leaves strides from which convolutions
    conclude that their results should have their channels first. What is not on a grid, as the points of a series
    ``(batch, frame, 3)``, has no such order and comes back as it is.
    """
    if x.ndim not in (4, 5):
        return x
    return torch.empty(x.shape, dtype=x.dtype, device=x.device, memory_format=last_format(x.ndim - 2)).copy_(x)
