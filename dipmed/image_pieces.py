"""An image volume cut into what is fitted, planes or the whole, with the operator of a task; and put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.scan import DipmedError, Float32, ImageVolume
from operators import Blur, Identity, ImageMask, LinearOperator, SliceProfile

TASKS = ("denoise", "superres", "inpaint", "deblur")


@dataclass(frozen=True)
class Task:
    """What is to be done to a volume.

    Parameters
    ----------
    name
        One of `TASKS`.
    factor
        Of a finer spacing of slices: how many slices become of one.
    thickness_mm
        Of the slices that were measured; None for the distance between them.
    fwhm_mm
        Of the blur, full width at half maximum.
    in_3d
        Whether the volume is one piece and not a piece for each plane.

    Raises
    ------
    DipmedError
        When a figure is missing, impossible, or for another task.
    """

    name: str
    factor: int | None = None
    thickness_mm: float | None = None
    fwhm_mm: float | None = None
    in_3d: bool = False

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise DipmedError(f"unknown task {self.name!r}; choose one of {', '.join(TASKS)}")
        for option, given, owner in (
            ("--factor", self.factor, "superres"),
            ("--thickness", self.thickness_mm, "superres"),
            ("--fwhm", self.fwhm_mm, "deblur"),
        ):
            if given is not None and self.name != owner:
                raise DipmedError(f"{option} is for --task {owner}, but the task is {self.name}")
            if given is not None and not (np.isfinite(given) and given > 0):
                raise DipmedError(f"{option} must be positive, got {given:g}")
        if self.name == "superres" and (self.factor is None or self.factor < 2):
            raise DipmedError(f"superres needs --factor N, how many slices become of one, 2 or more; got {self.factor}")
        if self.name == "deblur" and self.fwhm_mm is None:
            raise DipmedError("deblur needs --fwhm MM, the width of the blur")

    def axis_across(self, shape: Sequence[int]) -> int:
        """The voxel axis across the planes: they hold the slices' normal where slices become thinner."""
        return 2 if self.name != "superres" else int(shape[1] < shape[0])


@dataclass(frozen=True)
class Piece:
    """A plane ``(1, x, y)``, or a volume ``(1, x, y, z)``, with the operator that it is the measurement of."""

    index: int
    y: Tensor
    A: LinearOperator


def n_pieces(volume: ImageVolume, task: Task) -> int:
    """How many pieces a volume is cut into."""
    return 1 if task.in_3d else volume.data.shape[task.axis_across(volume.data.shape)]


def fitted_shape(volume: ImageVolume, task: Task) -> tuple[int, ...]:
    """Voxels of the image of one piece."""
    shape = [*volume.data.shape[:2], volume.data.shape[2] * (task.factor or 1)]
    if not task.in_3d:
        del shape[task.axis_across(volume.data.shape)]
    return tuple(shape)


def pieces(volume: ImageVolume, task: Task, known: NDArray[np.bool_] | None) -> Iterator[Piece]:
    """Cut a volume.

    Parameters
    ----------
    known
        Voxels that are not to be filled, bool ``(x, y, z)``, for the task ``"inpaint"``.

    Raises
    ------
    DipmedError
        When nothing is known of a plane.
    """
    across = task.axis_across(volume.data.shape)
    axes = [axis for axis in range(3) if task.in_3d or axis != across]
    voxel_mm = np.linalg.norm(volume.affine[:3, :3], axis=0)
    spacing = [float(voxel_mm[axis]) for axis in axes]
    shape = fitted_shape(volume, task)
    for index in range(n_pieces(volume, task)):
        part = None if known is None else _piece_of(known, task, across, index)
        if part is not None and not part.any():
            raise DipmedError(f"nothing is known of slice {index}; leave it out with --slices, or choose --mode 3d")
        values = _piece_of(volume.data, task, across, index)
        if part is not None:
            values = np.where(part, values, 0)
        y = torch.from_numpy(np.ascontiguousarray(values))[None]
        yield Piece(index, y, _operator(task, (1, *shape), spacing, part))


def join(images: Sequence[Float32], volume: ImageVolume, task: Task) -> ImageVolume:
    """Put the images of all pieces together, each voxel where it lies in the patient."""
    across = task.axis_across(volume.data.shape)
    data = images[0] if task.in_3d else np.stack(images, axis=across)
    affine = volume.affine
    if task.factor is not None:
        affine = SliceProfile((1, *data.shape), task.factor).fine_affine(affine)
    return ImageVolume(np.ascontiguousarray(data), affine)


def _piece_of(array: NDArray[Any], task: Task, across: int, index: int) -> NDArray[Any]:
    return array if task.in_3d else array.take(index, axis=across)


def _operator(
    task: Task, shape: tuple[int, ...], spacing_mm: Sequence[float], known: NDArray[Any] | None
) -> LinearOperator:
    if task.name == "denoise":
        return Identity(shape)
    if task.name == "deblur":
        return Blur.gaussian(shape, [task.fwhm_mm or 0.0] * len(spacing_mm), spacing_mm)
    if task.name == "superres":
        factor = task.factor or 1
        return SliceProfile(shape, factor, spacing_mm[-1] / factor, task.thickness_mm)
    return ImageMask(torch.from_numpy(np.ascontiguousarray(known)))
