"""Optimal Eye Surgeon: a sparse part of the network is found before it is fitted, and fitted alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import HELD_OUT_VIEWS, PUBLISHED
from dipmed.nets import Hourglass, to_channels
from dipmed.nets.factory import build
from dipmed.nets.masks import call_masked, keep_largest, mask_gradients, mask_weights, prunable_weights, relaxed_mask
from dipmed.scan import DipmedError, ShapeError

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit

_PREFIX = "mask."


@dataclass
class OptimalEyeSurgeon(FitMethod):
    """``min_θ ‖A f(z; m∘θ) − y‖²``, where the mask m keeps a few of the weights, and is found before they are fitted.

    Each weight has a logit p. With the weights as they were drawn, θ₀, gradient descent on p minimises

        E ‖A f(z; m∘θ₀) − y‖² / ‖y‖² + λ Σ KL(σ(p) ‖ ``keep``),   m ~ Bernoulli(σ(p)), relaxed

    and the weights of the largest logits are kept. So few are left that they cannot show noise.

    A. Ghosh, X. Zhang, K. K. Sun, Q. Qu, S. Ravishankar, R. Wang, "Optimal Eye Surgeon: finding image priors through
    sparse generators at initialization", ICML 2024, arXiv:2406.05288. They find that masks serve other images as well.

    Parameters
    ----------
    keep
        Share of the weights that are kept.
    mask_steps, mask_rate
        Steps and rate of Adam on the logits, before the iterations of the fit begin.
    temperature
        Of the relaxed masks.
    divergence_weight
        λ.
    channels
        Of the network, finest scale first.
    masks
        Found before, by the name of each weight, in place of a search.
    on_masks
        Called with the masks of a search, to keep them for other scans; `dipmed.io.mask_file` writes them to a file.
    """

    name: ClassVar[str] = "optimal-eye-surgeon"
    family: ClassVar[str] = "re-parameterisation"
    summary: ClassVar[str] = "A twentieth of the weights is chosen from the data, and fitted alone."
    suits: ClassVar[str] = "noisy scans, long fits without an early end"
    citation: ClassVar[str] = "arXiv:2406.05288"
    deviations: ClassVar[str] = "500 steps for the mask at a rate of 0.1 instead of 60 000 at 0.01, group normalisation"
    changes: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "input_jitter": 0.0, "adam_rate": 1e-2}
    ct_changes: ClassVar[Mapping[str, Any]] = HELD_OUT_VIEWS

    keep: float = 0.05
    mask_steps: int = 500
    mask_rate: float = 0.1
    temperature: float = 0.2
    divergence_weight: float = 1e-9
    channels: tuple[int, ...] = (16, 32, 64, 128, 128, 128)
    masks: Mapping[str, Tensor] | None = None
    on_masks: Callable[[dict[str, Tensor]], None] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1 or self.temperature <= 0 or self.mask_steps < 0:
            raise DipmedError(
                "keep must lie between 0 and 1, temperature above 0 and mask_steps not below 0, "
                f"got {self.keep}, {self.temperature} and {self.mask_steps}"
            )

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        return build(lambda: Hourglass(n_in, n_out, len(fit.shape), channels=self.channels), fit.generator)

    def begin(self, fit: Fit) -> None:
        weights = prunable_weights(fit.network)
        if self.masks is None:
            masks = keep_largest(self._logits(fit, weights), self.keep)
            if self.on_masks is not None:
                self.on_masks({name: mask.cpu() for name, mask in masks.items()})
        else:
            _check(self.masks, weights)
            masks = {name: self.masks[name].to(fit.device) for name in weights}
        mask_weights(fit.network, masks)
        fit.state.update({_PREFIX + name: mask for name, mask in masks.items()})

    def before_step(self, fit: Fit) -> None:
        mask_gradients(fit.network, _masks(fit))

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        super().after_step(fit, gradient)
        mask_weights(fit.network, _masks(fit))  # orthogonalised updates are dense

    def _logits(self, fit: Fit, weights: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Search for the weights that matter while none of them changes."""
        logits = {name: torch.zeros_like(weight).requires_grad_() for name, weight in weights.items()}
        optimizer = torch.optim.Adam(logits.values(), lr=self.mask_rate, foreach=True)
        fit.network.requires_grad_(False)
        for _ in range(self.mask_steps):
            relaxed = {name: relaxed_mask(logit, self.temperature, fit.jitter) for name, logit in logits.items()}
            with fit.autocast:
                channels = call_masked(fit.network, relaxed, self.network_input(fit))
            prediction = fit.image_of(channels.float())
            with torch.no_grad():
                _, gradient = self.data_term(fit, prediction)
            loss = torch.sum(to_channels(prediction) * to_channels(gradient))
            for logit in logits.values():
                loss = loss + self.divergence_weight * _divergence(logit, self.keep)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        fit.network.requires_grad_(True)
        return logits


def _divergence(logit: Tensor, share: float) -> Tensor:
    """Kullback-Leibler divergence of Bernoulli variables from those that are one with probability ``share``, summed."""
    kept, dropped = nn.functional.logsigmoid(logit), nn.functional.logsigmoid(-logit)
    return torch.sum(kept.exp() * (kept - math.log(share)) + dropped.exp() * (dropped - math.log(1 - share)))


def _masks(fit: Fit) -> dict[str, Tensor]:
    return {name.removeprefix(_PREFIX): mask for name, mask in fit.state.items() if name.startswith(_PREFIX)}


def _check(masks: Mapping[str, Tensor], weights: Mapping[str, nn.Parameter]) -> None:
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    if shapes != {name: tuple(weight.shape) for name, weight in weights.items()}:
        raise ShapeError("the masks are of another network: they need the same channels, inputs and dimensions")
