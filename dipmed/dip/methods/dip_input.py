"""An image of the same data as the network's input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import BACK_PROJECTED, IMAGE_INPUT


@dataclass
class ImageInput(FitMethod):
    """``min_θ ‖A f(z; θ) − y‖²`` where z is a quick reconstruction of y: zero-filled, least squares, back-projection.

    A. Alkhouri et al. (NeurIPS 2024) find that the best image of a fit is the better the closer z is to the truth; they
    start from such an image, and so does R. Barbano et al. (educated deep image prior, 2022). Which one is the setting
    ``inputs``: ``zero-filled``, ``cg``, ``fbp``, ``tv`` or ``wavelet``.
    """

    name: ClassVar[str] = "dip-input"
    family: ClassVar[str] = "input"
    summary: ClassVar[str] = "As dip-vanilla, with an image of the same data as input; inputs=cg chooses another."
    suits: ClassVar[str] = "few views of CT; mild undersampling of MRI, because aliasing may pass through"
    citation: ClassVar[str] = "arXiv:2111.11926"
    deviations: ClassVar[str] = "the network is not trained beforehand"
    changes: ClassVar[Mapping[str, Any]] = IMAGE_INPUT
    ct_changes: ClassVar[Mapping[str, Any]] = BACK_PROJECTED
