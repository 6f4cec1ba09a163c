"""A similar image, of another contrast or another day, as the network's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from dipmed.dip.inputs import first_image
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import BACK_PROJECTED, IMAGE_INPUT
from dipmed.nets import to_channels
from dipmed.scan import DipmedError, ShapeError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class ReferenceGuided(FitMethod):
    """D. Zhao, F. Zhao, Y. Gan, 2020: ``min_θ ‖A f(z; θ) − y‖²`` where z is a similar image of high quality.

    Its brightness is fitted by least squares to that of a quick reconstruction of the data, ``inputs``; of complex
    images the magnitudes are compared.

    Parameters
    ----------
    guide
        The similar image on the grid of the scan, ``(1, x, y[, z])``, real or complex, in any unit.
    """

    name: ClassVar[str] = "reference-guided"
    family: ClassVar[str] = "input"
    summary: ClassVar[str] = "As dip-vanilla, with a similar image as input, from --reference-image FILE."
    suits: ClassVar[str] = "follow-up scans and further contrasts, aligned with an image that there is already"
    citation: ClassVar[str] = "doi:10.3390/s20010308"
    deviations: ClassVar[str] = "the loss has no term that compares the structure of the two images"
    changes: ClassVar[Mapping[str, Any]] = IMAGE_INPUT
    ct_changes: ClassVar[Mapping[str, Any]] = BACK_PROJECTED

    guide: Tensor | None = None

    def make_input(self, fit: Fit) -> Tensor:
        if self.guide is None:
            raise DipmedError("reference-guided needs a similar image; give one with --reference-image FILE")
        if tuple(self.guide.shape) != (1, *fit.shape):
            raise ShapeError(f"the similar image must be {(1, *fit.shape)}, got {tuple(self.guide.shape)}")
        rough = first_image(fit.config.inputs[0], fit.problem, fit.config, fit.generator)
        guide = self.guide.to(fit.device)
        size = guide.abs() if rough.is_complex() else guide.real
        compared = rough.abs() if rough.is_complex() else rough
        shared = (size * compared).flatten(1).sum(1)
        factor = (shared / size.square().sum()).reshape(-1, *(1 for _ in fit.shape))
        if not bool(shared.abs().max() > 0):
            raise DipmedError("the similar image has nothing where the scan has something; is it of another place?")
        scaled = factor * (guide if rough.is_complex() else guide.real)
        return to_channels(scaled.to(rough.dtype)[None])
