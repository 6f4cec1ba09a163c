"""The deep image prior in a sub-space of its weights: few numbers to fit, and little room for noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dipmed.dip.methods.plain import BACK_PROJECTED, IMAGE_INPUT
from dipmed.dip.methods.warm_start import WarmStart
from dipmed.scan import DipmedError
from dipmed.weights import PretrainedWeights

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


class SubspaceNetwork(nn.Module):
    """A network whose weights are ``θ₀ + U φ``; the coefficients φ, ``(direction,)``, are its only parameter.

    Parameters
    ----------
    network
        Holds ``θ₀``.
    directions
        U as `PretrainedWeights.directions`.
    """

    directions: Tensor
    origin: Tensor

    def __init__(self, network: nn.Module, directions: Mapping[str, Tensor]) -> None:
        super().__init__()
        named = dict(network.named_parameters())
        self.shapes = {name: value.shape for name, value in named.items()}
        # not a submodule: its own weights are neither trained nor moved
        self.structure = (network,)
        # not in the state either, which a recovery copies every few iterations
        origin = torch.cat([value.detach().flatten() for value in named.values()])
        self.register_buffer("origin", origin, persistent=False)
        matrix = torch.cat([directions[name].float().flatten(1) for name in named], 1)
        self.register_buffer("directions", matrix, persistent=False)
        self.coefficients = nn.Parameter(torch.zeros(len(matrix)))

    def weights(self) -> dict[str, Tensor]:
        """The network's weights by name."""
        with torch.autocast(self.origin.device.type, enabled=False):
            flat = self.origin + self.coefficients @ self.directions
        parts = torch.split(flat, [shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.functional_call(self.structure[0], self.weights(), (x,))


@dataclass
class Subspace(WarmStart):
    """R. Barbano et al., 2023: ``min_φ ‖A f(z; θ₀ + U φ) − y‖² + λ TV(f)`` with z the direct image of the data.

    The columns of U are the principal directions of the weights along a pre-training on synthetic images, which ended
    in ``θ₀``.

    Parameters
    ----------
    n_directions
        How many of the directions in the file to use, those of largest variance first; None for all.
    """

    name: ClassVar[str] = "subspace"
    family: ClassVar[str] = "pre-trained"
    summary: ClassVar[str] = "Fits few coefficients of weights that were pre-trained on synthetic images (--weights)."
    suits: ClassVar[str] = "noisy data, where a free network would fit the noise"
    citation: ClassVar[str] = "arXiv:2302.10279"
    deviations: ClassVar[str] = (
        "Adam alone, no L-BFGS or natural gradient; no sparse directions; isotropic variation, averaged over pixels; "
        "pre-training takes minutes; for MRI as well"
    )
    changes: ClassVar[Mapping[str, Any]] = {
        **IMAGE_INPUT,
        "tv_weight": 3e-3,
        "adam_rate": 1e-2,
        "iterations": 1500,
    }
    ct_changes: ClassVar[Mapping[str, Any]] = BACK_PROJECTED
    n_directions: int | None = None

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        pretrained = self.pretrained()
        return SubspaceNetwork(super().make_network(fit, n_in, n_out), self._directions(pretrained))

    def _directions(self, pretrained: PretrainedWeights) -> dict[str, Tensor]:
        n_given = pretrained.n_directions
        if n_given == 0:
            raise DipmedError(
                "the weights come without directions; make them with `python scripts/pretrain.py --directions N`"
            )
        n_used = n_given if self.n_directions is None else self.n_directions
        if not 1 <= n_used <= n_given:
            raise DipmedError(f"n_directions must be 1 to {n_given}, as many as the weights come with, got {n_used}")
        return {name: share[:n_used] for name, share in pretrained.directions.items()}
