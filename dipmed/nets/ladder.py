"""The sizes that a decoder passes on its way from a small input to the image."""

from __future__ import annotations

import math

from torch import Tensor

from dipmed.nets.upsample import Upsampling
from dipmed.scan import DipmedError


def geometric_sizes(seed: tuple[int, ...], shape: tuple[int, ...], steps: int) -> list[tuple[int, ...]]:
    """Grow every axis by a constant factor from ``seed`` to ``shape``, rounded up.

    M. Zalbagi Darestani and R. Heckel, IEEE TCI 7:724-733, 2021, arXiv:2007.02471.
    """
    # less than a rounding error, which must not add a pixel
    return [
        tuple(math.ceil(a * (b / a) ** (step / steps) - 1e-6) for a, b in zip(seed, shape, strict=True))
        for step in range(steps + 1)
    ]


def halved_sizes(shape: tuple[int, ...], steps: int) -> list[tuple[int, ...]]:
    """Halve every axis of ``shape`` again and again, rounded up; the smallest comes first."""
    return [tuple(-(-n // 2**step) for n in shape) for step in range(steps, -1, -1)]


def ladder_sizes(
    shape: tuple[int, ...], steps: int, upsample: Upsampling, seed: tuple[int, ...] | None
) -> list[tuple[int, ...]]:
    """Choose the sizes: geometric ones from ``seed``, or halved ones without it and for filters, which double.

    Raises
    ------
    DipmedError
        When a seed does not fit the shape or the filter, or leaves a single pixel, which cannot be normalised.
    """
    if steps < 1 or min(shape) < 1:
        raise DipmedError(f"a decoder needs two layers or more and a shape of positive sizes, got {shape}")
    if seed is None:
        sizes = halved_sizes(shape, steps)
    elif upsample not in ("nearest", "linear"):
        raise DipmedError(f"a low-pass filter doubles the size; leave the size of the input out, got {seed}")
    elif len(seed) != len(shape) or any(not 1 <= a <= b for a, b in zip(seed, shape, strict=True)):
        raise DipmedError(f"the input of a decoder to {shape} cannot have the size {seed}")
    else:
        sizes = geometric_sizes(seed, shape, steps)
    if math.prod(sizes[0]) < 2:
        raise DipmedError(f"{steps} steps to {shape} start from a single pixel; take fewer layers")
    return sizes


def check_shape(shape: tuple[int, ...], ndim: int) -> None:
    """Refuse a shape that has not ``ndim`` axes."""
    if len(shape) != ndim:
        raise DipmedError(f"an image of {ndim} axes cannot have the shape {shape}")


def check_seed(seed: Tensor, seed_shape: tuple[int, ...]) -> None:
    """Refuse an input of another size than the decoder's ladder starts with."""
    if tuple(seed.shape[2:]) != seed_shape:
        raise DipmedError(f"the input of the decoder must have the size {seed_shape}, got {tuple(seed.shape[2:])}")
