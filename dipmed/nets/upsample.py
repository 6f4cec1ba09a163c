"""Up-sampling whose gradient is the same on every run, also on CUDA.

torch's own kernels are used on the CPU, where they are deterministic. Their CUDA gradients add atomically, in an order
that changes from run to run, so other devices go by slices or by matrices.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dipmed.nets.channels import last_format
from dipmed.nets.low_pass import Gaussian, Kaiser, LowPass

Upsampling = Literal["nearest", "linear", "kaiser", "gaussian"] | LowPass

_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}
_NEGLIGIBLE = 1e-12


def upsample(x: Tensor, method: Upsampling) -> Tensor:
    """Double all axes after ``(batch, channel)``.

    The low-pass filters keep the samples at the even pixels, where a strided convolution takes them; the two
    interpolations keep the outline of the pixels.
    """
    if method == "nearest":
        return upsample_nearest(x)
    if method == "linear":
        return upsample_linear(x)
    return upsample_low_pass(x, as_low_pass(method))


def upsample_beside(x: Tensor, others: Tensor, method: Upsampling, copies: int = 1) -> Tensor:
    """Double all axes of ``(batch, channel, x, y[, z])`` and put ``others``, of that size, behind, along channels.

    Of several ``copies`` of a network each has its own channels together.

    In bfloat16, on the CPU, everything stays in that precision and in the order of the convolutions around it: torch's
    autocast would turn the features to float32 and back, and its gradients of joined features are not in that order.
    """
    if copies > 1:
        return _join_copies(upsample(x, method), others, copies)
    if x.device.type != "cpu" or not x.dtype == others.dtype == torch.bfloat16:
        return torch.cat([upsample(x, method), others], 1)
    with torch.autocast("cpu", enabled=False):
        joined: Tensor = _Join.apply(upsample(x, method), others)  # type: ignore[no-untyped-call]
        return joined


def _join_copies(first: Tensor, second: Tensor, copies: int) -> Tensor:
    """Put the channels of each copy behind each other; they come last in memory, where those of the first do."""
    parts = [torch.unflatten(part.movedim(1, -1), -1, (copies, -1)) for part in (first, second)]
    return torch.cat(parts, -1).flatten(-2).movedim(-1, 1)


class _Join(torch.autograd.Function):
    """Features behind each other along channels; the gradient of each has its channels last in memory."""

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor) -> Tensor:
        ctx.n_channels = first.shape[1], second.shape[1]
        return torch.cat([first, second], 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        last = last_format(gradient.ndim - 2)
        return tuple(part.contiguous(memory_format=last) for part in torch.split(gradient, ctx.n_channels, 1))


def as_low_pass(method: Literal["kaiser", "gaussian"] | LowPass) -> LowPass:
    """The filter of that name with its default strength, or the filter itself."""
    if isinstance(method, (Kaiser, Gaussian)):
        return method
    return Kaiser() if method == "kaiser" else Gaussian()


def upsample_nearest(x: Tensor) -> Tensor:
    """Double all axes after ``(batch, channel)`` by repeating each value."""
    if x.device.type == "cpu":
        return functional.interpolate(x, scale_factor=2, mode="nearest")
    return upsample_nearest_by_slices(x)


def upsample_nearest_by_slices(x: Tensor) -> Tensor:
    """The same values as `upsample_nearest` from copies alone."""
    for axis in range(2, x.ndim):
        x = torch.stack([x, x], axis + 1).flatten(axis, axis + 1)
    return x


def upsample_linear(x: Tensor) -> Tensor:
    """Double all axes after ``(batch, channel)`` by linear interpolation between pixel centres."""
    if x.device.type == "cpu":
        return functional.interpolate(x, scale_factor=2, mode=_MODES[x.ndim - 2], align_corners=False)
    return upsample_linear_by_slices(x)


def upsample_linear_by_slices(x: Tensor) -> Tensor:
    """The same values as `upsample_linear` from shifts and weighted sums of slices alone."""
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, n - 1)], axis)
        after = torch.cat([x.narrow(axis, 1, n - 1), x.narrow(axis, n - 1, 1)], axis)
        pair = torch.stack([torch.lerp(x, before, 0.25), torch.lerp(x, after, 0.25)], axis + 1)
        x = pair.flatten(axis, axis + 1)
    return x


def upsample_low_pass(x: Tensor, low_pass: LowPass) -> Tensor:
    """Insert zeros between the samples along all axes after ``(batch, channel)``, then filter; edges are repeated."""
    taps = low_pass.taps
    centre = len(taps) // 2
    reach = (centre + 1) // 2
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        padded = torch.cat([x.narrow(axis, 0, 1)] * reach + [x] + [x.narrow(axis, n - 1, 1)] * reach, axis)
        # the zeros are never multiplied: an even output sees the even taps alone, an odd one the odd taps
        phases = [
            _weighted_sum(padded, axis, n, {reach + (phase - k) // 2: tap for k, tap in _taps_of(phase, taps)})
            for phase in (0, 1)
        ]
        x = torch.stack(phases, axis + 1).flatten(axis, axis + 1)
    return x


def _taps_of(phase: int, taps: tuple[float, ...]) -> list[tuple[int, float]]:
    positions = range(-(len(taps) // 2), len(taps) // 2 + 1)
    return [(k, tap) for k, tap in zip(positions, taps, strict=True) if k % 2 == phase and abs(tap) > _NEGLIGIBLE]


def _weighted_sum(padded: Tensor, axis: int, n: int, weights: dict[int, float]) -> Tensor:
    first, *others = weights.items()
    total = padded.narrow(axis, first[0], n) * first[1]
    for start, weight in others:
        total = torch.add(total, padded.narrow(axis, start, n), alpha=weight)
    return total


class Resize(nn.Module):
    """Up-sampling from one size to another, by a matrix an axis.

    Parameters
    ----------
    size_in, size_out
        The axes after ``(batch, channel)``, in pixels.
    method
        The two interpolations, between pixel centres, take any ratio. A filter doubles the size, which is then cut at
        the ends to ``size_out``.
    """

    def __init__(self, size_in: tuple[int, ...], size_out: tuple[int, ...], method: Upsampling) -> None:
        super().__init__()
        self.size_out = size_out
        self.torch_mode = {"nearest": "nearest", "linear": _MODES[len(size_out)]}.get(str(method))
        for axis, (n_in, n_out) in enumerate(zip(size_in, size_out, strict=True)):
            # on the CPU in any case, because values on the meta device would be lost
            units = torch.eye(n_in, device="cpu")[None]
            if method == "nearest" or method == "linear":
                columns = functional.interpolate(units, size=n_out, mode=method)
            else:
                columns = upsample_low_pass(units, as_low_pass(method)).narrow(-1, 0, n_out)
            self.register_buffer(f"matrix_{axis}", columns[0].T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and self.torch_mode is not None:
            return functional.interpolate(x, size=self.size_out, mode=self.torch_mode)
        return self.by_matrices(x)

    def by_matrices(self, x: Tensor) -> Tensor:
        """The same values from the matrices alone."""
        for axis in range(len(self.size_out)):
            matrix = self.get_buffer(f"matrix_{axis}").to(x.dtype)
            x = (x.movedim(axis + 2, -1) @ matrix.T).movedim(-1, axis + 2)
        return x
