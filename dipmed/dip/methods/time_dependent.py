"""One network for all frames of a series: a curve through time becomes a series of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from dipmed.dip.data_term import SeriesTerm
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.own_input import check_own_input
from dipmed.dip.methods.plain import PUBLISHED
from dipmed.nets import TimeDecoder, build, helix
from dipmed.scan import DipmedError
from operators import Frames

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit


@dataclass
class TimeDependent(FitMethod):
    """J. Yoo et al., IEEE TMI 40:3337-3348, 2021: ``min_θ Σ_t ‖A_t f(h(t); θ) − y_t‖²``, a few frames t at each step.

    h(t) is a helix, whose turns are the cycles of the motion; a small network maps its points to the seed of a decoder.
    The images of the frames that a step leaves out stay as they were last.

    Parameters
    ----------
    cycles
        How often the motion repeats in the series.
    n_frames_per_step
        Frames, drawn at random, that a step fits.
    channels
        Features of the decoder.
    """

    name: ClassVar[str] = "time-dependent"
    family: ClassVar[str] = "dynamic"
    summary: ClassVar[str] = "All frames of a slice from one network, which maps a curve through time to images."
    suits: ClassVar[str] = "series of frames that share their anatomy, each with few samples"
    citation: ClassVar[str] = "arXiv:1910.01684"
    deviations: ClassVar[str] = (
        "64 features instead of 128; normalised channel by channel; 3000 steps, over which the rate decays along a "
        "cosine; frames of a step are drawn without repetition; the images are a running average"
    )
    modalities: ClassVar[tuple[str, ...]] = ("mri",)
    takes_series: ClassVar[bool] = True
    changes: ClassVar[Mapping[str, Any]] = {**PUBLISHED, "input_jitter": 0.0, "schedule": "cosine"}

    cycles: float = 1.0
    n_frames_per_step: int = 1
    channels: int = 64

    def __post_init__(self) -> None:
        if self.n_frames_per_step < 1 or self.channels < 1:
            raise DipmedError(f"a step needs at least one frame, and the decoder one channel, got {self}")

    def make_input(self, fit: Fit) -> Tensor:
        """Points of the helix, ``(frame, 3, 1, 1[, 1])``."""
        check_own_input(self.name, fit.config)
        times = torch.linspace(0, 1, len(_series(fit).operators))
        points = helix(times, self.cycles).to(fit.device)
        return points.reshape(*points.shape, *(1 for _ in fit.shape))

    def make_network(self, fit: Fit, n_in: int, n_out: int) -> nn.Module:
        n_frames = len(_series(fit).operators)
        return build(
            lambda: TimeDecoder(n_in, n_out // n_frames, len(fit.shape), shape=fit.shape, channels=self.channels),
            fit.generator,
        )

    def begin(self, fit: Fit) -> None:
        n_frames = len(_series(fit).operators)
        fit.state["drawn"] = torch.arange(min(self.n_frames_per_step, n_frames), device=fit.device)
        fit.state["images"] = torch.zeros_like(fit.problem.adjoint_data[None])

    def network_input(self, fit: Fit) -> Tensor:
        """Draw the frames of this step; return their points, ``(frame, 3)``."""
        drawn = fit.state["drawn"]
        shuffled = torch.randperm(len(fit.input), generator=fit.jitter, device=fit.device)
        drawn.copy_(shuffled[: len(drawn)])
        return fit.input[drawn].flatten(1)

    def predict(self, fit: Fit, seen: Tensor) -> Tensor:
        """Images of the drawn frames, ``(1, frame · set, x, y[, z])``."""
        return fit.image_of(fit.network_output(seen)).flatten(0, 1)[None]

    def data_term(self, fit: Fit, prediction: Tensor) -> tuple[Tensor, Tensor]:
        """The misfit of the drawn frames, relative to the energy of the brightest of all."""
        term = fit.problem.data_term
        assert isinstance(term, SeriesTerm)  # noqa: S101  # the term of a series
        drawn = fit.state["drawn"].tolist()
        value, gradient = term.of_frames(drawn).gradient(prediction)
        energy = len(drawn) * torch.stack([one.energy for one in term.terms]).amax()
        return value / energy, gradient / energy

    def image(self, fit: Fit, prediction: Tensor) -> Tensor:
        """All frames, the drawn ones anew."""
        images = fit.state["images"]
        of_frame = (-1, _series(fit).n_sets, *fit.shape)
        images.view(of_frame)[fit.state["drawn"]] = prediction.reshape(of_frame)
        return images.clone()


def _series(fit: Fit) -> Frames:
    A = fit.problem.A
    if not isinstance(A, Frames):
        raise DipmedError("time-dependent fits a series of frames, but this is a single one; choose another method")
    return A
