"""Blur and thick slices: a small matrix along each axis of an image, with physical widths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import DipmedError, ShapeError

Boundary = Literal["reflect", "zero"]
Profile = Literal["rectangular", "gaussian"]
Array = NDArray[np.float64]

_WIDTHS_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""Full width at half maximum of a Gaussian, in standard deviations."""

_REACH = 4.0
"""Standard deviations to which a Gaussian kernel goes; beyond lie 6e-5 of it."""


class Separable(LinearOperator):
    """A real matrix along each axis of an image: ``(1, x, y[, z])`` to ``(1, x', y'[, z'])``.

    Parameters
    ----------
    shape
        ``(1, x, y[, z])``.
    matrices
        For each of x, y[, z] a real ``(size after, size before)``, or None to leave the axis as it is. Kept as the
        buffers ``matrix_0``, ``matrix_1``, ...
    is_complex
        Whether images are complex.

    Raises
    ------
    ShapeError
        When the matrices do not fit the image.
    """

    def __init__(self, shape: tuple[int, ...], matrices: Sequence[Tensor | None], *, is_complex: bool = False) -> None:
        n_axes = len(shape) - 1
        if n_axes not in (2, 3) or shape[0] != 1 or len(matrices) != n_axes:
            raise ShapeError(f"{len(matrices)} matrices need an image (1, x, y[, z]) of as many axes, got {shape}")
        after = [1]
        for matrix, size in zip(matrices, shape[1:], strict=True):
            if matrix is not None and (matrix.ndim != 2 or matrix.shape[1] != size or matrix.is_complex()):
                raise ShapeError(f"the matrix of an axis of {size} voxels must be real (n, {size}), got {matrix.shape}")
            after.append(size if matrix is None else matrix.shape[0])
        super().__init__(Space(tuple(shape), is_complex), Space(tuple(after), is_complex))
        for axis, matrix in enumerate(matrices):
            self.register_buffer(f"matrix_{axis}", None if matrix is None else matrix.detach())

    @property
    def matrices(self) -> tuple[Tensor | None, ...]:
        """The matrix of each axis."""
        return tuple(getattr(self, f"matrix_{axis}") for axis in range(len(self.domain.shape) - 1))

    def _forward(self, x: Tensor) -> Tensor:
        for axis, matrix in enumerate(self.matrices, start=1 - len(self.domain.shape)):
            if matrix is not None:
                x = (x.movedim(axis, -1) @ matrix.to(x.dtype).T).movedim(-1, axis)
        return x.contiguous()

    def _adjoint(self, y: Tensor) -> Tensor:
        for axis, matrix in enumerate(self.matrices, start=1 - len(self.domain.shape)):
            if matrix is not None:
                y = (y.movedim(axis, -1) @ matrix.to(y.dtype)).movedim(-1, axis)
        return y.contiguous()


class Blur(Separable):
    """Convolve an image ``(1, x, y[, z])`` with one kernel along each axis.

    Parameters
    ----------
    shape
        ``(1, x, y[, z])``.
    kernels
        For each of x, y[, z] real ``(odd length,)``, its middle being no shift; or None for none.
    boundary
        What lies beyond the image: its mirror image (``"reflect"``, by half a voxel, so that a constant image stays as
        it is) or nothing (``"zero"``).
    is_complex
        Whether images are complex.

    Raises
    ------
    ShapeError
        When a kernel has no middle, or they do not fit the image.
    DipmedError
        When the boundary is unknown.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        kernels: Sequence[Tensor | None],
        boundary: Boundary = "reflect",
        *,
        is_complex: bool = False,
    ) -> None:
        if boundary not in ("reflect", "zero"):
            raise DipmedError(f"the boundary is reflect or zero, got {boundary!r}")
        if len(kernels) != len(shape) - 1:
            raise ShapeError(f"an image {tuple(shape)} needs {len(shape) - 1} kernels, got {len(kernels)}")
        matrices = [
            None if kernel is None else _convolution(kernel, size, boundary)
            for kernel, size in zip(kernels, shape[1:], strict=True)
        ]
        super().__init__(shape, matrices, is_complex=is_complex)

    @classmethod
    def gaussian(
        cls,
        shape: tuple[int, ...],
        fwhm_mm: Sequence[float],
        spacing_mm: Sequence[float],
        boundary: Boundary = "reflect",
        *,
        is_complex: bool = False,
    ) -> Blur:
        """Return the blur by a Gaussian, averaged over each voxel.

        Parameters
        ----------
        shape
            ``(1, x, y[, z])``.
        fwhm_mm
            Full width at half maximum along each axis; 0 for none.
        spacing_mm
            Voxel size along each axis.
        boundary, is_complex
            As for the class.

        Raises
        ------
        DipmedError
            When a width is negative or a voxel size is not positive.
        """
        kernels: list[Tensor | None] = []
        for fwhm, spacing in zip(fwhm_mm, spacing_mm, strict=True):
            sigma = _positive(fwhm, "the width of a Gaussian", allow_zero=True) / _WIDTHS_PER_SIGMA
            sigma /= _positive(spacing, "a voxel size")
            kernels.append(_gaussian_kernel(sigma) if sigma > 0 else None)
        return cls(shape, kernels, boundary, is_complex=is_complex)


class SliceProfile(Separable):
    """Thick slices of a volume: what a scan with fewer slices sees of ``(1, x, y[, z])``. For through-plane resolution.

    Slice j is centred at the index ``offset + factor · j`` of the volume, where ``offset`` is ``(factor − 1) / 2``: the
    first slice begins where the first voxel does. It is a mean over the profile, as far as that lies in the volume.

    Parameters
    ----------
    shape
        ``(1, x, y[, z])``.
    factor
        Distance between slices in voxels of the volume, 1 or more, whole or not.
    spacing_mm
        Voxel size of the volume along the axis.
    thickness_mm
        Width of the profile; by default the distance between slices. More makes slices overlap, less leaves gaps.
    profile
        ``"rectangular"``, or ``"gaussian"``, whose full width at half maximum is the thickness.
    axis
        Along which slices are taken: 0, 1 or 2 for x, y or z; by default the last.
    is_complex
        Whether images are complex.

    Raises
    ------
    ShapeError
        When the image or the axis is another, or has too few voxels.
    DipmedError
        When a size is not positive or the profile is unknown.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        factor: float,
        spacing_mm: float = 1.0,
        thickness_mm: float | None = None,
        profile: Profile = "rectangular",
        *,
        axis: int | None = None,
        is_complex: bool = False,
    ) -> None:
        n_axes = len(shape) - 1
        axis = n_axes - 1 if axis is None else axis
        if not 0 <= axis < n_axes:
            raise ShapeError(f"slices are along axis 0 to {n_axes - 1} of an image {tuple(shape)}, got {axis}")
        if not (math.isfinite(factor) and 1 <= factor <= shape[axis + 1]):
            raise ShapeError(f"slices lie 1 to {shape[axis + 1]} voxels apart in {tuple(shape)}, got {factor}")
        spacing = _positive(spacing_mm, "a voxel size")
        thickness = factor if thickness_mm is None else _positive(thickness_mm, "the thickness of a slice") / spacing
        if profile not in ("rectangular", "gaussian"):
            raise DipmedError(f"the profile is rectangular or gaussian, got {profile!r}")
        matrices: list[Tensor | None] = [None] * n_axes
        offset = (factor - 1) / 2
        matrices[axis] = _slices(shape[axis + 1], factor, offset, thickness, profile)
        super().__init__(shape, matrices, is_complex=is_complex)
        self.axis, self.factor, self.offset = axis, float(factor), offset

    def coarse_affine(self, affine: Array) -> Array:
        """Return the affine of the slices, 4x4, from that of the volume: index of a voxel to any coordinates."""
        coarse = affine.copy()
        coarse[:3, self.axis] *= self.factor
        coarse[:3, 3] += self.offset * affine[:3, self.axis]
        return coarse

    def fine_affine(self, affine: Array) -> Array:
        """Return the affine of the volume, 4x4, from that of the slices."""
        fine = affine.copy()
        fine[:3, self.axis] /= self.factor
        fine[:3, 3] -= self.offset * fine[:3, self.axis]
        return fine


def _convolution(kernel: Tensor, size: int, boundary: str) -> Tensor:
    """Return the matrix of a convolution, ``(size, size)``."""
    if kernel.ndim != 1 or len(kernel) % 2 == 0 or kernel.is_complex():
        raise ShapeError(f"a kernel must be real and of odd length, got {kernel.dtype} {tuple(kernel.shape)}")
    matrix = torch.zeros((size, size), dtype=torch.float64)
    rows = torch.arange(size)
    for shift, weight in enumerate(kernel.double().tolist(), start=-(len(kernel) // 2)):
        source = rows - shift
        if boundary == "reflect":
            source = source % (2 * size)
            source = torch.minimum(source, 2 * size - 1 - source)
        inside = (source >= 0) & (source < size)
        matrix[rows[inside], source[inside]] += weight
    return matrix


def _gaussian_kernel(sigma: float) -> Tensor:
    """Return the share of a Gaussian that falls into each voxel, standard deviation in voxels; its sum is 1."""
    reach = math.ceil(_REACH * sigma)
    kernel = _gaussian_shares(torch.arange(-reach, reach + 1, dtype=torch.float64), sigma)
    return kernel / kernel.sum()


def _gaussian_shares(distance: Tensor, sigma: float) -> Tensor:
    """Integrals of a Gaussian over voxels at these distances from its middle, all in voxels."""
    edges = [torch.erf((distance + side) / (math.sqrt(2) * sigma)) for side in (-0.5, 0.5)]
    return (edges[1] - edges[0]) / 2


def _slices(size: int, factor: float, offset: float, thickness: float, profile: str) -> Tensor:
    """Return the weights of the voxels in each slice, ``(slice, voxel)``; each row sums to 1."""
    middles = offset + factor * torch.arange(math.floor(size / factor), dtype=torch.float64)
    distance = torch.arange(size, dtype=torch.float64) - middles[:, None]
    if profile == "gaussian":
        weights = _gaussian_shares(distance, thickness / _WIDTHS_PER_SIGMA)
    else:
        upper = (distance + 0.5).clamp(max=thickness / 2)
        weights = (upper - (distance - 0.5).clamp(min=-thickness / 2)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


def _positive(value: float, what: str, *, allow_zero: bool = False) -> float:
    if not math.isfinite(value) or value < 0 or (value == 0 and not allow_zero):
        raise DipmedError(f"{what} must be positive, got {value}")
    return float(value)
