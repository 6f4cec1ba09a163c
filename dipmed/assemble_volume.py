"""The images of a scan put back together, in their place and unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dipmed.jobs import n_frames
from dipmed.scan import ImageVolume, ProjectionScan, Reconstruction, Scan
from dipmed.slabs import Range, blend
from operators import combine_sets, hounsfield


def assemble_volume(
    parts: Sequence[Reconstruction],
    scan: Scan,
    *,
    stacks: Sequence[Range] | None = None,
    in_hounsfield: bool = False,
) -> tuple[ImageVolume, ImageVolume | None, str | None]:
    """Put the images of a prepared scan together, frame by frame and slice by slice within.

    Parameters
    ----------
    stacks
        Which slices each image holds, where they are volumes of slices, see `dipmed.stacks.stacks_of`.

    Returns
    -------
    volume, std, unit
        The image; the standard deviation of what is shown, None unless every image has one; ``"1/mm"`` or ``"HU"`` of
        projections, None of k-space.
    """
    volume = _stack([combine_sets(part.image)[0] for part in parts], scan, stacks)
    deviations = [part.std[0] for part in parts if part.std is not None]
    std = _stack(deviations, scan, stacks) if len(deviations) == len(parts) else None
    if not isinstance(scan, ProjectionScan):
        return volume, std, None
    if in_hounsfield:
        return _in_hounsfield(volume, scan), std and _step_in_hounsfield(std, scan), "HU"
    return volume, std, "1/mm"


def _stack(images: Sequence[Tensor], scan: Scan, stacks: Sequence[Range] | None) -> ImageVolume:
    if stacks is not None:
        frames_of_stacks = [images[first : first + len(stacks)] for first in range(0, len(images), len(stacks))]
        images = [image for frame in frames_of_stacks for image in blend(frame, stacks).unbind(-1)]
    stacked = np.stack([image.cpu().numpy() for image in images])
    frames = stacked.reshape(n_frames(scan), scan.n_slices, *stacked.shape[1:])
    data = frames[:, 0] if scan.ndim == 3 else np.moveaxis(frames, 1, -1)
    data = np.moveaxis(data, 0, -1)
    return ImageVolume(data[..., 0] if n_frames(scan) == 1 else data, scan.affine)


def _in_hounsfield(volume: ImageVolume, scan: ProjectionScan) -> ImageVolume:
    assert scan.water_per_mm is not None  # noqa: S101  # or the scan was refused
    return ImageVolume(hounsfield(torch.from_numpy(volume.data), scan.water_per_mm).numpy(), volume.affine)


def _step_in_hounsfield(std: ImageVolume, scan: ProjectionScan) -> ImageVolume:
    """A difference of attenuation in Hounsfield units, which has no offset."""
    nothing = ImageVolume(np.zeros_like(std.data), std.affine)
    difference = _in_hounsfield(std, scan).data - _in_hounsfield(nothing, scan).data
    return ImageVolume(difference, std.affine)
