"""The random projector: an untrained network as it was drawn, of which the input is fitted instead of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dipmed.config import NetworkConfig
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import make_network
from dipmed.scan import DipmedError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit

_INPUT_SCALE = 0.1


@dataclass
class DeepRandomProjector(FitMethod):
    """``min_{z, φ} ‖A f(z; θ₀, φ) − y‖ + λ TV(f)``, where the convolutions θ₀ stay as they were drawn.

    What is fitted is the input z, a few channels in full resolution, and φ, the scales and shifts of all
    normalisations, one of the input among them. The network is shallow, so a step is cheap; total variation takes over
    part of what a deeper network would do.

    T. Li, H. Wang, Z. Zhuang, J. Sun, "Deep Random Projector: accelerated deep image prior", CVPR 2023.

    Parameters
    ----------
    input_channels
        Channels of z.
    """

    name: ClassVar[str] = "deep-random-projector"
    family: ClassVar[str] = "re-parameterisation"
    summary: ClassVar[str] = "Convolutions stay as drawn; the input and the normalisations are fitted."
    suits: ClassVar[str] = "fast images that are piecewise smooth"
    citation: ClassVar[str] = (
        "https://openaccess.thecvf.com/content/CVPR2023/html/"
        "Li_Deep_Random_Projector_Accelerated_Deep_Image_Prior_CVPR_2023_paper.html"
    )
    deviations: ClassVar[str] = (
        "isotropic variation of weight 0.2, a rate of 0.03 instead of 0.1, group normalisation in the network"
    )
    changes: ClassVar[Mapping[str, Any]] = {
        **PUBLISHED,
        "network": NetworkConfig(channels=(64,)),
        "input_jitter": 0.0,
        "renew_input": False,
        "data_loss": "norm",
        "tv_weight": 0.2,
        "adam_rate": 0.03,
    }
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    input_channels: int = 3

    def __post_init__(self) -> None:
        if self.input_channels < 1:
            raise DipmedError(f"input_channels must be at least 1, got {self.input_channels}")

    def make_input(self, fit: Fit) -> Tensor:
        z = torch.randn((1, self.input_channels, *fit.shape), generator=fit.generator)
        return (_INPUT_SCALE * z).to(fit.device)

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        network = make_network(fit.config.network, n_in, n_out, len(fit.shape), fit.generator)
        return nn.Sequential(nn.GroupNorm(n_in, n_in), network)

    def make_optimizers(self, fit: Fit) -> list[torch.optim.Optimizer]:
        fitted = [fit.input.requires_grad_()]
        fit.network.requires_grad_(False)
        for module in fit.network.modules():
            if isinstance(module, nn.GroupNorm):
                fitted += [parameter.requires_grad_() for parameter in module.parameters()]
        return [torch.optim.Adam(fitted, lr=fit.config.adam_rate, foreach=True)]
