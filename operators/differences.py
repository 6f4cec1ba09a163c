"""Finite differences of images, and the total variation that they make."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import ShapeError


class FiniteDifferences(LinearOperator):
    """Forward differences along the trailing axes; the difference beyond the last voxel of an axis is zero.

    Takes ``shape`` and gives ``(ndim, *shape)``: entry a of the first axis holds ``x[i + 1] - x[i]`` along the a-th of
    the trailing ``ndim`` axes, times the weight of that axis. Its norm is below ``2 sqrt(Σ weight²)``.

    Parameters
    ----------
    shape
        ``(1, x, y[, z])`` or any shape with at least ``ndim`` axes.
    ndim
        How many trailing axes to take differences along.
    is_complex
        Whether images are complex.
    weights
        What differences along each of these axes count; None for 1.

    Raises
    ------
    ShapeError
        When the shape has fewer than ``ndim`` axes, or there is not one weight for each.
    """

    def __init__(
        self, shape: tuple[int, ...], ndim: int, *, is_complex: bool = True, weights: Sequence[float] | None = None
    ) -> None:
        if not 1 <= ndim <= len(shape):
            raise ShapeError(
                f"differences are along 1 to {len(shape)} trailing axes of {tuple(shape)}, got ndim={ndim}"
            )
        weights = (1.0,) * ndim if weights is None else tuple(weights)
        if len(weights) != ndim:
            raise ShapeError(f"differences along {ndim} axes need {ndim} weights, got {len(weights)}")
        super().__init__(Space(shape, is_complex), Space((ndim, *shape), is_complex))
        self.ndim = ndim
        self.weights = weights

    def _forward(self, x: Tensor) -> Tensor:
        parts = [_weigh(_difference(x, axis - self.ndim), weight) for axis, weight in enumerate(self.weights)]
        return torch.stack(parts, dim=-len(self.range.shape))

    def _adjoint(self, y: Tensor) -> Tensor:
        parts = y.unbind(dim=-len(self.range.shape))
        divergence = _negative_divergence(_weigh(parts[0], self.weights[0]), -self.ndim)
        for axis in range(1, self.ndim):
            part = _weigh(parts[axis], self.weights[axis])
            divergence = divergence + _negative_divergence(part, axis - self.ndim)
        return divergence


def total_variation(x: Tensor, ndim: int = 2, smoothing: float = 1e-4) -> Tensor:
    """Return the isotropic total variation of images, averaged over all pixels and images: a scalar.

    A pixel counts with ``sqrt(Σ|x[i + 1] - x[i]|² + smoothing²) - smoothing``, where the sum runs over the axes and
    over real and imaginary part together, so that the result does not depend on a constant phase.
    Rudin, Osher, Fatemi, doi:10.1016/0167-2789(92)90242-F.

    Parameters
    ----------
    x
        ``(batch..., x, y[, z])``, real or complex.
    ndim
        How many trailing axes to take differences along: 2 for slices, 3 for volumes.
    smoothing
        Difference, in the units of ``x``, below which the penalty is quadratic. It makes the gradient exist where
        the image is constant.

    Raises
    ------
    ShapeError
        When ``x`` has fewer than ``ndim`` axes.
    """
    if not 1 <= ndim <= x.ndim:
        raise ShapeError(f"total variation over {ndim} trailing axes does not fit an image of shape {tuple(x.shape)}")
    energy = sum((_energy(_difference(x, d)) for d in range(-ndim, 0)), start=torch.zeros((), device=x.device))
    return (energy + smoothing**2).sqrt().mean() - smoothing


def _weigh(x: Tensor, weight: float) -> Tensor:
    return x if weight == 1 else weight * x  # one pass over memory less


def _difference(x: Tensor, dim: int) -> Tensor:
    return torch.diff(x, dim=dim, append=x.narrow(dim, x.shape[dim] - 1, 1))


def _negative_divergence(p: Tensor, dim: int) -> Tensor:
    """Apply the adjoint of `_difference`, in which the last entry of the axis has no part."""
    edge = torch.zeros_like(p.narrow(dim, 0, 1))
    return -torch.diff(p.narrow(dim, 0, p.shape[dim] - 1), dim=dim, prepend=edge, append=edge)


def _energy(x: Tensor) -> Tensor:
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()
