"""Coil sensitivities: how one image becomes what each receive coil sees."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import ShapeError


def check_maps(maps: Tensor, ndim: int | None = None) -> None:
    """Raise `ShapeError` unless ``maps`` are complex sensitivity maps, ``(coil, x, y[, z])``.

    Where the number of dimensions is known otherwise, they may also be several sets, ``(set, coil, x, y[, z])``.
    """
    is_several = ndim in (2, 3) and maps.ndim == ndim + 2
    if not (maps.ndim in (3, 4) or is_several) or not maps.is_complex():
        raise ShapeError(
            f"sensitivity maps must be complex (coil, x, y) or (coil, x, y, z), got {maps.dtype} {tuple(maps.shape)}"
        )


def n_map_sets(maps: Tensor, ndim: int) -> int:
    """How many sets there are of maps in ``ndim`` dimensions."""
    return len(maps) if maps.ndim == ndim + 2 else 1


def spread_coils(x: Tensor, maps: Tensor, ndim: int) -> Tensor:
    """Turn ``(batch..., set, x, y[, z])`` into what each coil sees of all sets, ``(batch..., coil, x, y[, z])``."""
    if maps.ndim == ndim + 1:
        return x * maps
    images = x.narrow(-ndim - 1, 0, 1) * maps[0]
    for index in range(1, len(maps)):
        images = images.addcmul_(x.narrow(-ndim - 1, index, 1), maps[index])
    return images


def combine_coils(images: Tensor, maps: Tensor, ndim: int) -> Tensor:
    """Sum ``maps * images`` over the coils, ``(batch..., coil, x, y[, z])`` to ``(batch..., set, x, y[, z])``.

    The maps are not conjugated: an adjoint hands in conjugated images and conjugates the one image that comes out,
    which spares a conjugated copy of all maps on each call. ``images`` may be overwritten.
    """
    axis = -ndim - 1
    if maps.ndim == ndim + 1:
        return images.mul_(maps).sum(dim=axis, keepdim=True)
    return torch.cat([(images * one).sum(dim=axis, keepdim=True) for one in maps], dim=axis)


def combine_sets(image: Tensor) -> Tensor:
    """Take the images of several sets of maps ``(set, x, y[, z])`` as one, ``(1, x, y[, z])``; one set stays as it is.

    The magnitude is the root of the sum of squares. For sets that are orthonormal in each voxel, as those of ESPIRiT
    are, that is the length of the vector of coil images, whatever the basis. The phase is that of the first set.
    """
    if len(image) == 1:
        return image
    magnitude = torch.linalg.vector_norm(image, dim=0, keepdim=True)
    return torch.polar(magnitude, image[:1].angle()) if image.is_complex() else magnitude


class Sensitivity(LinearOperator):
    """Multiply an image by the sensitivity map of each coil: ``(1, x, y[, z])`` to ``(coil, x, y[, z])``.

    Parameters
    ----------
    maps
        Complex ``(coil, x, y[, z])``. Kept as the buffer ``maps``; not a parameter to learn.

    Raises
    ------
    ShapeError
        When the maps are real or have another number of axes.
    """

    maps: Tensor

    def __init__(self, maps: Tensor) -> None:
        check_maps(maps)
        shape = tuple(maps.shape)
        super().__init__(Space((1, *shape[1:])), Space(shape))
        self.register_buffer("maps", maps.detach())

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.maps.to(x.dtype)

    def _adjoint(self, y: Tensor) -> Tensor:
        return combine_coils(y.conj_physical(), self.maps.to(y.dtype), self.maps.ndim - 1).conj_physical()
