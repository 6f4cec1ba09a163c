"""Figures that say whether an operator is right: used by the tests and by `dipmed doctor`.

Each check returns a relative error, near the rounding error of the precision for a right operator and near 1 for a
wrong one.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from operators.base import LinearOperator


def dot_test(
    op: LinearOperator,
    generator: torch.Generator | None = None,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype | None = None,
) -> float:
    """Compare ``⟨Ax, y⟩`` with ``⟨x, Aᴴy⟩`` for random x and y.

    The difference is taken relative to the size that these inner products have for random vectors,
    ``|Ax| |y| / sqrt(size)``, and not relative to ``|Ax| |y|``, which would hide errors behind the size of the array.

    Parameters
    ----------
    op
        Any operator.
    generator
        Source of the random vectors.
    batch
        Batch axes in front of them.
    dtype
        Precision, single by default.
    """
    x, y = _draw(op, generator, batch, dtype)
    with torch.no_grad():
        forward, adjoint = op(x), op.adjoint(y)
    left, right = _inner(forward, y), _inner(x, adjoint)
    expected = max(
        _norm(forward) * _norm(y) / math.sqrt(y.numel()),
        _norm(x) * _norm(adjoint) / math.sqrt(x.numel()),
    )
    return _ratio(abs(left - right), max(abs(left), abs(right), expected))


def normal_test(
    op: LinearOperator,
    generator: torch.Generator | None = None,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype | None = None,
) -> float:
    """Compare ``op.N(x)`` with ``op.H(op(x))``; parameters as for `dot_test`."""
    x, _ = _draw(op, generator, batch, dtype)
    with torch.no_grad():
        return _difference(op.N(x), op.adjoint(op(x)))


def gradient_test(
    op: LinearOperator,
    generator: torch.Generator | None = None,
    batch: tuple[int, ...] = (),
    dtype: torch.dtype | None = None,
) -> float:
    """Compare gradients from autograd with the adjoint's; parameters as for `dot_test`.

    The gradient of ``|Ax - y|² / 2`` must be ``Aᴴ(Ax - y)`` and that of ``|Aᴴy - x|² / 2`` must be ``A(Aᴴy - x)``. The
    larger error of the two counts.
    """
    x, y = _draw(op, generator, batch, dtype)
    x.requires_grad_()
    y.requires_grad_()
    residual = op(x) - y.detach()
    (gradient_x,) = torch.autograd.grad(residual.abs().square().sum() / 2, x)
    mismatch = op.adjoint(y) - x.detach()
    (gradient_y,) = torch.autograd.grad(mismatch.abs().square().sum() / 2, y)
    with torch.no_grad():
        return max(_difference(gradient_x, op.adjoint(residual)), _difference(gradient_y, op(mismatch)))


def batch_test(
    op: LinearOperator,
    generator: torch.Generator | None = None,
    batch: tuple[int, ...] = (2, 3),
    dtype: torch.dtype | None = None,
) -> float:
    """Compare one call on a batch with a loop over its elements, forward and adjoint; parameters as for `dot_test`."""
    x, y = _draw(op, generator, batch, dtype)
    with torch.no_grad():
        forward, adjoint = op(x), op.adjoint(y)
        loop_forward, loop_adjoint = torch.empty_like(forward), torch.empty_like(adjoint)
        for index in itertools.product(*map(range, batch)):
            loop_forward[index] = op(x[index])
            loop_adjoint[index] = op.adjoint(y[index])
    return max(_difference(forward, loop_forward), _difference(adjoint, loop_adjoint))


def norm_bound(op: LinearOperator, n_iter: int = 10, margin: float = 1.05) -> float:
    """Return what an operator is divided by to have a norm of at most 1, near 1; the same in each run.

    The power iteration of `operator_norm` comes from below, by less than ``margin`` after ``n_iter`` iterations where
    the largest singular values lie close together, as they do for well-weighted data.
    """
    return margin * operator_norm(op, n_iter, torch.Generator().manual_seed(0))


def operator_norm(
    op: LinearOperator,
    n_iter: int = 50,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
) -> float:
    """Estimate the largest singular value from below by power iteration on ``AᴴA``.

    Parameters
    ----------
    op
        Any operator.
    n_iter
        Number of iterations.
    generator
        Source of the start vector.
    dtype
        Precision, single by default.
    """
    x = op.domain.randn(dtype=dtype, device=op.device, generator=generator)
    eigenvalue = 0.0
    with torch.no_grad():
        for _ in range(n_iter):
            norm = _norm(x)
            if norm == 0:
                return 0.0
            x = op.N(x / norm)
            eigenvalue = _norm(x)
    return math.sqrt(eigenvalue)


def _draw(
    op: LinearOperator, generator: torch.Generator | None, batch: tuple[int, ...], dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    double = dtype in (torch.float64, torch.complex128)

    def draw(is_domain: bool) -> Tensor:
        space = op.domain if is_domain else op.range
        kinds = (torch.complex64, torch.complex128) if space.is_complex else (torch.float32, torch.float64)
        return space.randn(batch, dtype=kinds[double], device=op.device, generator=generator)

    return draw(True), draw(False)


def _wide(x: Tensor) -> Tensor:
    """Double precision, so that the sums of the check add no rounding error of their own."""
    return x.detach().to(torch.complex128).flatten()


def _inner(a: Tensor, b: Tensor) -> complex:
    return complex(torch.vdot(_wide(a), _wide(b)).item())


def _norm(x: Tensor) -> float:
    return torch.linalg.vector_norm(_wide(x)).item()


def _difference(a: Tensor, b: Tensor) -> float:
    return _ratio(_norm(_wide(a) - _wide(b)), max(_norm(a), _norm(b)))


def _ratio(difference: float, size: float) -> float:
    return 0.0 if difference == 0 else difference / size if size > 0 else math.inf
