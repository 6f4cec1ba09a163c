"""What methods share that make the network's input themselves."""

from __future__ import annotations

from collections.abc import Callable

import torch

from dipmed.config import FitConfig
from dipmed.nets import ConvDecoder, DeepDecoder
from dipmed.scan import DipmedError


def check_own_input(name: str, config: FitConfig) -> None:
    """Refuse a configuration that asks for other inputs than the method's own."""
    if config.inputs != ("noise",):
        raise DipmedError(f"{name} makes its own input; leave inputs={','.join(config.inputs)} out")


def seed_shape(construct: Callable[[], ConvDecoder | DeepDecoder]) -> tuple[int, ...]:
    """Size of the input of a decoder, which is constructed without memory for that."""
    with torch.device("meta"):
        return construct().seed_shape
