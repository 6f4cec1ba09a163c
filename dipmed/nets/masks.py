"""Sub-networks: which weights are kept, and a way to learn it.

The parts of A. Ghosh et al., Optimal Eye Surgeon, ICML 2024, arXiv:2406.05288: a mask is drawn from the logits of its
weights, the logits are fitted with the first weights as they are, and the weights with the largest ones are fitted
alone. Masks go by the name of the weight that they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from dipmed.scan import DipmedError


def prunable_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Kernels of convolutions and linear layers by name; constants and normalisations are kept in any case."""
    return {
        f"{name}.weight" if name else "weight": module.get_parameter("weight")
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear))
    }


def relaxed_mask(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Draw a mask between 0 and 1 that is 1 with probability ``sigmoid(logits)`` as the temperature goes to 0.

    The difference of two Gumbel noises, which is logistic, is added to the logits, so that gradients reach them
    (C. Maddison et al., ICLR 2017, arXiv:1611.00712; E. Jang et al., ICLR 2017, arXiv:1611.01144).

    Parameters
    ----------
    logits
        Of any shape.
    temperature
        Above 0; lower ones are closer to binary and have steeper gradients.
    generator
        Of the noise, on the device of ``logits``.
    """
    uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=logits.dtype)
    return torch.sigmoid((logits + uniform.log() - torch.log1p(-uniform)) / temperature)


def call_masked(network: nn.Module, masks: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
    """Apply the network with its weights times the masks, so that gradients reach the masks; it stays as it is."""
    masked = {name: network.get_parameter(name) * mask for name, mask in masks.items()}
    return functional_call(network, masked, inputs)


def keep_largest(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Make masks that keep the largest scores of all weights together, exactly ``share`` of them, rounded.

    Raises
    ------
    DipmedError
        When the share keeps nothing, or is above 1.
    """
    flat = torch.cat([score.detach().flatten() for score in scores.values()])
    n_kept = round(share * len(flat))
    if not 1 <= n_kept <= len(flat):
        raise DipmedError(
            f"a mask must keep at least one of {len(flat)} weights and at most all, got a share of {share}"
        )
    kept = torch.zeros_like(flat, dtype=torch.bool)
    kept[flat.topk(n_kept).indices] = True
    parts = torch.split(kept, [score.numel() for score in scores.values()])
    return {name: part.reshape(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}


@torch.no_grad()
def mask_weights(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights that are not kept to zero, in place."""
    for name, mask in masks.items():
        network.get_parameter(name).mul_(mask)


@torch.no_grad()
def mask_gradients(network: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the gradients of weights that are not kept to zero, in place, so that a step of Adam leaves them there."""
    for name, mask in masks.items():
        gradient = network.get_parameter(name).grad
        if gradient is not None:
            gradient.mul_(mask)


def kept_share(masks: Mapping[str, Tensor]) -> float:
    """The share of weights that the masks keep."""
    return sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
