"""Images beside each other, each measured by an operator of its own: frames of a series, slices of a volume."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.base import LinearOperator, Space
from operators.errors import ShapeError
from operators.noncartesian import MRIOperator


class Series(LinearOperator):
    """MRI of several images, whose data are ``(coil, image, x, y[, z])`` or ``(coil, image, sample)``.

    So a mask ``(image, x, y[, z])`` or ``(image, sample)`` fits them as that of one image does. Subclasses say how the
    images lie beside each other.

    Parameters
    ----------
    operators
        Of the images, in their order, of equal domains and ranges.

    Raises
    ------
    ShapeError
        When there are none, or their domains or ranges differ.
    """

    def __init__(self, operators: Sequence[MRIOperator]) -> None:
        spaces = {(one.domain, one.range) for one in operators}
        if len(spaces) != 1:
            raise ShapeError(f"a series needs parts of one domain and one range, got {len(spaces)} different pairs")
        n_coils, *locations = operators[0].range.shape
        self._data_axis = -len(locations) - 1
        domain = self._domain_of(len(operators), operators[0].domain.shape)
        super().__init__(domain, Space((n_coils, len(operators), *locations)))
        self.parts = nn.ModuleList(operators)
        self.n_sets = operators[0].domain.shape[0]

    @abstractmethod
    def _domain_of(self, n_images: int, shape: tuple[int, ...]) -> Space: ...

    @abstractmethod
    def images_of(self, x: Tensor) -> tuple[Tensor, ...]:
        """Take images apart, ``(batch..., set, x, y[, z])`` each."""

    @abstractmethod
    def join(self, images: Sequence[Tensor]) -> Tensor:
        """Undo `images_of`, of any number of images."""

    @property
    def operators(self) -> tuple[MRIOperator, ...]:
        """The operators of the images."""
        return tuple(self.parts)  # type: ignore[arg-type]  # torch forgets what a list holds

    @property
    def mask(self) -> Tensor:
        """Which locations are seen, bool ``(image, x, y[, z])`` or ``(image, sample)``."""
        return torch.stack([one.mask for one in self.operators])

    @property
    def positions(self) -> tuple[Tensor, ...]:
        """Positions along each dimension in cycles per field of view, shaped as the mask."""
        of_images = [[along.expand(one.mask.shape) for along in one.positions] for one in self.operators]
        return tuple(torch.stack(along) for along in zip(*of_images, strict=True))

    def data_of(self, y: Tensor) -> tuple[Tensor, ...]:
        """Take data of the range apart, ``(batch..., coil, x, y[, z])`` or ``(batch..., coil, sample)`` each."""
        return torch.unbind(y, self._data_axis)

    def _forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.operators, self.images_of(x), strict=True)
        return torch.stack([one._forward(image) for one, image in pairs], self._data_axis)

    def _adjoint(self, y: Tensor) -> Tensor:
        pairs = zip(self.operators, self.data_of(y), strict=True)
        return self.join([one._adjoint(data) for one, data in pairs])

    def _normal(self, x: Tensor) -> Tensor:
        pairs = zip(self.operators, self.images_of(x), strict=True)
        return self.join([one._normal(image) for one, image in pairs])


class Frames(Series):
    """A series of images, ``(frame, x, y[, z])``.

    With several sets of maps it is ``(frame · set, x, y[, z])``, the sets of a frame beside each other.
    """

    def _domain_of(self, n_images: int, shape: tuple[int, ...]) -> Space:
        return Space((n_images * shape[0], *shape[1:]))

    def images_of(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.split(x, self.n_sets, -len(self.domain.shape))

    def join(self, images: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(images), -len(self.domain.shape))

    def with_mask(self, mask: Tensor) -> Frames:
        """Return the operator that sees only the locations of another ``mask``."""
        return Frames([one.with_mask(seen) for one, seen in zip(self.operators, mask, strict=True)])


class Slices(Series):
    """A volume ``(set, x, y, z)`` that is measured slice by slice, each position along z by an operator of its own."""

    @property
    def ndim(self) -> int:
        """Dimensions of the image."""
        return len(self.domain.shape) - 1

    def _domain_of(self, n_images: int, shape: tuple[int, ...]) -> Space:
        return Space((*shape, n_images))

    def images_of(self, x: Tensor) -> tuple[Tensor, ...]:
        return torch.unbind(x, -1)

    def join(self, images: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(images), -1)

    def with_mask(self, mask: Tensor) -> Slices:
        """Return the operator that sees only the locations of another ``mask``."""
        return Slices([one.with_mask(seen) for one, seen in zip(self.operators, mask, strict=True)])
