"""Methods that are settings of the plain fit: the default recipe, and the first published ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from dipmed.dip.method import FitMethod

PUBLISHED: Mapping[str, Any] = {
    "inputs": ("noise",),
    "input_jitter": 1 / 30,
    "first_jitter": 0.0,
    "input_update": "none",
    "input_share": 0.0,
    "tv_weight": 0.0,
    "follow_noise": False,
    "kspace_exponent": 0.0,
    "phase_weight": 0.0,
    "nonnegative": False,
    "subpixels": 1,
    "refit_share": 0.0,
    "renew_input": False,
    "gain": 1.0,
    "optimizer": "adam",
    "rate": 0.03,  # where Muon is asked for
    "adam_rate": 1e-3,
    "schedule": "constant",
    "iterations": 3000,
    "data_consistency_steps": 0,
}
"""What published methods share: a noise input, Adam at a constant rate, none of the additions of our own recipe."""

IMAGE_INPUT: Mapping[str, Any] = {**PUBLISHED, "inputs": ("zero-filled",), "input_jitter": 0.0}
"""The same of methods that start from an image of the data, as it is."""

HELD_OUT_VIEWS: Mapping[str, Any] = {"stop": "held-out", "refit": "resume"}
"""Of projections: fits as long as published ones come to fit noise, and every view is missed that is not given back."""

BACK_PROJECTED: Mapping[str, Any] = {**HELD_OUT_VIEWS, "inputs": ("fbp",)}
"""The same of methods that start from an image."""


@dataclass
class Default(FitMethod):
    """The preset as it is."""

    name: ClassVar[str] = "dip"
    family: ClassVar[str] = "default"
    summary: ClassVar[str] = "Our best recipe: a sparse image as input, orthogonalised updates, held-out stopping."
    suits: ClassVar[str] = "any scan"
    citation: ClassVar[str] = "doi:10.1007/s11263-020-01303-4"


@dataclass
class Vanilla(FitMethod):
    """D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep image prior", 2020: ``min_θ ‖A f(z; θ) − y‖²``, ended early."""

    name: ClassVar[str] = "dip-vanilla"
    family: ClassVar[str] = "vanilla"
    summary: ClassVar[str] = "As published: fixed noise input with jitter, Adam, running average."
    suits: ClassVar[str] = "comparisons: what everyone measures against"
    citation: ClassVar[str] = "doi:10.1007/s11263-020-01303-4"
    deviations: ClassVar[str] = "our U-Net with group normalisation and no sigmoid, because images may have any sign"
    changes: ClassVar[Mapping[str, Any]] = PUBLISHED
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS


@dataclass
class TotalVariation(FitMethod):
    """D. Otero Baguer et al., 2020: ``min_θ ‖A f(z; θ) − y‖² + λ TV(f(z; θ))``, which needs no early end."""

    name: ClassVar[str] = "dip-tv"
    family: ClassVar[str] = "regularisation"
    summary: ClassVar[str] = "As dip-vanilla, without jitter and with total variation of the output."
    suits: ClassVar[str] = "few views of CT, piecewise smooth objects"
    citation: ClassVar[str] = "doi:10.1088/1361-6420/aba415"
    deviations: ClassVar[str] = "isotropic variation, averaged over pixels, with one weight for all data"
    changes: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "input_jitter": 0.0, "tv_weight": 3e-3}
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS
