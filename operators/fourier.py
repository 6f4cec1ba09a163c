"""Centred orthonormal Fourier transforms over the trailing one to three axes."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import ShapeError


def centred_fft(x: Tensor, ndim: int) -> Tensor:
    """Transform image to k-space over the last ``ndim`` axes; index ``n // 2`` is the centre on both sides."""
    dim = tuple(range(-ndim, 0))
    return torch.fft.fftshift(torch.fft.fftn(torch.fft.ifftshift(x, dim=dim), dim=dim, norm="ortho"), dim=dim)


def centred_ifft(y: Tensor, ndim: int) -> Tensor:
    """Transform k-space to image, the inverse and the adjoint of `centred_fft`."""
    dim = tuple(range(-ndim, 0))
    return torch.fft.fftshift(torch.fft.ifftn(torch.fft.ifftshift(y, dim=dim), dim=dim, norm="ortho"), dim=dim)


class FourierTransform(LinearOperator):
    """Centred orthonormal Fourier transform of the trailing axes, so that its adjoint is its inverse.

    Parameters
    ----------
    shape
        ``(coil, x, y[, z])`` or any shape with at least ``ndim`` axes.
    ndim
        How many trailing axes to transform, 1 to 3.
    """

    def __init__(self, shape: tuple[int, ...], ndim: int) -> None:
        if not 1 <= ndim <= min(3, len(shape)):
            raise ShapeError(f"a Fourier transform takes 1 to 3 trailing axes of {tuple(shape)}, got ndim={ndim}")
        super().__init__(Space(shape), Space(shape))
        self.ndim = ndim

    def _forward(self, x: Tensor) -> Tensor:
        return centred_fft(x, self.ndim)

    def _adjoint(self, y: Tensor) -> Tensor:
        return centred_ifft(y, self.ndim)

    def _normal(self, x: Tensor) -> Tensor:
        return x
