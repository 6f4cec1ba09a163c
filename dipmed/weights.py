"""Weights that a network was given before it sees a scan, from synthetic images alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from dipmed.config import NetworkConfig


@dataclass(frozen=True, eq=False)
class PretrainedWeights:
    """What a file of weights holds, as tensors by the names of the network's parameters.

    Parameters
    ----------
    network
        Sizes of the U-Net that they belong to.
    modality
        Of the simulated scans: ``"mri"`` or ``"ct"``.
    ndim
        Dimensions of their images.
    weights
        Where a fit starts.
    directions
        Orthonormal directions in the space of all weights, each parameter's share of them as
        ``(direction, *shape of the parameter)``; empty where none were kept.
    steps, seed, version
        How they came about: steps of training, seed of images and weights, version of dipmed.
    """

    network: NetworkConfig
    modality: str
    ndim: int
    weights: Mapping[str, Tensor]
    directions: Mapping[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    seed: int = 0
    version: str = ""

    @property
    def n_directions(self) -> int:
        return min((len(share) for share in self.directions.values()), default=0)
