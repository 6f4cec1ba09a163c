"""The border between images, complex or real, and the real channels that a network sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


def blocks_as_channels(x: Tensor, n: int) -> Tensor:
    """Bring blocks of ``n`` along the first two axes into channels, ``(batch, n n channel, x / n, y / n[, z])``."""
    return x if n == 1 else channels_last(_by_plane(functional.pixel_unshuffle, x, n))


def channels_as_blocks(x: Tensor, n: int) -> Tensor:
    """Undo `blocks_as_channels`."""
    return x if n == 1 else _by_plane(functional.pixel_shuffle, x, n)


def _by_plane(rearrange: Callable[[Tensor, int], Tensor], x: Tensor, n: int) -> Tensor:
    """Rearrange the planes of images with two axes or three."""
    if x.ndim == 4:
        return rearrange(x, n)
    planes = rearrange(x.movedim(-1, 1).flatten(0, 1), n)
    return planes.reshape(len(x), -1, *planes.shape[1:]).movedim(1, -1)


def pad_to_multiple(x: Tensor, multiples: Sequence[int]) -> Tensor:
    """Zero-pad the last axes at their ends to these multiples, as a network with strides needs."""
    padding: list[int] = []
    for n, multiple in zip(reversed(x.shape), reversed(multiples), strict=False):
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
