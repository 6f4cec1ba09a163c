"""Fits that start from pre-trained weights: how these come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from dipmed.dip.method import FitMethod
from dipmed.nets import make_network
from dipmed.scan import DipmedError
from dipmed.weights import PretrainedWeights

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit

HOW_TO = "`python scripts/pretrain.py FILE.safetensors` makes them from synthetic images in minutes, see its --help"


@dataclass
class WarmStart(FitMethod):
    """A network that was trained before, on synthetic images alone, and sees the direct image of the scan's data.

    Parameters
    ----------
    weights
        What it learned.
    """

    weights: PretrainedWeights | None = None

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        """Build the network that the weights belong to, and load them."""
        pretrained = self.pretrained()
        network = make_network(pretrained.network, n_in, n_out, len(fit.shape), fit.generator)
        load_pretrained(network, pretrained)
        return network

    def pretrained(self) -> PretrainedWeights:
        """The weights.

        Raises
        ------
        DipmedError
            When there are none.
        """
        if self.weights is None:
            raise DipmedError(f"{self.name} starts from pre-trained weights; give --weights FILE: {HOW_TO}")
        return self.weights


def load_pretrained(network: nn.Module, pretrained: PretrainedWeights) -> None:
    """Put the weights into a network.

    Raises
    ------
    DipmedError
        When they belong to a network of other layers.
    """
    needed = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in pretrained.weights.items()}
    for name in sorted(needed.keys() | given.keys()):
        if needed.get(name) != given.get(name):
            raise DipmedError(
                f"the weights do not fit this network: {name} is {given.get(name, 'missing')}, but should be "
                f"{needed.get(name, 'absent')}; they are for {pretrained.modality.upper()} images of "
                f"{pretrained.ndim} dimensions, seen through one set of maps, and for {pretrained.network}"
            )
    network.load_state_dict({name: value.float() for name, value in pretrained.weights.items()})
