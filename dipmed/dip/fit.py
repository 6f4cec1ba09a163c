"""The state of a fit in progress, and one iteration of it."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dipmed.config import FitConfig
from dipmed.dip.copies import Probe
from dipmed.dip.ending import Ending
from dipmed.dip.jitter import first_level
from dipmed.dip.method import FitMethod
from dipmed.dip.optimizers import cosine_decay, remember_rates, set_rate
from dipmed.dip.positive import without_negatives
from dipmed.dip.precision import autocast
from dipmed.dip.problem import Problem
from dipmed.dip.progress import Progress
from dipmed.dip.recovery import Snapshot, has_diverged
from dipmed.dip.start import start_from
from dipmed.dip.stopping import Panel
from dipmed.dip.stopping.budget import Resumed
from dipmed.nets import channels_last, checkpoint_activations, last_format, to_channels, to_image
from dipmed.scan import DivergedError, StopReason
from operators import block_means, total_variation

CHECK_INTERVAL = 10
"""Iterations between looks at the loss: on a GPU each look waits for the device."""

_BEFORE_DARK = 30
"""Iterations after which no part of pixels is left dark; outputs begin near zero, and most parts leave it unaided."""

_RESTART_RATE = 0.3
"""Factor on the learning rates after a fit has diverged once."""


@dataclass(frozen=True)
class Loss:
    """What a prediction costs: the value, the gradient of the data term, and what to differentiate for that of all."""

    prediction: Tensor
    value: Tensor
    gradient: Tensor
    surrogate: Tensor


class Fit:
    """A fit in progress.

    Parameters
    ----------
    problem
        Scaled data and operator; replaced by the one with all data when held-out locations are given back.
    config, method, panel
        What is done: settings, hooks, and the rules that judge it.
    generator
        Of inputs and weights.
    start
        When the fit began, in the seconds of `time.perf_counter`.
    probe
        The problem of a twin, where a rule needs one: a fit with the same seeds that does each step after this one.
    weights
        Of a fit before, where this one starts, see `dipmed.dip.start`; None for fresh ones.

    Attributes
    ----------
    network, optimizers
        What is trained.
    input
        What the network sees before noise is added, ``(1, channel, x, y[, z])``.
    first_jitter
        Level of that noise at the first step.
    first_image
        The first image of it, as it was made, ``(1, set, x, y[, z])``; None where no share of it is returned.
    state
        What the method remembers from one iteration to the next, tensors by name.
    output, average
        The last image, and the running average of images, ``(1, set, x, y[, z])``; None without averaging.
    shape
        ``(x, y[, z])`` of an image.
    n_channels
        Real channels of an image: 1, or 2 for each complex one.
    """

    def __init__(
        self,
        problem: Problem,
        config: FitConfig,
        method: FitMethod,
        panel: Panel,
        generator: torch.Generator,
        start: float,
        probe: Probe | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.probe = probe
        self.first_jitter = first_level(config, problem)
        config = config.replace(first_jitter=self.first_jitter)  # so that a twin has no other
        # before anything is drawn, so that both draw the same
        self.twin = (
            None
            if probe is None
            else Fit(probe.problem, config, method, panel, _copy(generator), start, weights=weights)
        )
        self.problem = problem
        self.config = config
        self.method = method
        self.generator = generator
        self.start = start
        self.device = problem.y.device
        self.shape = tuple(problem.adjoint_data.shape[1:])
        self.n_channels = to_channels(problem.adjoint_data[None]).shape[1]
        self.autocast = autocast(config, self.device)
        self.memory_format = last_format(len(self.shape))
        self.iteration = 0
        self.last_steps = 0
        self.rate_factor = 1.0
        self.first_image: Tensor | None = None
        self.input = self._made_input()
        network = method.make_network(self, self.input.shape[1], self.n_channels)
        if weights is not None:
            start_from(network, weights)
        if config.checkpointing:
            checkpoint_activations(network)
        self.network: nn.Module = network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        self.optimizers = method.make_optimizers(self)
        remember_rates(self.optimizers)
        # the jitter's own generator, so that the number of draws before it does not matter
        self.jitter = torch.Generator(self.device).manual_seed(config.seed + 1)
        self.state: dict[str, Tensor] = {}
        self.average: Tensor | None = None
        self.output: Tensor = problem.adjoint_data[None]
        self.ending = Ending(panel, self.output)
        self._told: Counter[str] = Counter()
        self.losses: list[tuple[int, float]] = []
        method.begin(self)
        # two, because a step can spoil the weights after a loss that was still good
        self.snapshots = deque([self._snapshot(math.inf)], maxlen=2)

    @property
    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """The loss and each rule's criterion, ``(iteration, value)``."""
        panel = self.ending.panel
        panel.settle()
        return {"loss": self.losses, **panel.curves}

    @property
    def choices(self) -> dict[str, int]:
        """The iteration that each rule would return."""
        return self.ending.panel.choices(self.iteration, self.ending.chosen_at)

    @property
    def candidate(self) -> Tensor:
        """The image that would be chosen now: the running average, or the output where there is none."""
        return self.output if self.average is None else self.average

    @property
    def progress(self) -> float:
        """How far the fit is, 0 to 1, by iterations or by the clock, whichever is ahead."""
        by_iterations = self.iteration / self.config.iterations
        if self.config.time_limit is None:
            return by_iterations
        return max(by_iterations, (time.perf_counter() - self.start) / self.config.time_limit)

    def _made_input(self) -> Tensor:
        made = self.method.make_input(self)
        if self.config.input_share and self.config.inputs != ("noise",):
            self.first_image = to_image(made[:, : self.n_channels].clone())
        return made.contiguous(memory_format=self.memory_format)

    def network_output(self, seen: Tensor) -> Tensor:
        """Run the network, in the precision that was asked for; real ``(copy, channel, x, y[, z])``."""
        with self.autocast:
            channels = self.network(channels_last(seen))
        return channels.float()

    def image_of(self, channels: Tensor) -> Tensor:
        """Turn channels into images, ``(copy, set, x, y[, z])``, real ones without negative values if so configured."""
        image = to_image(channels)
        if not self.config.nonnegative or image.is_complex():
            return image
        return without_negatives(image, self.config.subpixels if self.iteration >= _BEFORE_DARK else 1)

    def with_first_image(self, image: Tensor) -> Tensor:
        """Mix an image ``(1, set, x, y[, z])`` with the first of the inputs, by the share that is configured."""
        return image if self.first_image is None else image.lerp(self.first_image, self.config.input_share)

    def data_consistent(self, gradient: Tensor) -> Tensor:
        """Move the output by a step of length one against ``gradient``, that of the squared data term there."""
        return self.output - gradient * (self.problem.energy / 2)

    def move_by(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Take other optimizers, before the first step."""
        self.optimizers = optimizers
        remember_rates(optimizers)
        self.snapshots.clear()
        self._remember(math.inf)

    def step(self) -> StopReason | None:
        """Do one iteration and say why the fit should end, if it should."""
        return self.look(self._advance())

    def look(self, loss: Tensor) -> StopReason | None:
        """Judge what an iteration has led to, and say why the fit should end, if it should.

        Raises
        ------
        DivergedError
            When the loss explodes or becomes NaN a second time.
        """
        if self.iteration % CHECK_INTERVAL == 0 or self.iteration == 1:
            value = float(loss)
            if has_diverged(value, self.snapshots[-1].loss):
                self._restart(value)
                return None
            self.losses.append((self.iteration, value))
            self._remember(value)
        return self.ending.judge(self)

    def _advance(self) -> Tensor:
        self.decay_rates()
        loss = self.loss_of(self.method.predict(self, self.method.network_input(self)))
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.surrogate.backward()  # type: ignore[no-untyped-call]
        self.method.before_step(self)
        for optimizer in self.optimizers:
            optimizer.step()
        self.accept(loss)
        if self.twin is not None:
            self.twin._advance()
        return loss.value

    def decay_rates(self) -> None:
        """Set the learning rates of the next step."""
        decays = self.config.schedule == "cosine" and not self.ending.rule.needs_constant_rate
        decay = cosine_decay(self.progress, self.config.final_rate) if decays else 1.0
        set_rate(self.optimizers, self.rate_factor * decay)

    def loss_of(self, prediction: Tensor) -> Loss:
        """Compare a prediction with the data, and add the penalties."""
        method = self.method
        with torch.no_grad():
            value, gradient = method.data_term(self, prediction)
        weight = self._loss_weight(value)
        # the data term enters by its gradient, so that one forward and one adjoint a step are enough
        surrogate = weight * torch.sum(to_channels(prediction) * to_channels(gradient))
        value = value.sqrt() if self.config.data_loss == "norm" else value
        for penalty in (self._total_variation(prediction), method.penalty(self, prediction)):
            if penalty is not None:
                surrogate = surrogate + penalty
                value = value + penalty.detach()
        return Loss(prediction, value, gradient, surrogate)

    @torch.no_grad()
    def accept(self, loss: Loss) -> None:
        """Take the image that a step was made from, after the step."""
        self.output = self.method.image(self, loss.prediction.detach())
        self._update_average()
        self.method.after_step(self, loss.gradient)
        self.iteration += 1

    def _loss_weight(self, value: Tensor) -> Tensor | float:
        """Derivative of the loss by the squared misfit."""
        return 0.5 / value.clamp(min=1e-12).sqrt() if self.config.data_loss == "norm" else 1.0

    def _total_variation(self, prediction: Tensor) -> Tensor | None:
        if not self.config.tv_weight:
            return None
        return self.config.tv_weight * total_variation(prediction, len(self.shape))

    def _update_average(self) -> None:
        if not self.config.averaging:
            return
        if self.average is None:
            self.average = self.output.clone()
            return
        # a short memory at first, so that the untrained outputs do not linger
        decay = min(self.config.averaging, self.iteration / (self.iteration + 10))
        self.average = torch.lerp(self.output, self.average, decay)

    def resume(self, more: float) -> None:
        """Go back to the iterate that the rule has chosen, to fit all data from there.

        Parameters
        ----------
        more
            Of iterations, by what the chosen ones are multiplied in all.
        """
        chosen = self.ending.chosen
        if self.ending.snapshot is not None:  # else the last one was taken, because the rule had nothing to say
            self._return_to(self.ending.snapshot)
        self.twin = None  # whose rule has seen enough
        self.give_back()
        n_further = math.ceil((more - 1) * self.iteration / Resumed.interval) * Resumed.interval
        last = self.iteration + max(Resumed.interval, n_further)
        self.config = self.config.replace(iterations=max(last, round(more * self.config.iterations)))
        rule = Resumed(last, self.problem.data_error(chosen))
        self.ending = Ending(Panel((rule,), self.problem), chosen, self.ending.chosen_at)
        self.losses = []
        self.snapshots = deque([self._snapshot(math.inf)], maxlen=2)

    def give_back(self) -> None:
        """Fit the data as well that were set apart."""
        self.problem = self.problem.with_all_data()
        if self.config.renew_input:
            with torch.no_grad():
                self.input.copy_(self._made_input())
        if self.twin is not None:
            self.twin.give_back()

    def _remember(self, loss: float) -> None:
        self.snapshots.append(self._snapshot(loss))
        if self.twin is not None:
            self.twin._remember(loss)

    def _snapshot(self, loss: float) -> Snapshot:
        tensors = {**self.state, "input": self.input}
        return Snapshot.take(self.iteration, loss, self.network, self.optimizers, tensors, self.average)

    def _restart(self, loss: float) -> None:
        if self.rate_factor < 1:
            raise DivergedError(
                f"the fit diverged again at iteration {self.iteration} (loss {loss:g}) after a restart at a lower "
                "rate; look for spikes in the data, or try --maps jsense, --method dip-vanilla or another --seed"
            )
        self._fall_back()

    def _fall_back(self) -> None:
        self.rate_factor = _RESTART_RATE
        self._return_to(self.snapshots[0])
        if self.twin is not None:
            self.twin._fall_back()

    def _return_to(self, snapshot: Snapshot) -> None:
        tensors = {**self.state, "input": self.input}
        self.iteration, self.average = snapshot.restore(self.network, self.optimizers, tensors)

    def finish(self, image: Tensor) -> Tensor:
        """Let the method end an image, join its parts, and undo the scale; ``(1, set, x, y[, z])``."""
        with torch.no_grad():
            return self._shown(self.method.result(self, image))

    def report(self, after: int = 0) -> Progress:
        """What a progress display may show now; iterations are counted on from those of a fit before."""
        elapsed = time.perf_counter() - self.start
        curves, rule = self.ending.panel.curves, self.ending.rule.name
        judged = curves[rule]
        new = {name: [(after + at, value) for at, value in curves[name][self._told[name] :]] for name in curves}
        self._told = Counter({name: len(points) for name, points in curves.items()})
        return Progress(
            iteration=after + self.iteration,
            iterations=after + self.config.iterations,
            data_error=self.losses[-1][1],
            rule=rule,
            criterion=judged[-1][1] if judged else None,
            points=new,
            seconds=elapsed,
            seconds_left=elapsed * (1 / max(self.progress, 1e-6) - 1),
            image=lambda: self._shown(self.candidate)[0],
        )

    def _shown(self, image: Tensor) -> Tensor:
        """An image as it is shown: pixels that are whole, in the units of the data."""
        return block_means(image, self.config.subpixels, (2, 3)) / self.problem.scale


def _copy(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    return copy
