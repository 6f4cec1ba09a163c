"""Minimisers that both a baseline and the input of a fit use: any operator, torch alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from operators import FiniteDifferences, LinearOperator, norm_bound


@torch.no_grad()
def total_variation_image(
    A: LinearOperator,
    adjoint_data: Tensor,
    lam: float,
    *,
    coupling: float,
    max_iter: int,
    inner: int,
    tol: float = 1e-3,
) -> tuple[Tensor, list[tuple[int, float]]]:
    """Minimise ``½‖Ax − y‖² / ‖A‖² + λ TV(x)`` for real ``x ≥ 0`` by alternating directions.

    The variation is isotropic. Conjugate gradients find the image, shrinkage its differences (T. Goldstein, S. Osher,
    2009, doi:10.1137/080725891).

    Parameters
    ----------
    A
        Any operator on real images ``(1, x, y[, z])``.
    adjoint_data
        ``Aᴴy``.
    lam
        λ.
    coupling
        Weight that ties differences and image; it changes the way there and not the result.
    max_iter, inner
        Rounds at most, and steps of conjugate gradients in each.
    tol
        The iteration has converged when the image changes by less than this fraction in a round.

    Returns
    -------
    image, changes
        The image, and the relative change of each round.
    """
    norm = norm_bound(A) ** 2
    D = FiniteDifferences(A.domain.shape, len(A.domain.shape) - 1, is_complex=False)
    target = adjoint_data / norm
    x = torch.zeros_like(target)
    split, dual = D(x), torch.zeros_like(D(x))
    positive, dual_positive = x.clone(), torch.zeros_like(x)

    def normal(v: Tensor) -> Tensor:
        return A.N(v) / norm + coupling * (D.N(v) + v)

    changes: list[tuple[int, float]] = []
    for round_ in range(1, max_iter + 1):
        right = target + coupling * (D.adjoint(split - dual) + positive - dual_positive)
        before = x
        x = conjugate_gradients(normal, right, x, inner)
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


def conjugate_gradients(normal: Callable[[Tensor], Tensor], right: Tensor, x: Tensor, n_iter: int) -> Tensor:
    """Solve ``normal(x) = right`` from a first guess, real or complex, in at most ``n_iter`` steps."""
    residual = right - normal(x)
    direction, energy = residual, residual.abs().square().sum()
    for _ in range(n_iter):
        if float(energy) == 0:
            break
        product = normal(direction)
        step = energy / (direction.conj() * product).real.sum()
        x = x + step * direction
        residual = residual - step * product
        previous, energy = energy, residual.abs().square().sum()
        direction = residual + energy / previous * direction
    return x


def _shrink(vectors: Tensor, threshold: float) -> Tensor:
    """Shorten the difference vector of each voxel, ``(direction, 1, x, y[, z])``."""
    length = vectors.norm(dim=0, keepdim=True)
    return vectors * (1 - threshold / length.clamp(min=threshold))
