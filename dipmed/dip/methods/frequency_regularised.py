"""Networks that are slow to produce fine detail: a smooth input, chosen up-sampling, kernels of bounded norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import Tensor, nn

from dipmed import nets
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.own_input import check_own_input, seed_shape
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import UNet, build, low_pass_noise
from dipmed.nets.lipschitz import bound_convolutions, lipschitz_penalty, subtract_means
from dipmed.nets.upsample import Upsampling
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit

_INPUT_SCALE = 0.1


@dataclass
class FrequencyRegularised(FitMethod):
    """``min_{θ, c} ‖A f(h * z; θ) − y‖₁ + λ Σ c_l²``: three ways to keep a network from fitting noise, each by itself.

    The input z is noise that was blurred once, by h. Up-sampling inserts zeros and filters them, by a Kaiser window or
    a Gaussian of chosen strength. The spectral norm of each kernel stays below a bound ``c_l``, which is fitted and
    pulled down by λ, or is the same number for all (Z. Shi et al., IJCV 2022, arXiv:2107.01125). With bounds,
    normalisations subtract the mean alone, because a scale would undo them.

    Y. Liu, Y. Pang, J. Li, Y. Chen, P.-T. Yap, "Architecture-agnostic untrained network priors for image
    reconstruction with frequency regularization", ECCV 2024.

    Parameters
    ----------
    architecture
        A decoder of few features, or the U-Net of ``network.channels``.
    blur
        Standard deviation of h in pixels of the input; 0 for none.
    upsample
        Filter or interpolation.
    taps, strength
        Of the filter: its length, and β of the window or σ of the Gaussian in pixels.
    lipschitz_weight
        λ; 0 for bounds that are not fitted.
    lipschitz_bound
        First value of the bounds; none for the norms of the first kernels, or without λ for no bounds.
    channels, layers, convolutions
        Of the decoder: features, sizes from the input to the image, convolutions on each of them.
    """

    name: ClassVar[str] = "frequency-regularised"
    family: ClassVar[str] = "re-parameterisation"
    summary: ClassVar[str] = "Smooth input, up-sampling by filters of chosen strength, bounds on the kernels."
    suits: ClassVar[str] = "fits that overfit early; small networks"
    citation: ClassVar[str] = "arXiv:2312.09988"
    deviations: ClassVar[str] = (
        "64 features; the noise is blurred once, where the published program blurs it again at each step; bounds come "
        "with normalisations that keep the scale; their penalty has no published weight that we know"
    )
    cost: ClassVar[float] = 1.1
    changes: ClassVar[Mapping[str, Any]] = {
        **PUBLISHED,
        "input_jitter": 0.0,
        "renew_input": False,
        "adam_rate": 8e-3,
        "data_loss": "absolute",
        "data_consistency_steps": 1,
    }
    ct_changes: ClassVar[Mapping[str, Any]] = {**HELD_OUT_VIEWS, "data_loss": "squares", "data_consistency_steps": 0}

    architecture: Literal["decoder", "u-net"] = "decoder"
    blur: float = 0.8
    upsample: Literal["kaiser", "gaussian", "nearest", "linear"] = "kaiser"
    taps: int = 11
    strength: float = 5.0
    lipschitz_weight: float = 0.0
    lipschitz_bound: float | None = None
    channels: int = 64
    layers: int = 6
    convolutions: int = 1

    def __post_init__(self) -> None:
        if self.blur < 0 or self.lipschitz_weight < 0:
            raise DipmedError(f"blur and lipschitz_weight must not be negative, got {self}")
        if min(self.channels, self.convolutions) < 1 or self.layers < 2:
            raise DipmedError(f"a decoder needs channels, a convolution and two layers or more, got {self}")
        if self.lipschitz_bound is not None and self.lipschitz_bound <= 0:
            raise DipmedError(f"lipschitz_bound must be positive, got {self.lipschitz_bound}")
        self._upsampling()  # refuses a filter that is none

    def make_input(self, fit: Fit) -> Tensor:
        check_own_input(self.name, fit.config)
        size = fit.shape
        if self.architecture == "decoder":
            size = seed_shape(lambda: self._decoder(fit, self.channels, 1))
        return (_INPUT_SCALE * low_pass_noise((1, self.channels, *size), self.blur, fit.generator)).to(fit.device)

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        network: nn.Module = build(lambda: self._construct(fit, n_in, n_out), fit.generator)
        if self._is_bounded:
            subtract_means(network)
            bound_convolutions(network, self.lipschitz_bound, learnable=self.lipschitz_weight > 0)
        return network

    def penalty(self, fit: Fit, prediction: Tensor) -> Tensor | None:
        return self.lipschitz_weight * lipschitz_penalty(fit.network) if self.lipschitz_weight else None

    @property
    def _is_bounded(self) -> bool:
        return self.lipschitz_weight > 0 or self.lipschitz_bound is not None

    def _upsampling(self) -> Upsampling:
        if self.upsample == "kaiser":
            return nets.Kaiser(self.taps, self.strength)
        return nets.Gaussian(self.taps, self.strength) if self.upsample == "gaussian" else self.upsample

    def _construct(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        if self.architecture == "decoder":
            return self._decoder(fit, n_in, n_out)
        return UNet(fit.config.network, n_in, n_out, len(fit.shape), upsample=self._upsampling())

    def _decoder(self, fit: Fit, n_in: int, n_out: int) -> nets.ConvDecoder:
        return nets.ConvDecoder(
            n_in,
            n_out,
            len(fit.shape),
            shape=fit.shape,
            channels=self.channels,
            layers=self.layers,
            upsample=self._upsampling(),
            convolutions=self.convolutions,
        )
