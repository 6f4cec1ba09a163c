"""What a method of the deep image prior may change of a fit: a few hooks, each with the plain fit as its default.

The loop owns what all methods share: scaling, held-out data, optimizers and their rates, the running average, stopping,
recovery from divergence, the last steps towards the data. A method says what the network is and sees, what the loss
adds, what happens after a step, and what is returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dipmed.config import FitConfig
from dipmed.dip.inputs import make_input
from dipmed.dip.jitter import jitter_level
from dipmed.dip.last_steps import end_with_data
from dipmed.dip.optimizers import make_optimizers
from dipmed.nets import make_network, to_channels

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class FitMethod:
    """A method with its own options as dataclass fields; the plain fit of a U-Net where a subclass says nothing else.

    An instance holds options alone: what changes during a fit lies in ``fit.state``, tensors by name, which a recovery
    from divergence puts back, or in ``fit.input``.

    Attributes
    ----------
    name
        As on the command line.
    family
        What kind of change it makes to the vanilla method.
    summary, suits
        One line each: what it does, and what it is for.
    citation
        DOI or arXiv number.
    deviations
        How this port differs from the publication; empty where it does not.
    cost
        Seconds of an iteration relative to that of ``dip-vanilla``, about.
    takes_series
        Whether it fits all frames of a slice together, as `dipmed.operators.Frames`.
    modalities
        Scans that it is for: ``"mri"``, ``"ct"``.
    changes, ct_changes
        Its differences from a preset's `FitConfig`, and further ones for projections.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    summary: ClassVar[str]
    suits: ClassVar[str]
    citation: ClassVar[str]
    deviations: ClassVar[str] = ""
    cost: ClassVar[float] = 1.0
    modalities: ClassVar[tuple[str, ...]] = ("mri", "ct")
    takes_series: ClassVar[bool] = False
    changes: ClassVar[Mapping[str, Any]] = {}
    ct_changes: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def configure(cls, preset: FitConfig, modality: str) -> FitConfig:
        """The settings that this method makes of a preset."""
        further = cls.ct_changes if modality == "ct" else {}
        return preset.replace(**{**cls.changes, **further})

    def make_input(self, fit: Fit) -> Tensor:
        """Make what the network starts from, real ``(1, channel, x, y[, z])``; images come before noise."""
        return make_input(fit.problem, fit.config, fit.generator)

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        """Make the network on the CPU, from ``fit.generator`` alone."""
        config, ndim = fit.config, len(fit.shape)
        return make_network(config.network, n_in, n_out, ndim, fit.generator, gain=config.gain, block=config.subpixels)

    def make_optimizers(self, fit: Fit) -> list[torch.optim.Optimizer]:
        """Share what is trained among optimizers; their rates decay together."""
        return make_optimizers(fit.network, fit.config)

    def begin(self, fit: Fit) -> None:
        """Put what the method remembers into ``fit.state``; the network, input and optimizers are there by now."""

    def network_input(self, fit: Fit) -> Tensor:
        """Return what the network sees at this step, ``(copy, channel, x, y[, z])``: the input and fresh noise."""
        # one after the other in memory, because drawing in another order takes torch ten times as long
        jitter = torch.empty(fit.input.shape, device=fit.device).normal_(generator=fit.jitter)
        return fit.input.add(jitter, alpha=jitter_level(fit.first_jitter, fit.config.input_jitter, fit.progress))

    def predict(self, fit: Fit, seen: Tensor) -> Tensor:
        """Turn what the network saw into the image that is compared with the data, ``(1, set, x, y[, z])``."""
        return fit.image_of(fit.network_output(seen))

    def data_term(self, fit: Fit, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """Return the misfit of a prediction and its gradient, outside autograd."""
        return fit.problem.gradient(prediction)

    def penalty(self, fit: Fit, prediction: Tensor) -> Tensor | None:
        """Return what the loss adds to the misfit and the total variation; None for nothing."""
        return None

    def image(self, fit: Fit, prediction: Tensor) -> Tensor:
        """Turn a prediction into the image that is averaged and judged, ``(1, set, x, y[, z])``."""
        return prediction

    def before_step(self, fit: Fit) -> None:
        """Change gradients before the optimizers see them."""

    def after_step(self, fit: Fit, gradient: Tensor) -> None:
        """Do what follows a step; ``gradient`` is that of the data term at the prediction.

        By default the first image input moves towards the output, as ``fit.config.input_update`` says.
        """
        config = fit.config
        if config.input_update == "none" or config.inputs == ("noise",):
            return
        target = fit.output
        if config.input_update == "data-consistent":
            target = fit.data_consistent(gradient)
        fit.input[:, : fit.n_channels].lerp_(to_channels(target), config.input_drift)

    def result(self, fit: Fit, image: Tensor) -> Tensor:
        """Turn the chosen image into the one that is returned, in the units of the fit."""
        steps = fit.config.data_consistency_steps
        image, fit.last_steps = end_with_data(fit.problem, fit.with_first_image(image), steps)
        return image

    def standard_deviation(self, fit: Fit) -> Tensor | None:
        """How far the images lie apart that the method has drawn, ``(1, x, y[, z])``; None where it draws none.

        Of what is shown of them (`dipmed.dip.uncertainty.shown_of`), in the units of the fit.
        """
        return None
