"""Images that are measured voxel by voxel: all of them for denoising, some of them for inpainting."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import ShapeError
from operators.sampling import check_mask


class ImageMask(LinearOperator):
    """Keep some voxels of an image ``(1, x, y[, z])`` and set the others to zero; its own adjoint. For inpainting.

    Parameters
    ----------
    mask
        Voxels that are known, bool ``(x, y[, z])``. Kept as the buffer ``mask``.
    is_complex
        Whether images are complex.

    Raises
    ------
    ShapeError
        When the mask is not bool or has another number of axes.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, is_complex: bool = False) -> None:
        check_mask(mask)
        space = Space((1, *mask.shape), is_complex)
        super().__init__(space, space)
        self.register_buffer("mask", mask.detach())

    def with_mask(self, mask: Tensor) -> ImageMask:
        """Return the operator that keeps the voxels of another ``mask``, bool ``(x, y[, z])``."""
        return ImageMask(mask, is_complex=self.domain.is_complex)

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask

    def _normal(self, x: Tensor) -> Tensor:
        return x * self.mask


class Identity(ImageMask):
    """The image itself, ``(1, x, y[, z])``: what is measured when noise is all that is to be removed.

    Parameters
    ----------
    shape
        ``(1, x, y[, z])``.
    is_complex
        Whether images are complex.

    Raises
    ------
    ShapeError
        When the shape is another.
    """

    def __init__(self, shape: tuple[int, ...], *, is_complex: bool = False) -> None:
        if len(shape) not in (3, 4) or shape[0] != 1:
            raise ShapeError(f"an image is (1, x, y) or (1, x, y, z), got {tuple(shape)}")
        super().__init__(torch.ones(shape[1:], dtype=torch.bool), is_complex=is_complex)
