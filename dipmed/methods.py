"""The methods by name: what the command line lists, and how each becomes a reconstructor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from dipmed.assignments import assignable, read_value, split_assignment
from dipmed.baselines import BASELINES
from dipmed.config import FitConfig, NetworkConfig
from dipmed.ct_baselines import CT_BASELINES
from dipmed.dip import DeepImagePrior, Observer, ProgressCallback, Uncertainty
from dipmed.dip.methods import FIT_METHODS, FitMethod
from dipmed.dip.methods.warm_start import WarmStart
from dipmed.scan import DipmedError, Reconstruction
from operators import LinearOperator

Reconstructor = Callable[[Tensor, Any], Reconstruction]
"""Takes data and the operator that they belong to; which operators, is the method's to say."""


@dataclass(frozen=True)
class Method:
    """A name with what it stands for; ``fit`` is the class of a fit, None for a baseline.

    ``modalities`` are the scans that it is for: ``"mri"``, ``"ct"``. ``cost`` is what an iteration of a fit takes,
    relative to that of ``dip-vanilla``; None for a baseline.
    """

    name: str
    family: str
    summary: str
    citation: str
    modalities: tuple[str, ...] = ("mri", "ct")
    suits: str = ""
    deviations: str = ""
    cost: float | None = None
    fit: type[FitMethod] | None = None

    @property
    def is_fit(self) -> bool:
        return self.fit is not None

    @property
    def takes_series(self) -> bool:
        """Whether it fits all frames of a slice together."""
        return self.fit is not None and self.fit.takes_series

    @property
    def takes_weights(self) -> bool:
        """Whether it starts from pre-trained weights."""
        return self.fit is not None and issubclass(self.fit, WarmStart)

    @property
    def can_start_warm(self) -> bool:
        """Whether it can start from the weights that its fit of another image has ended with."""
        return self.fit is not None and self.fit.make_network is FitMethod.make_network

    @property
    def takes_guide(self) -> bool:
        """Whether it has a similar image as an option."""
        return self.fit is not None and "guide" in {field.name for field in fields(self.fit)}

    def configure(self, preset: FitConfig, modality: str) -> FitConfig:
        """The settings that this method makes of a preset."""
        return preset if self.fit is None else self.fit.configure(preset, modality)

    @property
    def keys(self) -> dict[str, Any]:
        """Names and types of what ``KEY=VALUE`` can set: the method's own options, then settings of any fit."""
        own = {} if self.fit is None else assignable(self.fit)
        network = {f"network.{name}": hint for name, hint in assignable(NetworkConfig).items()}
        return {**assignable(FitConfig), **network, **own}

    def read_settings(self, texts: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read texts ``KEY=VALUE`` or ``METHOD.KEY=VALUE``, those for other methods left out.

        Returns
        -------
        options, changes
            Fields of the method's class, and of `FitConfig`, where ``"network"`` is a dictionary of its own.

        Raises
        ------
        DipmedError
            When a key is unknown or a value is none of its type.
        """
        own = set() if self.fit is None else set(assignable(self.fit))
        options: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        for text in texts:
            key, value = split_assignment(text)
            prefix, dot, rest = key.partition(".")
            if dot and prefix in METHODS:
                if prefix != self.name:
                    continue
                key = rest
            if key not in self.keys:
                raise DipmedError(f"{self.name} has no setting {key!r}; there are {', '.join(sorted(self.keys))}")
            read = read_value(key, value, self.keys[key])
            if key in own:
                options[key] = read
            elif key.startswith("network."):
                changes.setdefault("network", {})[key.removeprefix("network.")] = read
            else:
                changes[key] = read
        return options, changes


_MRI, _CT = ("mri",), ("ct",)

_BASELINES = (
    Method("zero-filled", "direct", "Adjoint of the data: unmeasured samples are zero.", "doi:10.1002/mrm.1241", _MRI),
    Method("cg-sense", "direct", "Least squares by conjugate gradients, l2-regularised.", "doi:10.1002/mrm.1241", _MRI),
    Method(
        "l1-wavelet", "sparsity", "Compressed sensing with an l1 penalty on wavelets.", "doi:10.1002/mrm.21391", _MRI
    ),
    Method("tv", "sparsity", "Compressed sensing with total variation.", "doi:10.1002/mrm.21391", _MRI),
    Method(
        "fbp",
        "direct",
        "Filtered back-projection; of cones on a circle by Feldkamp.",
        "doi:10.1137/1.9780898719277",
        _CT,
    ),
    Method("sirt", "direct", "Simultaneous iterative reconstruction.", "doi:10.1016/0022-5193(72)90180-4", _CT),
    Method("cg-ls", "direct", "Least squares by conjugate gradients, l2-regularised.", "doi:10.6028/jres.049.044", _CT),
    Method(
        "cg-tv", "sparsity", "Least squares with total variation, no negative values.", "doi:10.1137/080725891", _CT
    ),
)


def _of_fit(fit: type[FitMethod]) -> Method:
    return Method(
        name=fit.name,
        family=fit.family,
        summary=fit.summary,
        citation=fit.citation,
        modalities=fit.modalities,
        suits=fit.suits,
        deviations=fit.deviations,
        cost=fit.cost,
        fit=fit,
    )


METHODS: dict[str, Method] = {
    method.name: method for method in (*_BASELINES, *(_of_fit(fit) for fit in FIT_METHODS.values()))
}


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
    options: dict[str, Any] | None = None,
    noise_variance: float | None = None,
    A_final: LinearOperator | None = None,
    ray_weights: Tensor | None = None,
    progress: ProgressCallback | None = None,
    observer: Observer | None = None,
    uncertainty: Uncertainty | None = None,
    start: Tensor | None = None,
    keep_weights: bool = False,
) -> Reconstructor:
    """Make the callable ``(y, A) -> Reconstruction`` of a method; all but the method matter to fits alone.

    ``options`` are fields of the method's class.
    """
    if method.fit is None:
        baseline: Reconstructor = (BASELINES | CT_BASELINES)[method.name]()
        return baseline
    return DeepImagePrior(
        config,
        method=method.fit(**(options or {})),
        noise_variance=noise_variance,
        A_final=A_final,
        ray_weights=ray_weights,
        progress=progress,
        observer=observer,
        uncertainty=uncertainty,
        start=start,
        keep_weights=keep_weights,
    )
