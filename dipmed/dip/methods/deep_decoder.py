"""The Deep Decoder: an image from so few weights that there are none left for the noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dipmed import nets
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.own_input import check_own_input, seed_shape
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import build
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit

_INPUT_SCALE = 0.1


@dataclass
class DeepDecoder(FitMethod):
    """``min_θ ‖A f(z; θ) − y‖²``, where f mixes channels pixel by pixel, and up-sampling alone looks at neighbours.

    With fewer weights than pixels the fit may go on to its end: what the network cannot show, it cannot fit. For
    undersampled data more channels and layers fit better, and then an early end matters again.

    R. Heckel, P. Hand, "Deep Decoder: concise image representations from untrained non-convolutional networks", ICLR
    2019.

    Parameters
    ----------
    channels, layers
        Features of every layer, and sizes from the input to the image, each twice the one before.
    """

    name: ClassVar[str] = "deep-decoder"
    family: ClassVar[str] = "re-parameterisation"
    summary: ClassVar[str] = "A decoder of 1x1 convolutions from a small random input, with few weights."
    suits: ClassVar[str] = "noisy scans, comparisons"
    citation: ClassVar[str] = "arXiv:1810.03982"
    deviations: ClassVar[str] = (
        "no sigmoid, because images may have any sign; the image is a running average, not that of the smallest loss"
    )
    cost: ClassVar[float] = 1.9
    changes: ClassVar[Mapping[str, Any]] = {
        **PUBLISHED,
        "input_jitter": 0.0,
        "renew_input": False,
        "adam_rate": 1e-2,
    }
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    channels: int = 128
    layers: int = 6

    def __post_init__(self) -> None:
        if self.channels < 1 or self.layers < 2:
            raise DipmedError(f"a decoder needs channels and two layers or more, got {self}")

    def make_input(self, fit: Fit) -> Tensor:
        check_own_input(self.name, fit.config)
        size = seed_shape(lambda: self._construct(fit, self.channels, 1))
        return (_INPUT_SCALE * torch.rand((1, self.channels, *size), generator=fit.generator)).to(fit.device)

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        return build(lambda: self._construct(fit, n_in, n_out), fit.generator)

    def _construct(self, fit: Fit, n_in: int, n_out: int) -> nets.DeepDecoder:
        return nets.DeepDecoder(
            n_in, n_out, len(fit.shape), shape=fit.shape, channels=self.channels, layers=self.layers
        )
