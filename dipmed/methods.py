"""The methods by name: what the command line lists, and how each becomes a reconstructor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dipmed.baselines import BASELINES
from dipmed.config import FitConfig
from dipmed.ct_baselines import CT_BASELINES
from dipmed.dip import DeepImagePrior, Observer, ProgressCallback
from dipmed.scan import DipmedError, Reconstruction
from operators import MRIOperator

Reconstructor = Callable[[Tensor, Any], Reconstruction]
"""Takes data and the operator that they belong to; which operators, is the method's to say."""


@dataclass(frozen=True)
class Method:
    """A name with what it stands for; ``changes`` are its differences from the preset, None for a baseline.

    ``modalities`` are the scans that it is for: ``"mri"``, ``"ct"``.
    """

    name: str
    family: str
    summary: str
    citation: str
    changes: dict[str, Any] | None = None
    modalities: tuple[str, ...] = ("mri", "ct")

    @property
    def is_fit(self) -> bool:
        return self.changes is not None

    def configure(self, preset: FitConfig) -> FitConfig:
        """The settings that this method makes of a preset."""
        return preset.replace(**(self.changes or {}))


_MRI, _CT = ("mri",), ("ct",)

_AS_PUBLISHED: dict[str, Any] = {
    "inputs": ("noise",),
    "input_jitter": 1 / 30,
    "input_update": "none",
    "tv_weight": 0.0,
    "kspace_exponent": 0.0,
    "phase_weight": 0.0,
    "nonnegative": False,
    "refit_share": 0.0,
    "optimizer": "adam",
    "adam_rate": 1e-3,
    "schedule": "constant",
    "iterations": 3000,
    "data_consistency_steps": 0,
}

_METHODS = (
    Method(
        "zero-filled",
        "direct",
        "Adjoint of the data: unmeasured samples are zero.",
        "doi:10.1002/mrm.1241",
        modalities=_MRI,
    ),
    Method(
        "cg-sense",
        "direct",
        "Least squares by conjugate gradients, l2-regularised.",
        "doi:10.1002/mrm.1241",
        modalities=_MRI,
    ),
    Method(
        "l1-wavelet",
        "sparsity",
        "Compressed sensing with an l1 penalty on wavelets.",
        "doi:10.1002/mrm.21391",
        modalities=_MRI,
    ),
    Method("tv", "sparsity", "Compressed sensing with total variation.", "doi:10.1002/mrm.21391", modalities=_MRI),
    Method(
        "fbp",
        "direct",
        "Filtered back-projection; of cones on a circle by Feldkamp.",
        "doi:10.1137/1.9780898719277",
        modalities=_CT,
    ),
    Method(
        "sirt", "direct", "Simultaneous iterative reconstruction.", "doi:10.1016/0022-5193(72)90180-4", modalities=_CT
    ),
    Method(
        "cg-ls",
        "direct",
        "Least squares by conjugate gradients, l2-regularised.",
        "doi:10.6028/jres.049.044",
        modalities=_CT,
    ),
    Method(
        "cg-tv",
        "sparsity",
        "Least squares with total variation, no negative values.",
        "doi:10.1137/080725891",
        modalities=_CT,
    ),
    Method(
        "dip",
        "deep image prior",
        "The default, our best recipe: sparse image as input, orthogonalised updates, held-out stopping.",
        "doi:10.1007/s11263-020-01303-4",
        changes={},
    ),
    Method(
        "dip-vanilla",
        "deep image prior",
        "As published: fixed noise input with jitter, Adam, running average.",
        "doi:10.1007/s11263-020-01303-4",
        changes=_AS_PUBLISHED,
    ),
    Method(
        "dip-tv",
        "deep image prior",
        "As dip-vanilla, without jitter and with total variation of the output.",
        "doi:10.1088/1361-6420/aba415",
        changes={**_AS_PUBLISHED, "input_jitter": 0.0, "tv_weight": 3e-3},
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}


def find_method(name: str, modality: str | None = None) -> Method:
    """Look a method up; with a modality, it has to suit it.

    Raises
    ------
    DipmedError
        When there is none of that name, or not for this modality.
    """
    if name not in METHODS:
        raise DipmedError(f"unknown method {name!r}; choose one of {', '.join(METHODS)}")
    method = METHODS[name]
    if modality is not None and modality not in method.modalities:
        suited = ", ".join(other.name for other in METHODS.values() if modality in other.modalities)
        raise DipmedError(f"{name} is not for {modality.upper()} scans; choose one of {suited}")
    return method


def make_reconstructor(
    method: Method,
    config: FitConfig,
    *,
    noise_variance: float | None = None,
    A_final: MRIOperator | None = None,
    ray_weights: Tensor | None = None,
    progress: ProgressCallback | None = None,
    observer: Observer | None = None,
) -> Reconstructor:
    """Make the callable ``(y, A) -> Reconstruction`` of a method; ``config`` matters to fits alone."""
    if not method.is_fit:
        baseline: Reconstructor = (BASELINES | CT_BASELINES)[method.name]()
        return baseline
    return DeepImagePrior(
        config,
        method=method.name,
        noise_variance=noise_variance,
        A_final=A_final,
        ray_weights=ray_weights,
        progress=progress,
        observer=observer,
    )
