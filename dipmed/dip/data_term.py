"""The data term of a fit, ``‖W(Ax − y)‖²`` by residuals or by the normal operator alone, or absolute values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dipmed.config import DataLoss
from operators import CartesianMRI, ImageMask, LinearOperator, Series


class DataTerm(Protocol):
    """A misfit of images ``(batch, 1, x, y[, z])`` against measured data, outside autograd."""

    energy: Tensor
    """Value for an image of zeros."""

    def value(self, x: Tensor) -> Tensor:
        """Return the misfit, summed over the batch."""
        ...

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the misfit and its gradient."""
        ...


class ResidualTerm:
    """``Σ w |Ax − y|²`` from the residual itself: one forward and one adjoint.

    Parameters
    ----------
    A
        The operator.
    y
        Data, one element of its range.
    weights
        Of each location, broadcastable to the range; None for one.
    """

    def __init__(self, A: LinearOperator, y: Tensor, weights: Tensor | None = None) -> None:
        self.A = A
        self.y = y
        self.weights = weights
        self.energy = self._square(y)[0]

    def value(self, x: Tensor) -> Tensor:
        return self._square(self.A(x) - self.y)[0]

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, weighted = self._square(self.A(x) - self.y)
        return value, self.A.adjoint(weighted) * 2

    def _square(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        weighted = residual if self.weights is None else residual * self.weights
        return inner(residual, weighted), weighted


class NormalTerm:
    """``⟨x, Nx⟩ − 2 Re⟨x, Aᴴy⟩ + ‖y‖²``: one normal operator, where that is cheaper than forward and adjoint.

    The value is a small difference of large numbers: taken in double precision, it is good to about 1e-5 of ``‖y‖²``.

    Parameters
    ----------
    A
        The operator.
    y
        Data, one element of its range.
    """

    def __init__(self, A: LinearOperator, y: Tensor) -> None:
        self.A = A
        self.adjoint_data = A.adjoint(y)
        self._energy = y.abs().square().double().sum()
        self.energy = self._energy.float()

    def value(self, x: Tensor) -> Tensor:
        return self._value(x, self.A.N(x))

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normal = self.A.N(x)
        return self._value(x, normal), (normal - self.adjoint_data) * 2

    def _value(self, x: Tensor, normal: Tensor) -> Tensor:
        product = inner(x, normal - 2 * self.adjoint_data, torch.float64)
        return (product + len(x) * self._energy).clamp(min=0).float()


class AbsoluteTerm:
    """``Σ w |Ax − y|``, which spikes pull less than squares.

    Parameters
    ----------
    A
        The operator.
    y
        Data, one element of its range.
    weights
        Of each location, broadcastable to the range; None for one.
    """

    def __init__(self, A: LinearOperator, y: Tensor, weights: Tensor | None = None) -> None:
        self.A = A
        self.y = y
        self.weights = weights
        self.energy = self._sum(y.abs())

    def value(self, x: Tensor) -> Tensor:
        return self._sum((self.A(x) - self.y).abs())

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual = self.A(x) - self.y
        signs = torch.sgn(residual) if self.weights is None else torch.sgn(residual) * self.weights
        return self._sum(residual.abs()), self.A.adjoint(signs)

    def _sum(self, sizes: Tensor) -> Tensor:
        return (sizes if self.weights is None else sizes * self.weights).sum()


class SeriesTerm:
    """The sum of the misfits of frames or slices, each against its own data.

    Parameters
    ----------
    terms
        Of the images.
    A
        Which knows how they lie beside each other.
    """

    def __init__(self, terms: Sequence[DataTerm], A: Series) -> None:
        self.terms = tuple(terms)
        self.A = A
        self.energy = torch.stack([term.energy for term in self.terms]).sum()

    def of_frames(self, frames: Sequence[int]) -> SeriesTerm:
        """Return the misfit of a few of the frames, of a series that holds these alone."""
        return SeriesTerm([self.terms[frame] for frame in frames], self.A)

    def value(self, x: Tensor) -> Tensor:
        pairs = zip(self.terms, self.A.images_of(x), strict=True)
        return torch.stack([term.value(image) for term, image in pairs]).sum()

    def gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = zip(self.terms, self.A.images_of(x), strict=True)
        values, gradients = zip(*(term.gradient(image) for term, image in pairs), strict=True)
        return torch.stack(values).sum(), self.A.join(gradients)


def inner(a: Tensor, b: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the real part of ``⟨a, b⟩``, summed in another precision where one is given."""
    if not a.is_complex():
        return torch.sum(a * b, dtype=dtype)
    return torch.sum(a.real * b.real + a.imag * b.imag, dtype=dtype)


def make_data_term(A: LinearOperator, y: Tensor, weights: Tensor | None = None, loss: DataLoss = "squares") -> DataTerm:
    """Choose the cheaper form: on a grid of k-space and for voxels the residual costs no more, and it is exact."""
    if isinstance(A, Series):
        pairs = zip(A.operators, A.data_of(y), strict=True)
        return SeriesTerm([make_data_term(one, data, weights, loss) for one, data in pairs], A)
    if loss == "absolute":
        return AbsoluteTerm(A, y, weights)
    if weights is not None or isinstance(A, CartesianMRI | ImageMask):
        return ResidualTerm(A, y, weights)
    return NormalTerm(A, y)
