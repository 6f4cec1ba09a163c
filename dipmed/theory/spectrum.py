"""The spectrum of ``A K Aᵀ``: in which directions of the data a fit learns, how fast, and what image it makes there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dipmed.scan import DipmedError
from dipmed.theory.tangent import TangentModel

DENSE_FLOATS = 2**28
"""Numbers of 8 bytes that a dense spectrum may take by default: 2 GiB."""

TOLERANCE = 1e-12
"""Eigenvalues below this share of the largest are rounding errors."""


@dataclass(frozen=True)
class Spectrum:
    """Modes of ``A K Aᵀ = V Λ Vᵀ``, the fastest first.

    Parameters
    ----------
    model
        Network and operator.
    eigenvalues
        The diagonal of Λ, ``(mode,)``.
    modes
        V, orthonormal columns, ``(m, mode)``.
    responses
        ``K Aᵀ V``, the image that learning a mode makes, times its eigenvalue, ``(n, mode)``.
    residuals
        ``‖A K Aᵀ v − λ v‖`` of each mode: an exact eigenvalue lies at most that far from λ.
    """

    model: TangentModel
    eigenvalues: Tensor
    modes: Tensor
    responses: Tensor
    residuals: Tensor

    @property
    def is_complete(self) -> bool:
        """Whether these are all modes."""
        return len(self.eigenvalues) == self.model.stacked.m

    @property
    def rate(self) -> float:
        """The step with which gradient descent learns the fastest mode at once; twice as much diverges."""
        return 1 / float(self.eigenvalues[0])

    def useful(self, tolerance: float = TOLERANCE) -> Tensor:
        """Tell which modes have an eigenvalue above ``tolerance`` times the largest, ``(mode,)``."""
        return self.eigenvalues > tolerance * self.eigenvalues[0]


def dense_spectrum(model: TangentModel, *, max_floats: int = DENSE_FLOATS) -> Spectrum:
    """Compute all modes, by as many products with the kernel as there are data or pixels, whichever are fewer.

    Parameters
    ----------
    model
        Network and operator.
    max_floats
        Most double-precision numbers to store.

    Raises
    ------
    DipmedError
        When the matrices would be larger, or the weights do not move the data.
    """
    n, m = model.stacked.n, model.stacked.m
    needed = 2 * n * m + 3 * m * m + min(n, m) * n
    if needed > max_floats:
        raise DipmedError(
            f"a dense spectrum of {m} data and {n} pixel values needs {needed:.2g} floats ({needed * 8 / 2**30:.1f} "
            f"GiB), and {max_floats:.2g} are allowed; use leading_spectrum, which stores a few modes, "
            "or raise max_floats"
        )
    options = {"dtype": model.start.dtype, "device": model.start.device}
    if m <= n:
        responses = model.through_kernel(torch.eye(m, **options))
    else:
        # K is symmetric, so that A applied to its rows is the transpose of K Aᵀ
        responses = model.stacked.forward(model.kernel(torch.eye(n, **options))).T
    gram = model.stacked.forward(responses)
    eigenvalues, modes = torch.linalg.eigh((gram + gram.T) / 2)
    return _descending(model, eigenvalues, modes, responses.T @ modes, gram @ modes)


def leading_spectrum(
    model: TangentModel, n_modes: int, *, oversampling: int = 10, sweeps: int = 4, generator: torch.Generator
) -> Spectrum:
    """Compute the fastest modes from products with ``A K Aᵀ`` alone, by randomised subspace iteration.

    ``(sweeps + 1) (n_modes + oversampling)`` products are taken, each as dear as about three steps of a fit.

    Parameters
    ----------
    model
        Network and operator.
    n_modes
        How many.
    oversampling
        Further vectors that are iterated, and dropped at the end.
    sweeps
        Products before the last; each makes what is missed of a mode smaller by the ratio of the first eigenvalue
        left out to that of the mode.
    generator
        Source of the first subspace.

    Raises
    ------
    DipmedError
        When more modes are asked for than there are data, or the weights do not move the data.

    References
    ----------
    N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53:217 (2011), doi:10.1137/090771806.
    """
    m = model.stacked.m
    if not 1 <= n_modes <= m:
        raise DipmedError(f"there are {m} modes, as many as data; asked for {n_modes}")
    width = min(m, n_modes + oversampling)
    basis = torch.randn((m, width), dtype=model.start.dtype, generator=generator, device=generator.device)
    basis = basis.to(model.start.device)
    for _ in range(sweeps):
        basis = torch.linalg.qr(basis)[0]
        basis = model.stacked.forward(model.through_kernel(basis.T)).T
    basis = torch.linalg.qr(basis)[0]
    responses = model.through_kernel(basis.T)
    product = model.stacked.forward(responses).T
    small = basis.T @ product
    eigenvalues, rotation = torch.linalg.eigh((small + small.T) / 2)
    eigenvalues, rotation = eigenvalues[-n_modes:], rotation[:, -n_modes:]
    return _descending(model, eigenvalues, basis @ rotation, responses.T @ rotation, product @ rotation)


def _descending(
    model: TangentModel, eigenvalues: Tensor, modes: Tensor, responses: Tensor, products: Tensor
) -> Spectrum:
    """Turn ascending modes round; ``products`` are ``A K Aᵀ`` times the modes."""
    if float(eigenvalues[-1]) <= 0:
        raise DipmedError("no weight of the network moves the measured data: there is nothing to learn")
    residuals = torch.linalg.vector_norm(products - modes * eigenvalues, dim=0)
    # rounding leaves tiny negative numbers where the kernel has no more rank
    return Spectrum(model, eigenvalues.flip(0).clamp(min=0), modes.flip(1), responses.flip(1), residuals.flip(0))
