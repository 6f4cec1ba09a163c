"""What a fit without noise ends at: which part of the image the data fix, and which part the kernel predicts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dipmed.scan import DipmedError
from dipmed.theory.spectrum import TOLERANCE, Spectrum


@dataclass(frozen=True)
class RecoveryReport:
    """How far the limit of an endless fit of noiseless data is from the truth, relative to ``d = x − x₀``.

    Parameters
    ----------
    rank
        Modes that can be learnt.
    limit
        The image in the limit, ``(1, x, y[, z])``.
    limit_error
        ``‖x_∞ − x‖ / ‖d‖``.
    distance_to_range
        Distance of d from the images that any data can lead to, the range of ``K Aᵀ``, relative to ‖d‖. Recovery is
        exact where this is zero.
    null_space_share
        Part of ‖d‖ that the operator does not see.
    row_space_error, null_space_error
        Error of the limit in what the operator sees, and in what it does not see, relative to ‖d‖. The first is zero
        where all modes can be learnt.
    """

    rank: int
    limit: Tensor
    limit_error: float
    distance_to_range: float
    null_space_share: float
    row_space_error: float
    null_space_error: float

    @property
    def null_space_predicted(self) -> float:
        """Share of the squared unseen part that the kernel predicts from the seen one; below 0 it does harm."""
        return 1 - (self.null_space_error / self.null_space_share) ** 2 if self.null_space_share else 1.0


def limit_projection(spectrum: Spectrum, images: Tensor, *, tolerance: float = TOLERANCE) -> Tensor:
    """Apply ``Q = K Aᵀ (A K Aᵀ)⁺ A``, the oblique projector onto the range of ``K Aᵀ`` along the null space of A.

    An endless fit of the noiseless data of ``x₀ + d`` ends at ``x₀ + Q d``.

    Parameters
    ----------
    spectrum
        With all modes.
    images
        ``(batch..., *domain)``.
    tolerance
        Modes whose eigenvalue is a smaller share of the largest count as not learnable.

    Raises
    ------
    ShapeError
        When the images are not of the operator's domain.
    DipmedError
        When some modes are missing.
    """
    if not spectrum.is_complete:
        raise DipmedError(
            f"the limit of a fit needs all {spectrum.model.stacked.m} modes, there are {len(spectrum.eigenvalues)}; "
            "use dense_spectrum"
        )
    stacked = spectrum.model.stacked
    vectors = stacked.vector(images)
    projected = _project(spectrum, vectors.reshape(-1, stacked.n), tolerance)
    return stacked.image(projected.reshape(vectors.shape))


def exact_recovery(spectrum: Spectrum, truth: Tensor, *, tolerance: float = TOLERANCE) -> RecoveryReport:
    """Report what an endless fit of the noiseless data of ``truth`` recovers. Simulations only.

    Parameters
    ----------
    spectrum
        With all modes.
    truth
        The image, one element of the operator's domain.
    tolerance
        As for `limit_projection`. Singular values of A count when their squares are above it.

    Raises
    ------
    ShapeError
        When ``truth`` is not of the operator's domain.
    DipmedError
        When some modes are missing, or the network gives the truth before any fit.
    """
    model = spectrum.model
    sought = model.stacked.vector(truth) - model.start
    size = float(sought.norm())
    if not size:
        raise DipmedError("the network gives the truth before any fit: there is nothing to recover")
    limit = model.stacked.vector(limit_projection(spectrum, model.stacked.image(sought), tolerance=tolerance))
    error = sought - limit
    useful = spectrum.useful(tolerance)
    # of unit length in data, so that slow modes are not lost beside fast ones
    reachable = _basis(spectrum.responses[:, useful] / spectrum.eigenvalues[useful].sqrt(), tolerance)
    identity = torch.eye(model.stacked.n, dtype=sought.dtype, device=sought.device)
    seen = _basis(model.stacked.forward(identity), tolerance)

    def outside(basis: Tensor, vector: Tensor) -> Tensor:
        return vector - basis @ (basis.T @ vector)

    unseen_error = outside(seen, error)
    return RecoveryReport(
        rank=int(useful.sum()),
        limit=model.stacked.image(model.start + limit),
        limit_error=float(error.norm()) / size,
        distance_to_range=float(outside(reachable, sought).norm()) / size,
        null_space_share=float(outside(seen, sought).norm()) / size,
        row_space_error=float((error - unseen_error).norm()) / size,
        null_space_error=float(unseen_error.norm()) / size,
    )


def _project(spectrum: Spectrum, vectors: Tensor, tolerance: float) -> Tensor:
    useful = spectrum.useful(tolerance)
    coefficients = spectrum.model.stacked.forward(vectors) @ spectrum.modes[:, useful]
    return (coefficients / spectrum.eigenvalues[useful]) @ spectrum.responses[:, useful].T


def _basis(matrix: Tensor, tolerance: float) -> Tensor:
    """Orthonormal basis of the range of ``(n, k)``, by singular values whose squares count."""
    left, values, _ = torch.linalg.svd(matrix, full_matrices=False)
    return left[:, values.square() > tolerance * values[0].square()]
