"""The ConvDecoder: a narrow network from a small random input to the image, or to the image of every coil."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dipmed import nets
from dipmed.dip.data_term import AbsoluteTerm, ResidualTerm
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.own_input import check_own_input, seed_shape
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import build, to_image
from dipmed.scan import DipmedError
from operators import CartesianMRI, CartesianSampling, FourierTransform, LinearOperator

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class ConvDecoder(FitMethod):
    """``min_θ ‖A f(z; θ) − y‖²``, or over coils c ``min_θ Σ ‖M F f_c(z; θ) − y_c‖²``, where z is small and uniform.

    The second form needs no sensitivity maps for the fit: the network gives each coil an image of its own, which is
    Fourier-transformed (F) and compared at the sampled locations (M). The coil images are then combined.

    M. Zalbagi Darestani, R. Heckel, "Accelerated MRI with un-trained neural networks", IEEE TCI 7:724-733, 2021.

    Parameters
    ----------
    channels, layers
        Features of every layer, and sizes from the input to the image.
    upsample
        Interpolation between the sizes.
    coil_images
        Fit an image of every coil, as published, instead of one image through the sensitivity maps. Cartesian MRI.
    combine
        Coil images become one by their sensitivity ``"maps"``, or by the root of their sum of squares, ``"rss"``, with
        the phase that the maps give. The latter is not moved towards the data at the end.
    """

    name: ClassVar[str] = "conv-decoder"
    family: ClassVar[str] = "re-parameterisation"
    summary: ClassVar[str] = "A decoder of few features from a small random input; with or without sensitivity maps."
    suits: ClassVar[str] = "scans without trustworthy maps (coil_images=yes), comparisons"
    citation: ClassVar[str] = "arXiv:2007.02471"
    deviations: ClassVar[str] = (
        "one image through the sensitivity maps unless coil_images=yes; 64 features instead of 160; the last step "
        "towards the data goes through the maps; the image is a running average"
    )
    cost: ClassVar[float] = 1.4
    changes: ClassVar[Mapping[str, Any]] = {
        **PUBLISHED,
        "input_jitter": 0.0,
        "renew_input": False,
        "adam_rate": 8e-3,
        "data_consistency_steps": 1,
    }
    ct_changes: ClassVar[Mapping[str, Any]] = {**HELD_OUT_VIEWS, "data_consistency_steps": 0}

    channels: int = 64
    layers: int = 8
    upsample: Literal["nearest", "linear"] = "nearest"
    coil_images: bool = False
    combine: Literal["maps", "rss"] = "maps"

    def __post_init__(self) -> None:
        if self.channels < 1 or self.layers < 2:
            raise DipmedError(f"a decoder needs channels and two layers or more, got {self}")
        if self.combine == "rss" and not self.coil_images:
            raise DipmedError("combine=rss takes coil images, which coil_images=yes fits")

    def make_input(self, fit: Fit) -> Tensor:
        check_own_input(self.name, fit.config)
        size = seed_shape(lambda: self._construct(fit, self.channels, 1))
        return torch.rand((1, self.channels, *size), generator=fit.generator).to(fit.device)

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        if self.coil_images:
            n_out = 2 * self._n_coils(fit)
        return build(lambda: self._construct(fit, n_in, n_out), fit.generator)

    def _construct(self, fit: Fit, n_in: int, n_out: int) -> nets.ConvDecoder:
        return nets.ConvDecoder(
            n_in,
            n_out,
            len(fit.shape),
            shape=fit.shape,
            channels=self.channels,
            layers=self.layers,
            upsample=self.upsample,
        )

    def predict(self, fit: Fit, seen: Tensor) -> Tensor:
        return to_image(fit.network_output(seen)) if self.coil_images else super().predict(fit, seen)

    def data_term(self, fit: Fit, prediction: Tensor) -> tuple[Tensor, Tensor]:
        if not self.coil_images:
            return super().data_term(fit, prediction)
        problem = fit.problem
        mask = _cartesian(problem.A_fit).mask
        coils = problem.y_fit.shape
        A = CartesianSampling(mask, coils[0]) @ FourierTransform(tuple(coils), mask.ndim)
        kind = AbsoluteTerm if problem.data_loss == "absolute" else ResidualTerm
        term = kind(A, problem.y_fit, problem.weights)
        value, gradient = term.gradient(prediction)
        return value / term.energy, gradient / term.energy

    def image(self, fit: Fit, prediction: Tensor) -> Tensor:
        if not self.coil_images:
            return prediction
        A = _cartesian(fit.problem.A)
        by_set = A.maps.reshape(A.domain.shape[0], *A.range.shape)
        combined = torch.einsum("sc...,bc...->bs...", by_set.conj(), prediction)
        if self.combine == "maps":
            return combined
        return torch.polar(torch.linalg.vector_norm(prediction, dim=1, keepdim=True), combined.angle())

    def result(self, fit: Fit, image: Tensor) -> Tensor:
        return image if self.combine == "rss" else super().result(fit, image)

    def _n_coils(self, fit: Fit) -> int:
        A = _cartesian(fit.problem.A)
        if fit.problem.smooth_phase is not None:
            raise DipmedError("coil images have no phase to compare with; set phase_weight=0")
        if self.combine == "rss" and A.domain.shape[0] > 1:
            raise DipmedError("combine=rss gives one image, but the maps are several sets; set combine=maps")
        return A.range.shape[0]


def _cartesian(A: LinearOperator) -> CartesianMRI:
    if not isinstance(A, CartesianMRI):
        raise DipmedError(f"coil_images=yes is for Cartesian MRI, not for {A!r}; leave it out to fit one image")
    return A
