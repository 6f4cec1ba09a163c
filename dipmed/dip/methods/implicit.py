"""Implicit representations: the image is a function of position, fitted by a perceptron instead of convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.own_input import check_own_input
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import ImplicitNetwork, build, coordinates, fourier_features
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class Implicit(FitMethod):
    """``min_θ ‖A f(γ(p); θ) − y‖² + λ TV(f)``, where f sees the position p of one pixel at a time.

    The position is turned into waves of random frequencies, ``γ(p) = (sin 2πBp, cos 2πBp)``, or stays as it is, and f
    is a perceptron with sines (SIREN) or rectifiers. The frequencies and ``w0`` say how fine a detail comes easily.
    The weight λ is ``tv_weight``, for slices and volumes.

    Of slices and volumes of CT: L. Shen, J. Pauly, L. Xing, "NeRP", arXiv:2108.10991. Of MRI with sines and total
    variation: R. Feng et al., "IMJENSE", arXiv:2311.12892.

    Parameters
    ----------
    frequencies
        Number of random frequencies; 0 for the positions themselves.
    frequency_scale
        Standard deviation of the frequencies, in cycles per half a field of view.
    activation
        ``"sine"`` or ``"relu"``.
    w0
        Factor in each sine.
    channels, layers
        Features of every layer, and layers before the last one.
    """

    name: ClassVar[str] = "implicit"
    family: ClassVar[str] = "implicit"
    summary: ClassVar[str] = "A perceptron from positions to values, with Fourier features, sines or rectifiers."
    suits: ClassVar[str] = "k-space, smooth images, values between pixels"
    citation: ClassVar[str] = "arXiv:2108.10991"
    deviations: ClassVar[str] = (
        "no earlier scan of the patient to start from; sensitivity maps are not fitted with the image; isotropic "
        "variation, averaged over pixels"
    )
    cost: ClassVar[float] = 3.6
    changes: ClassVar[Mapping[str, Any]] = {
        **PUBLISHED,
        "input_jitter": 0.0,
        "renew_input": False,
        "adam_rate": 1e-4,
    }
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    frequencies: int = 256
    frequency_scale: float = 2.0
    activation: Literal["sine", "relu"] = "sine"
    w0: float = 30.0
    channels: int = 256
    layers: int = 8

    def __post_init__(self) -> None:
        if self.frequencies < 0 or min(self.channels, self.layers) < 1:
            raise DipmedError(f"a perceptron needs channels, a layer and no negative number of frequencies, got {self}")
        if self.frequency_scale <= 0 or self.w0 <= 0:
            raise DipmedError(f"frequency_scale and w0 must be positive, got {self}")

    def make_input(self, fit: Fit) -> Tensor:
        check_own_input(self.name, fit.config)
        positions = coordinates(fit.shape)
        if self.frequencies:
            positions = fourier_features(positions, self.frequencies, self.frequency_scale, fit.generator)
        return positions.to(fit.device)

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        ndim = len(fit.shape)
        return build(
            lambda: ImplicitNetwork(
                n_in, n_out, ndim, channels=self.channels, layers=self.layers, activation=self.activation, w0=self.w0
            ),
            fit.generator,
        )
