"""Coil sensitivities: how one image becomes what each receive coil sees."""

from __future__ import annotations

from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import ShapeError


def check_maps(maps: Tensor) -> None:
    """Raise `ShapeError` unless ``maps`` are complex sensitivity maps, ``(coil, x, y[, z])``."""
    if maps.ndim not in (3, 4) or not maps.is_complex():
        raise ShapeError(
            f"sensitivity maps must be complex (coil, x, y) or (coil, x, y, z), got {maps.dtype} {tuple(maps.shape)}"
        )


def combine_coils(images: Tensor, maps: Tensor) -> Tensor:
    """Sum ``maps * images`` over the coils in place, ``(batch..., coil, x, y[, z])`` to ``(batch..., 1, x, y[, z])``.

    The maps are not conjugated: an adjoint hands in conjugated images and conjugates the one image that comes out,
    which spares a conjugated copy of all maps on each call. ``images`` is overwritten.
    """
    return images.mul_(maps).sum(dim=-maps.ndim, keepdim=True)


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
        return combine_coils(y.conj_physical(), self.maps.to(y.dtype)).conj_physical()
