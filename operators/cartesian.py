"""Multi-coil Cartesian MRI as one operator: sensitivities, centred Fourier transform and sampling in few passes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.coils import check_maps, combine_coils, n_map_sets, spread_coils
from operators.errors import ShapeError
from operators.sampling import check_mask


class CartesianMRI(LinearOperator):
    """Multi-coil Cartesian MRI: ``mask * F(maps * x)`` with the centred orthonormal Fourier transform ``F``.

    An image ``(1, x, y[, z])`` becomes k-space ``(coil, x, y[, z])``, zero where it was not sampled. It gives what
    ``CartesianSampling @ FourierTransform @ Sensitivity`` gives, at little more than the cost of the bare transforms.
    The result has the precision of the input.

    Parameters
    ----------
    maps
        Sensitivity maps, complex ``(coil, x, y[, z])``, or several sets of them ``(set, coil, x, y[, z])`` where more
        than one part of an object folds into a voxel: then an image is ``(set, x, y[, z])``, and a coil sees the sum of
        what each set shows it (soft SENSE; Uecker et al., 2014, doi:10.1002/mrm.24751). Kept as the buffer ``maps``.
    mask
        Which locations were sampled, bool ``(x, y[, z])``, the centre of k-space at index ``n // 2``. Kept as the
        buffer ``mask``; for another mask use `with_mask`.

    Raises
    ------
    ShapeError
        When maps and mask are not of these kinds or do not fit each other.

    Notes
    -----
    The encoding model is that of Pruessmann et al., doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S.

    Examples
    --------
    >>> import torch
    >>> from operators import CartesianMRI
    >>> A = CartesianMRI(torch.ones(4, 8, 6, dtype=torch.complex64), torch.ones(8, 6, dtype=torch.bool))
    >>> A(A.domain.randn()).shape
    torch.Size([4, 8, 6])
    """

    maps: Tensor
    mask: Tensor
    _image_phase: Tensor
    _sampling: Tensor
    _corner_mask: Tensor

    def __init__(self, maps: Tensor, mask: Tensor) -> None:
        check_mask(mask)
        check_maps(maps, mask.ndim)
        if maps.shape[-mask.ndim :] != mask.shape or maps.ndim - mask.ndim not in (1, 2):
            raise ShapeError(
                f"maps and mask must cover the same matrix: maps are (coil, {_sizes(maps.shape[1:])}), "
                f"the mask is ({_sizes(mask.shape)})"
            )
        n_sets = n_map_sets(maps, mask.ndim)
        super().__init__(Space((n_sets, *mask.shape)), Space(tuple(maps.shape[-mask.ndim - 1 :])))
        self.ndim = mask.ndim
        self.register_buffer("maps", maps.detach())
        self.register_buffer("mask", mask.detach().to(maps.device))
        self._prepare()

    @property
    def positions(self) -> tuple[Tensor, ...]:
        """Positions along each dimension in cycles per field of view, broadcastable to the mask."""
        return tuple(
            (torch.arange(n, device=self.mask.device) - n // 2).reshape(
                [-1 if a == axis else 1 for a in range(self.ndim)]
            )
            for axis, n in enumerate(self.mask.shape)
        )

    def with_mask(self, mask: Tensor) -> CartesianMRI:
        """Return the operator of the same maps (shared, not copied) that samples another ``mask``, ``(x, y[, z])``."""
        return CartesianMRI(self.maps, mask)

    def _prepare(self) -> None:
        """Derive from the mask what the passes need; called again when a state is loaded.

        A shift of one side of a Fourier transform is a phase on the other side, so that the centred transform is
        ``K · FFT · P`` with a phase P on the image and a phase K on k-space, signs alone where all sizes are even.
        K goes into the mask, and no shifted copy is made. In ``AᴴA`` both phases cancel, and a plain transform between
        corner-centred arrays does. Where the mask does not change along an axis, the transforms of ``AᴴA`` along
        that axis cancel too: for lines of full readouts one axis remains.
        """
        phase, constant = _centring_phases(tuple(self.mask.shape), self.mask.device)
        self._dim = tuple(range(-self.ndim, 0))
        self._varying = tuple(d for d in self._dim if bool((self.mask != self.mask.narrow(d, 0, 1)).any()))
        lines = self.mask
        for d in set(self._dim) - set(self._varying):
            lines = lines.narrow(d, 0, 1)
        self.register_buffer("_image_phase", phase, persistent=False)
        self.register_buffer("_sampling", constant * phase * self.mask, persistent=False)
        self.register_buffer("_corner_mask", torch.fft.ifftshift(lines, dim=self._dim), persistent=False)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._prepare()

    def _forward(self, x: Tensor) -> Tensor:
        images = spread_coils(x * _like(self._image_phase, x), self.maps.to(x.dtype), self.ndim)
        return torch.fft.fftn(images, dim=self._dim, norm="ortho").mul_(_like(self._sampling, x))

    def _adjoint(self, y: Tensor) -> Tensor:
        # all conjugated: fft(conj z) = conj(ifft(z)), and conj(maps) would be a copy of the maps
        kspace = y.conj_physical().mul_(_like(self._sampling, y))
        images = torch.fft.fftn(kspace, dim=self._dim, norm="ortho")
        image = combine_coils(images, self.maps.to(y.dtype), self.ndim)
        return image.mul_(_like(self._image_phase, y)).conj_physical()

    def _normal(self, x: Tensor) -> Tensor:
        maps = self.maps.to(x.dtype)
        kspace = self._transform_varying(spread_coils(x, maps, self.ndim)).conj_physical_().mul_(self._corner_mask)
        return combine_coils(self._transform_varying(kspace), maps, self.ndim).conj_physical()

    def _transform_varying(self, x: Tensor) -> Tensor:
        return torch.fft.fftn(x, dim=self._varying, norm="ortho") if self._varying else x


def _centring_phases(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, complex]:
    """Return the phase P and the number k with ``centred FFT = k P · FFT · P``; real where all sizes are even."""
    turns = torch.zeros(shape, dtype=torch.float64)
    for axis, n in enumerate(shape):
        # whole turns are taken off in integers, so that large matrices lose no digits
        along = (torch.arange(n) * (n // 2) % n).double() / n
        turns += along.reshape([n if a == axis else 1 for a in range(len(shape))])
    constant = -sum((n // 2) ** 2 % n / n for n in shape)
    if all(n % 2 == 0 for n in shape):
        signs = torch.cos(2 * math.pi * turns).round().float()
        return signs.to(device), round(math.cos(2 * math.pi * constant))
    phase = torch.polar(torch.ones_like(turns), 2 * math.pi * turns)
    angle = 2 * math.pi * constant
    return phase.to(device), complex(math.cos(angle), math.sin(angle))


def _like(factor: Tensor, x: Tensor) -> Tensor:
    """Give a factor the precision of ``x``; signs are exact in any precision and stay real."""
    return factor.to(x.dtype) if factor.is_complex() else factor


def _sizes(shape: torch.Size) -> str:
    return ", ".join(map(str, shape))
