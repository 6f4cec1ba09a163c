"""Classical reconstructions with the same call as a fit, through sigpy's least-squares app.

All iterative ones minimise ``½‖Ax − y‖² + penalty`` on data multiplied by `dipmed.calib.scale.data_scale`, so that one
λ suits every scan. Their iterations are deterministic.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.calib.scale import data_scale
from dipmed.scan import DipmedError, DivergedError, Reconstruction, ShapeError, StopReason
from operators import CartesianMRI, LinearOperator, MRIOperator, norm_bound, to_sigpy

_Array = NDArray[Any]

_DUAL_STEP = 0.1
"""Dual step of the primal-dual iteration. Dual variables are of the size of λ and of the noise, far smaller than the
image, so this comes much closer in 200 iterations than a step of 1 does."""


@dataclass(frozen=True)
class ZeroFilled:
    """The adjoint ``Aᴴy``: samples that were not measured are taken as zero."""

    def __call__(self, y: Tensor, A: MRIOperator) -> Reconstruction:
        start = time.perf_counter()
        _check(y, A)
        image = A.adjoint(y)
        data_scale(image)  # raises when there is nothing in it
        stop = StopReason("direct", 0, "the adjoint needs no iterations")
        return Reconstruction(image, "zero-filled", stop, 0, time.perf_counter() - start)


@dataclass(frozen=True)
class CGSense:
    """Conjugate gradients with the penalty ``½λ‖x‖²`` (Pruessmann et al. 2001, doi:10.1002/mrm.1241).

    Parameters
    ----------
    lam
        λ, for data of unit scale.
    max_iter
        Iterations at most.
    tol
        The iteration has converged when the image changes by less than this fraction.
    name
        That the result carries.
    """

    lam: float = 0.01
    max_iter: int = 100
    tol: float = 1e-4
    name: str = "cg-sense"

    def __call__(self, y: Tensor, A: LinearOperator) -> Reconstruction:
        return _solve(self.name, y, A, self.max_iter, self.tol, lambda _shape: {"lamda": self.lam})


@dataclass(frozen=True)
class L1Wavelet:
    """Accelerated proximal gradients with the penalty ``λ‖Wx‖₁`` (Lustig et al. 2007, doi:10.1002/mrm.21391).

    The wavelet grid is moved by random shifts between iterations (cycle spinning; Figueiredo & Nowak 2003,
    doi:10.1109/TIP.2003.814255), without which block edges show.

    Parameters
    ----------
    lam, max_iter, tol
        As for `CGSense`.
    wavelet
        Name of a wavelet of PyWavelets.
    """

    lam: float = 0.002
    max_iter: int = 100
    tol: float = 1e-4
    wavelet: str = "db4"

    def __call__(self, y: Tensor, A: MRIOperator) -> Reconstruction:
        return _solve("l1-wavelet", y, A, self.max_iter, self.tol, self._penalty(A))

    def _penalty(self, A: MRIOperator) -> Callable[[tuple[int, ...]], dict[str, Any]]:
        def keywords(shape: tuple[int, ...]) -> dict[str, Any]:
            import sigpy as sp

            W = sp.linop.Wavelet(shape, axes=tuple(range(-A.ndim, 0)), wave_name=self.wavelet)
            prox = sp.prox.UnitaryTransform(sp.prox.L1Reg(W.oshape, self.lam), W)
            return {"proxg": _CycleSpinning(prox, A.ndim), "alpha": 1.0}

        return keywords


@dataclass(frozen=True)
class TotalVariation:
    """Primal-dual iterations with the penalty ``λ‖∇x‖₁`` (Block et al. 2007, doi:10.1002/mrm.21236).

    The variation is the anisotropic one of periodic differences along each axis; the algorithm is that of Chambolle &
    Pock 2011, doi:10.1007/s10851-010-0251-1.

    Parameters
    ----------
    lam, max_iter, tol
        As for `CGSense`.
    """

    lam: float = 0.002
    max_iter: int = 200
    tol: float = 1e-4

    def __call__(self, y: Tensor, A: MRIOperator) -> Reconstruction:
        def keywords(shape: tuple[int, ...]) -> dict[str, Any]:
            import sigpy as sp

            G = sp.linop.FiniteDifference(shape, axes=tuple(range(-A.ndim, 0)))
            # the operator's norm is at most 1, that of a difference at most 2, and of all of them squared 4 per axis
            step = {"sigma": _DUAL_STEP, "tau": 1 / (_DUAL_STEP * (1 + 4 * A.ndim))}
            return {"G": G, "proxg": sp.prox.L1Reg(G.oshape, self.lam), **step}

        return _solve("tv", y, A, self.max_iter, self.tol, keywords)


BASELINES: dict[str, Callable[[], Callable[[Tensor, MRIOperator], Reconstruction]]] = {
    "zero-filled": ZeroFilled,
    "cg-sense": CGSense,
    "l1-wavelet": L1Wavelet,
    "tv": TotalVariation,
}
"""The baselines by the names of the command line, each with its default λ."""


class _CycleSpinning:
    """A proximal operator on a grid that is moved by another random shift at each call, the same ones in each run."""

    def __init__(self, prox: Callable[[float, _Array], _Array], ndim: int) -> None:
        self.prox = prox
        self.axes = tuple(range(-ndim, 0))
        self.rng = np.random.default_rng(0)

    def __call__(self, step: float, x: _Array) -> _Array:
        shift = tuple(int(self.rng.integers(n)) for n in x.shape[-len(self.axes) :])
        moved = self.prox(step, np.roll(x, shift, self.axes))
        return np.roll(moved, [-s for s in shift], self.axes)


def _solve(
    method: str,
    y: Tensor,
    A: LinearOperator,
    max_iter: int,
    tol: float,
    keywords: Callable[[tuple[int, ...]], dict[str, Any]],
) -> Reconstruction:
    """Run one of sigpy's solvers until the image hardly changes.

    The operator is divided by a bound of its norm, so that λ and steps suit any maps.

    Raises
    ------
    ShapeError
        When y is not one k-space of A.
    DivergedError
        When the result is not finite or fits the data worse than no image at all.
    """
    import sigpy.app

    start = time.perf_counter()
    _check(y, A)
    norm = _norm_bound(A)
    scale = norm * data_scale(A.adjoint(y))
    data = (y * scale).detach().cpu().numpy()
    app = sigpy.app.LinearLeastSquares(
        to_sigpy(A * (1 / norm)), data, max_iter=max_iter, show_pbar=False, **keywords(A.domain.shape)
    )
    iteration, change = 0, np.inf
    changes = []
    while not app.alg.done() and change > tol:
        before = app.x.copy()
        app.alg.update()
        iteration += 1
        change = float(np.linalg.norm(app.x - before) / max(np.linalg.norm(app.x), np.finfo(np.float32).tiny))
        changes.append((iteration, change))
    image = torch.from_numpy(app.x / (norm * scale)).to(y)
    _check_result(image, y, A, method)
    if change <= tol:
        stop = StopReason("converged", iteration, f"the image changed by less than {tol:g} of itself")
    else:
        stop = StopReason("budget", iteration, f"{iteration} iterations were run; the last change was {change:.1e}")
    return Reconstruction(
        image, method, stop, iteration, time.perf_counter() - start, curves={"change": changes}, scale=scale
    )


def _norm_bound(A: LinearOperator) -> float:
    """A bound of the operator's norm that is close; on a Cartesian grid it is 1 for normalised maps."""
    if isinstance(A, CartesianMRI) and A.domain.shape[0] == 1:
        return float(A.maps.abs().square().sum(dim=0).max()) ** 0.5
    return norm_bound(A)


def _check(y: Tensor, A: LinearOperator) -> None:
    if tuple(y.shape) != A.range.shape:
        raise ShapeError(f"the data must be one element of the operator's range {A.range.shape}, got {tuple(y.shape)}")
    if not bool(torch.isfinite(y).all()):
        raise DipmedError("the data hold values that are not finite")


def _check_result(image: Tensor, y: Tensor, A: LinearOperator, method: str) -> None:
    measured = y * A.mask if isinstance(A, MRIOperator) else y
    residual = torch.linalg.vector_norm(A(image) - measured)
    # written so that NaN fails as well
    if not bool(residual <= torch.linalg.vector_norm(y)):
        raise DivergedError(
            f"{method} diverged: its image fits the data worse than no image at all; "
            "check that the sensitivity maps belong to these data"
        )
