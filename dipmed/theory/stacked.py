"""An operator between real vectors, because the kernel of a network with real weights is real."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from dipmed.nets import to_channels, to_image
from dipmed.scan import DipmedError, ShapeError
from operators import LinearOperator

_TOGETHER = 128
"""Images that an operator is given at a time."""


class Stacked:
    """An operator on real vectors: real and imaginary parts side by side, and only those data that an image reaches.

    Locations that were not sampled, and rays that miss the grid, hold no data and no noise, so they are left out.

    Parameters
    ----------
    A
        Any operator from an image ``(1, x, y[, z])``, or a complex one of several sets ``(set, x, y[, z])``.

    Attributes
    ----------
    n, m
        Real numbers of an image and of the data.

    Raises
    ------
    ShapeError
        When images are real and there is more than one.
    DipmedError
        When the operator is zero.
    """

    def __init__(self, A: LinearOperator) -> None:
        space = A.domain
        if not space.is_complex and space.shape[0] != 1:
            raise ShapeError(f"a real image has one channel, (1, x, y[, z]), the operator takes {space.shape}")
        self.A = A
        self.shape = (space.shape[0] * (2 if space.is_complex else 1), *space.shape[1:])
        self.n = math.prod(self.shape)
        dtype = torch.complex128 if space.is_complex else torch.float64
        probe = space.randn(dtype=dtype, device=A.device, generator=torch.Generator().manual_seed(0))
        # a random image is zero at a location with probability zero, unless all images are
        reached = A(probe) != 0
        self._reached = reached.flatten().nonzero()[:, 0]
        self._parts = 2 if A.range.is_complex else 1
        self.m = len(self._reached) * self._parts
        if not self.m:
            raise DipmedError(f"{A!r} is zero: nothing was measured")

    def deviation(self, sigma: float) -> float:
        """Return the deviation of one real number of the data; ``sigma`` is that of a sample, ``E|n|² = sigma²``.

        Raises
        ------
        DipmedError
            When ``sigma`` is not positive and finite.
        """
        if not 0 < sigma < math.inf:
            raise DipmedError(f"the standard deviation of noise must be positive and finite, got {sigma}")
        return sigma / math.sqrt(self._parts)

    def vector(self, image: Tensor) -> Tensor:
        """Flatten images ``(batch..., *domain)`` in double precision to ``(batch..., n)``."""
        self.A.domain.check(image, "the theory of this operator")
        batch = image.shape[: image.ndim - len(self.shape)]
        wide = image.to(torch.complex128 if image.is_complex() else torch.float64)
        return to_channels(wide.reshape(-1, *self.A.domain.shape)).reshape(*batch, self.n)

    def image(self, vector: Tensor) -> Tensor:
        """Undo `vector`."""
        return to_image(vector.reshape(-1, *self.shape)).reshape(*vector.shape[:-1], *self.A.domain.shape)

    def data_vector(self, y: Tensor) -> Tensor:
        """Flatten data ``(batch..., *range)`` in double precision to ``(batch..., m)``."""
        self.A.range.check(y, "the theory of this operator")
        batch = y.shape[: y.ndim - len(self.A.range.shape)]
        reached = y.reshape(*batch, -1)[..., self._reached]
        if reached.is_complex():
            return torch.view_as_real(reached.to(torch.complex128)).flatten(-2)
        return reached.to(torch.float64)

    def data(self, vector: Tensor) -> Tensor:
        """Undo `data_vector`, with zeros where no image reaches."""
        pairs = vector.reshape(*vector.shape[:-1], -1, self._parts)
        values = torch.view_as_complex(pairs.contiguous()) if self._parts == 2 else vector
        y = values.new_zeros(*vector.shape[:-1], self.A.range.size)
        y[..., self._reached] = values
        return y.reshape(*vector.shape[:-1], *self.A.range.shape)

    @torch.no_grad()
    def forward(self, vectors: Tensor) -> Tensor:
        """Apply the operator to ``(batch, n)``, giving ``(batch, m)``."""
        return torch.cat([self.data_vector(self.A(self.image(some))) for some in _groups(vectors)])

    @torch.no_grad()
    def adjoint(self, vectors: Tensor) -> Tensor:
        """Apply the adjoint to ``(batch, m)``, giving ``(batch, n)``."""
        return torch.cat([self.vector(self.A.adjoint(self.data(some))) for some in _groups(vectors)])


def _groups(vectors: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(vectors), _TOGETHER):
        yield vectors[start : start + _TOGETHER]
