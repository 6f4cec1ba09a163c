"""Multi-coil MRI along any trajectory, with a normal operator that needs no non-uniform transform."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.cartesian import CartesianMRI
from operators.coils import check_maps, combine_coils, n_map_sets, spread_coils
from operators.errors import DipmedError, ShapeError
from operators.nufft import NonUniformFourier, check_trajectory


class NonCartesianMRI(LinearOperator):
    """Multi-coil MRI along a trajectory: an image ``(1, x, y[, z])`` becomes samples ``(coil, sample)``.

    ``A = √w · F · maps`` with the transform of `NonUniformFourier`. With weights, the data have to be multiplied by
    the same ``√w``, see `weigh`: then ``Aᴴy`` is a density-compensated image, and least squares converge faster.

    Parameters
    ----------
    maps
        Sensitivity maps, complex ``(coil, x, y[, z])``, or several sets of them ``(set, coil, x, y[, z])``, see
        `CartesianMRI`. Kept as the buffer ``maps``.
    trajectory
        Positions in cycles per field of view, real ``(sample, dimension)``. Kept as the buffer ``trajectory``.
    weights
        Weight of each sample in least squares, real and not negative ``(sample,)``; a sample of weight 0 is not seen.
        Kept as the buffer ``weights``. By default 1.
    backend
        Of the non-uniform transform, see `NonUniformFourier`.

    Raises
    ------
    ShapeError
        When the arrays are not of these kinds or do not fit each other.
    DipmedError
        When positions or weights are out of range, or the backend is not installed.

    Notes
    -----
    ``A.N`` multiplies by the spectrum of the point spread function on a doubled grid (C. A. Baron et al., 2018,
    doi:10.1002/mrm.26928; J. A. Fessler et al., 2005, doi:10.1109/TSP.2005.853152): two plain transforms a coil, on any
    device. It is the exact normal matrix up to the error of the one non-uniform transform that makes the spectrum, and
    differs from ``AᴴA`` by the errors of the two that these take: 1e-5, relatively, in single precision.
    """

    traceable = False
    maps: Tensor
    weights: Tensor
    _root: Tensor
    _spectrum: Tensor

    def __init__(
        self,
        maps: Tensor,
        trajectory: Tensor,
        weights: Tensor | None = None,
        backend: str | None = None,
    ) -> None:
        ndim = trajectory.shape[-1] if trajectory.ndim == 2 else None
        check_maps(maps, ndim)
        matrix = tuple(maps.shape[2:] if maps.ndim - 2 == ndim else maps.shape[1:])
        check_trajectory(trajectory, matrix)
        weights = torch.ones(len(trajectory)) if weights is None else weights.detach()
        _check_weights(weights, len(trajectory))
        coils = tuple(maps.shape[-len(matrix) - 1 :])
        super().__init__(Space((n_map_sets(maps, len(matrix)), *matrix)), Space((coils[0], len(trajectory))))
        self.transform = NonUniformFourier(coils, trajectory.to(maps.device), backend)
        self.register_buffer("maps", maps.detach())
        self.register_buffer("weights", weights.to(maps.device))
        self._prepare()
        # after the state of the transform, a part of this module, has been loaded too
        self.register_load_state_dict_post_hook(_prepare_again)  # type: ignore[no-untyped-call]  # torch's own

    def _prepare(self) -> None:
        """Derive from weights and trajectory what the passes need; called again when a state is loaded."""
        self.register_buffer("_root", self.weights.sqrt(), persistent=False)
        self.register_buffer("_spectrum", _toeplitz_spectrum(self.transform, self.weights), persistent=False)

    @property
    def trajectory(self) -> Tensor:
        """Positions in cycles per field of view, ``(sample, dimension)``."""
        return self.transform.trajectory

    @property
    def ndim(self) -> int:
        """Number of dimensions of the image."""
        return len(self.domain.shape) - 1

    @property
    def mask(self) -> Tensor:
        """Which samples are seen, bool ``(sample,)``."""
        return self.weights > 0

    @property
    def positions(self) -> tuple[Tensor, ...]:
        """Positions of the samples along each dimension in cycles per field of view, each ``(sample,)``."""
        return self.trajectory.unbind(-1)

    def with_mask(self, mask: Tensor) -> NonCartesianMRI:
        """Return the operator that sees only the samples of a ``mask``, bool ``(sample,)``."""
        return self.with_weights(self.weights * mask)

    def with_weights(self, weights: Tensor) -> NonCartesianMRI:
        """Return the operator of the same maps and trajectory with other ``weights``, ``(sample,)``."""
        return NonCartesianMRI(self.maps, self.trajectory, weights, self.transform.backend)

    def weigh(self, samples: Tensor) -> Tensor:
        """Multiply measured samples ``(batch..., coil, sample)`` by ``√w``, as this operator's range has them."""
        return samples * self._root

    def _forward(self, x: Tensor) -> Tensor:
        return self.transform._forward(spread_coils(x, self.maps.to(x.dtype), self.ndim)) * self._real(self._root, x)

    def _adjoint(self, y: Tensor) -> Tensor:
        images = self.transform._adjoint(y * self._real(self._root, y))
        return combine_coils(images.conj_physical(), self.maps.to(y.dtype), self.ndim).conj_physical()

    def _normal(self, x: Tensor) -> Tensor:
        maps = self.maps.to(x.dtype)
        matrix = self.domain.shape[1:]
        dim = tuple(range(-len(matrix), 0))
        spectrum = torch.fft.fftn(spread_coils(x, maps, self.ndim), s=[2 * n for n in matrix], dim=dim)
        images = torch.fft.ifftn(spectrum.mul_(self._real(self._spectrum, x)), dim=dim)
        images = images[(..., *(slice(0, n) for n in matrix))]
        return combine_coils(images.conj_physical(), maps, self.ndim).conj_physical()

    def _real(self, factor: Tensor, x: Tensor) -> Tensor:
        return factor.to(torch.float64 if x.dtype == torch.complex128 else torch.float32)


def _prepare_again(operator: NonCartesianMRI, _incompatible_keys: Any) -> None:
    operator._prepare()


MRIOperator = CartesianMRI | NonCartesianMRI
"""What a reconstruction of k-space gets as its operator: both have maps, a mask and positions."""


def _check_weights(weights: Tensor, n_samples: int) -> None:
    if weights.shape != (n_samples,) or weights.is_complex():
        raise ShapeError(f"weights must be real, one for each of {n_samples} samples, got {tuple(weights.shape)}")
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise DipmedError("weights must be finite and not negative")


def _toeplitz_spectrum(transform: NonUniformFourier, weights: Tensor) -> Tensor:
    """Spectrum of the point spread function between all pairs of voxels, real, on the doubled grid ``(2x, 2y[, 2z])``.

    In double precision, because it is made once and used in every iteration.
    """
    matrix = transform.matrix
    doubled = tuple(2 * n for n in matrix)
    # a position in cycles per field of view is twice that in cycles per doubled field of view
    spread = NonUniformFourier((1, *doubled), 2 * transform.trajectory.double(), transform.backend)
    psf = spread._adjoint(weights.to(torch.complex128)[None])[0] * math.sqrt(2 ** len(matrix) / math.prod(matrix))
    # the real part of the spectrum alone: the rest comes from the one distance that no two voxels have
    return torch.fft.fftn(torch.fft.ifftshift(psf)).real
