"""A penalty on what is out of phase with a low-resolution image of the same scan."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dipmed.calib.centre import calibration_width, sampled_cells
from operators import MRIOperator, NonCartesianMRI, Slices

TOLERANCE = 0.4
"""Part out of phase, relative to the low-resolution magnitude, beyond which the penalty lets go: about 0.4 rad."""

_WIDTH = 24
"""Largest width of the low-resolution image's k-space."""
_MIN_WIDTH = 8
"""Fewer samples than this along an axis tell nothing of the phase."""
_FLOOR = 0.02
"""Magnitude in scaled units below which a voxel counts as air."""


class SmoothPhase:
    """The penalty ``Σ δ²v² / (δ² + v²)`` on the part v of an image that is out of phase with another image.

    The phase of most magnetic resonance images varies slowly, so that the centre of k-space tells it, and what is
    missing on one side of k-space is told by the other side (D. Noll et al., 1991, doi:10.1109/42.79473). Where the
    phase does jump, as between water and fat, v is large, and the penalty, which is nearly constant there, lets it
    be (S. Geman, D. McClure, 1987, Bulletin of the International Statistical Institute 52-4).

    Parameters
    ----------
    low
        The low-resolution image, complex ``(1, x, y[, z])``, in units where images peak near one.
    weight
        Factor on the penalty.
    """

    def __init__(self, low: Tensor, weight: float) -> None:
        magnitude = low.abs()
        self.weight = weight
        self.phase = torch.where(magnitude > 0, low / magnitude.clamp(min=1e-12), torch.ones_like(low))
        self.tolerance = (TOLERANCE * magnitude.clamp(min=_FLOOR)).square()

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the penalty of ``(batch, 1, x, y[, z])`` and its gradient."""
        across = (x * self.phase.conj()).imag
        kept = self.tolerance / (self.tolerance + across.square())
        value = self.weight * torch.sum(self.tolerance * (1 - kept))
        return value, self.phase * (2j * self.weight * across * kept.square())


def low_resolution_image(A: MRIOperator | Slices, y: Tensor) -> Tensor | None:
    """Combine the fully sampled centre of k-space, tapered against ringing, ``(1, x, y[, z])``; None without one."""
    if isinstance(A, Slices):
        found = [low_resolution_image(one, data) for one, data in zip(A.operators, A.data_of(y), strict=True)]
        images = [image for image in found if image is not None]
        return A.join(images) if len(images) == len(found) else None
    sampled = A.mask.cpu().numpy()
    if isinstance(A, NonCartesianMRI):
        sampled = sampled_cells(A.trajectory[A.mask].cpu().numpy(), A.domain.shape[1:])
    widths = [min(_WIDTH, width) for width in calibration_width(sampled)]
    if min(widths) < _MIN_WIDTH:
        return None
    taper = torch.ones((), device=y.device)
    for along, width in zip(A.positions, widths, strict=True):
        place = (along + width // 2 + 1) / (width + 1)
        taper = taper * torch.sin(math.pi * place.clamp(0, 1))
    return A.adjoint(y * taper.to(y.real.dtype))
