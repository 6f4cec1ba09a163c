"""The educated deep image prior: a short fit from weights that synthetic images have taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from torch import nn

from dipmed.dip.methods.plain import BACK_PROJECTED, IMAGE_INPUT
from dipmed.dip.methods.warm_start import WarmStart

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class Educated(WarmStart):
    """R. Barbano et al., IEEE TCI 8:1210-1222, 2022: ``min_θ ‖A f(z; θ) − y‖² + λ TV(f(z; θ))`` from ``θ₀``.

    ``θ₀`` minimises ``‖f(z; θ) − x‖²`` over simulated scans of random shapes x, whose direct image is z; then z is the
    direct image of the scan's own data.

    Parameters
    ----------
    fixed_encoder
        Leave the convolutions of the way down as they were learned.
    """

    name: ClassVar[str] = "edip"
    family: ClassVar[str] = "pre-trained"
    summary: ClassVar[str] = "A short fit from weights that were pre-trained on synthetic images (--weights)."
    suits: ClassVar[str] = "many scans of one kind, where minutes of pre-training once are well spent"
    citation: ClassVar[str] = "arXiv:2111.11926"
    deviations: ClassVar[str] = (
        "isotropic variation, averaged over pixels; a constant rate; pre-training takes minutes, with orthogonalised "
        "updates; the average of the outputs and not the iterate of lowest loss; for MRI as well"
    )
    changes: ClassVar[Mapping[str, Any]] = {
        **IMAGE_INPUT,
        "tv_weight": 3e-3,
        "iterations": 1500,
    }
    ct_changes: ClassVar[Mapping[str, Any]] = BACK_PROJECTED
    fixed_encoder: bool = False

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        network = super().make_network(fit, n_in, n_out)
        if self.fixed_encoder:
            cast(nn.Module, network.downs).requires_grad_(False)
        return network
