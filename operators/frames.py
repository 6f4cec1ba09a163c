"""A series of images, each measured by an operator of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from operators.base import LinearOperator, Space
from operators.errors import ShapeError
from operators.noncartesian import MRIOperator


class Frames(LinearOperator):
    """MRI of a series: frame i of an image ``(frame, x, y[, z])`` becomes frame i of the data.

    Data are ``(coil, frame, x, y[, z])`` or ``(coil, frame, sample)``, so that a mask ``(frame, x, y[, z])`` or
    ``(frame, sample)`` fits them as that of one frame does. With several sets of maps an image is
    ``(frame · set, x, y[, z])``, the sets of a frame beside each other.

    Parameters
    ----------
    frames
        The operators in the order of time, of equal domains and ranges.

    Raises
    ------
    ShapeError
        When there are none, or their domains or ranges differ.
    """

    def __init__(self, frames: Sequence[MRIOperator]) -> None:
        spaces = {(frame.domain, frame.range) for frame in frames}
        if len(spaces) != 1:
            raise ShapeError(f"a series needs frames of one domain and one range, got {len(spaces)} different pairs")
        n_sets, *image = frames[0].domain.shape
        n_coils, *locations = frames[0].range.shape
        super().__init__(Space((len(frames) * n_sets, *image)), Space((n_coils, len(frames), *locations)))
        self.frames = nn.ModuleList(frames)
        self.n_sets = n_sets
        self._image_axis = -len(image) - 1
        self._data_axis = -len(locations) - 1

    @property
    def operators(self) -> tuple[MRIOperator, ...]:
        """The operators of the frames."""
        return tuple(self.frames)  # type: ignore[arg-type]  # torch forgets what a list holds

    @property
    def mask(self) -> Tensor:
        """Which locations are seen, bool ``(frame, x, y[, z])`` or ``(frame, sample)``."""
        return torch.stack([frame.mask for frame in self.operators])

    @property
    def positions(self) -> tuple[Tensor, ...]:
        """Positions along each dimension in cycles per field of view, shaped as the mask."""
        of_frames = [[along.expand(frame.mask.shape) for along in frame.positions] for frame in self.operators]
        return tuple(torch.stack(along) for along in zip(*of_frames, strict=True))

    def with_mask(self, mask: Tensor) -> Frames:
        """Return the operator that sees only the locations of another ``mask``."""
        return Frames([frame.with_mask(seen) for frame, seen in zip(self.operators, mask, strict=True)])

    def images_of(self, x: Tensor) -> tuple[Tensor, ...]:
        """Take a series ``(batch..., frame · set, x, y[, z])`` apart, ``(batch..., set, x, y[, z])`` each."""
        return torch.split(x, self.n_sets, self._image_axis)

    def data_of(self, y: Tensor) -> tuple[Tensor, ...]:
        """Take data of the range apart, ``(batch..., coil, x, y[, z])`` or ``(batch..., coil, sample)`` each."""
        return torch.unbind(y, self._data_axis)

    def _forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.operators, self.images_of(x), strict=True)
        return torch.stack([frame._forward(image) for frame, image in pairs], self._data_axis)

    def _adjoint(self, y: Tensor) -> Tensor:
        pairs = zip(self.operators, self.data_of(y), strict=True)
        return torch.cat([frame._adjoint(data) for frame, data in pairs], self._image_axis)

    def _normal(self, x: Tensor) -> Tensor:
        pairs = zip(self.operators, self.images_of(x), strict=True)
        return torch.cat([frame._normal(image) for frame, image in pairs], self._image_axis)
