"""Minimisers that both a baseline and the input of a fit use: any operator, torch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from operators import FilteredProjector, FiniteDifferences, LinearOperator, StackedProjector, norm_bound

Map = Callable[[Tensor], Tensor]

_NEAR = 16.0
"""The image's width over the standard deviation of what counts as its middle."""


@torch.no_grad()
def total_variation_image(
    A: LinearOperator,
    adjoint_data: Tensor,
    lam: float,
    *,
    weights: Sequence[float] | None = None,
    coupling: float | None = None,
    max_iter: int = 60,
    inner: int = 6,
    tol: float = 1e-3,
) -> tuple[Tensor, list[tuple[int, float]]]:
    """Minimise ``½‖Ax − y‖² / ‖A‖² + λ TV(x)`` for real ``x ≥ 0`` by alternating directions.

    The variation is isotropic. Conjugate gradients find the image, shrinkage its differences (T. Goldstein, S. Osher,
    2009, doi:10.1137/080725891). They are preconditioned in Fourier space: near its middle, an operator of projections
    or of blur does to all places much the same.

    Parameters
    ----------
    A
        Any operator on real images ``(1, x, y[, z])``.
    adjoint_data
        ``Aᴴy``.
    lam
        λ.
    weights
        What differences along each axis count, see `along_axes`; None for 1.
    coupling
        Weight that ties differences and image; it changes the way there and not the result. None for 4 λ: with a
        stronger one the image of few views is still 1 dB away when the rounds are over.
    max_iter, inner
        Rounds at most, and steps of conjugate gradients in each.
    tol
        The iteration has converged when the image changes by less than this fraction in a round.

    Returns
    -------
    image, changes
        The image, and the relative change of each round.
    """
    coupling = 4 * lam if coupling is None else coupling
    norm = norm_bound(A) ** 2
    D = FiniteDifferences(A.domain.shape, len(A.domain.shape) - 1, is_complex=False, weights=weights)
    target = adjoint_data / norm
    x = torch.zeros_like(target)
    split, dual = D(x), torch.zeros_like(D(x))
    positive, dual_positive = x.clone(), torch.zeros_like(x)
    normal_x = x.clone()

    def normal(v: Tensor) -> Tensor:
        return A.N(v) / norm + coupling * (D.N(v) + v)

    near_inverse = _near_inverse(lambda v: A.N(v) / norm, lambda v: coupling * (D.N(v) + v), target)
    changes: list[tuple[int, float]] = []
    for round_ in range(1, max_iter + 1):
        right = target + coupling * (D.adjoint(split - dual) + positive - dual_positive)
        before = x
        x, residual = _descend(normal, right - normal_x, x, inner, near_inverse)
        normal_x = right - residual  # without another product
        moved = D(x) + dual
        split = _shrink(moved, lam / coupling)
        dual = moved - split
        positive = (x + dual_positive).clamp(min=0)
        dual_positive = dual_positive + x - positive
        change = float((x - before).norm() / x.norm().clamp(min=1e-30))
        changes.append((round_, change))
        if change <= tol:
            break
    return positive, changes


def along_axes(A: LinearOperator) -> tuple[float, ...] | None:
    """What differences along each axis of an image count: of slices that lie apart, as gradients by distance do."""
    projector = A.projector if isinstance(A, FilteredProjector) else A
    return (1.0, 1.0, 1 / projector.pitch) if isinstance(projector, StackedProjector) else None


def conjugate_gradients(normal: Map, right: Tensor, x: Tensor, n_iter: int) -> Tensor:
    """Solve ``normal(x) = right`` from a first guess, real or complex, in at most ``n_iter`` steps."""
    return _descend(normal, right - normal(x), x, n_iter, lambda residual: residual)[0]


def _descend(normal: Map, residual: Tensor, x: Tensor, n_iter: int, near_inverse: Map) -> tuple[Tensor, Tensor]:
    """Steps of preconditioned conjugate gradients from a guess with this residual; the image and its residual."""
    direction = better = near_inverse(residual)
    energy = (residual.conj() * better).real.sum()
    for step_ in range(n_iter):
        if float(energy) == 0:
            break
        product = normal(direction)
        step = energy / (direction.conj() * product).real.sum()
        x = x + step * direction
        residual = residual - step * product
        if step_ + 1 == n_iter:
            break
        better = near_inverse(residual)
        previous, energy = energy, (residual.conj() * better).real.sum()
        direction = better + energy / previous * direction
    return x, residual


def _near_inverse(normal: Map, local: Map, like: Tensor) -> Map:
    """Invert what the sum of two maps does to one voxel in the middle, as if it did that to all: ``(1, x, y[, z])``.

    ``local`` has no negative frequency. The answer of ``normal`` is windowed, since far from the middle it depends on
    the place, and its frequencies below zero are taken for none.
    """
    shape = like.shape[1:]
    axes = tuple(range(1, 1 + len(shape)))
    voxel = torch.zeros_like(like)
    voxel[(0, *(n // 2 for n in shape))] = 1

    def spectrum(response: Tensor) -> Tensor:
        return torch.fft.rfftn(torch.fft.ifftshift(response, dim=axes), dim=axes).real

    window = torch.ones((), device=like.device)
    for n in shape:
        distance = (torch.arange(n, device=like.device) - n // 2) / n
        window = window[..., None] * torch.exp(-((_NEAR * distance).square()) / 2)
    inverse = 1 / (spectrum(window * normal(voxel)).clamp(min=0) + spectrum(local(voxel)))
    return lambda v: torch.fft.irfftn(torch.fft.rfftn(v, dim=axes) * inverse, s=shape, dim=axes)


def _shrink(vectors: Tensor, threshold: float) -> Tensor:
    """Shorten the difference vector of each voxel, ``(direction, 1, x, y[, z])``."""
    length = vectors.norm(dim=0, keepdim=True)
    return vectors * (1 - threshold / length.clamp(min=threshold))
