"""The fit: an untrained network's weights are moved until its image explains the measured data."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from dipmed.config import FitConfig
from dipmed.dip.inputs import make_input
from dipmed.dip.optimizers import cosine_decay, make_optimizers, set_rate
from dipmed.dip.precision import autocast
from dipmed.dip.problem import Problem, make_problem
from dipmed.dip.recovery import Snapshot, has_diverged
from dipmed.dip.stopping import StoppingRule, find_rule, watching_rules
from dipmed.nets import crop_to, make_network, pad_to_multiple, to_channels, to_image
from dipmed.scan import DivergedError, Reconstruction, StopReason
from operators import LinearOperator, total_variation

_CHECK_INTERVAL = 10
"""Iterations between looks at the loss: on a GPU each look waits for the device."""

_SHARPNESS = 50.0
"""Of the bend at zero that keeps images from becoming negative: it is about 1 % of a CT image's peak wide."""

_RESTART_RATE = 0.3
"""Factor on the learning rates after a fit has diverged once."""


@dataclass(frozen=True)
class Progress:
    """What a progress display may show after some iterations."""

    iteration: int
    iterations: int
    data_error: float
    criterion: float | None
    seconds_left: float


ProgressCallback = Callable[[Progress], None]
Observer = Callable[[int, Tensor], None]
"""Takes the iteration and the image as it would be returned then; the fit never learns what it does with them."""


class DeepImagePrior:
    """Reconstruct one image by fitting an untrained network to one set of measurements.

    Parameters
    ----------
    config
        Settings of the fit.
    method
        Name that the result carries.
    noise_variance
        Of one complex sample of the data, when it was measured.
    A_final
        Operator of the data-consistency steps that end the fit, when it is not the one that is fitted: sensitivity
        maps that reach into a margin around the support find there what the fit could not show.
    ray_weights
        Of projections, see `dipmed.operators.FilteredProjector`.
    progress
        Called every few iterations.
    observer, observer_interval
        Called with the image of every ``observer_interval``-th iteration, for evaluation from outside.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep image prior", IJCV 2020, doi:10.1007/s11263-020-01303-4.
    """

    def __init__(
        self,
        config: FitConfig | None = None,
        *,
        method: str = "dip",
        noise_variance: float | None = None,
        A_final: LinearOperator | None = None,
        ray_weights: Tensor | None = None,
        progress: ProgressCallback | None = None,
        observer: Observer | None = None,
        observer_interval: int = 25,
    ) -> None:
        self.config = config or FitConfig()
        self.method = method
        self.noise_variance = noise_variance
        self.A_final = A_final
        self.ray_weights = ray_weights
        self.progress = progress
        self.observer = observer
        self.observer_interval = observer_interval

    def __call__(self, y: Tensor, A: LinearOperator) -> Reconstruction:
        """Fit ``y``, one element of the range of ``A``; an interruption returns the best image so far.

        Raises
        ------
        DivergedError
            When the loss explodes or becomes NaN a second time, after a restart at a lower rate.
        """
        start = time.perf_counter()
        rule = find_rule(self.config.stop)()
        generator = torch.Generator().manual_seed(self.config.seed)
        problem = make_problem(
            y,
            A,
            kspace_exponent=self.config.kspace_exponent,
            phase_weight=self.config.phase_weight,
            held_out=self.config.held_out if rule.needs_held_out else None,
            noise_variance=self.noise_variance,
            generator=generator,
            A_final=self.A_final,
            ray_weights=self.ray_weights,
        )
        fit = _Fit(problem, self.config, rule, generator, start)
        stop = self._run(fit)
        image = fit.finish(fit.chosen)
        return Reconstruction(
            image=image[0],
            method=self.method,
            stop=stop,
            iterations=fit.iteration,
            seconds=time.perf_counter() - start,
            curves=fit.curves,
            scale=problem.scale,
        )

    def _run(self, fit: _Fit) -> StopReason:
        try:
            while True:
                reason = fit.step()
                if self.observer is not None and fit.iteration % self.observer_interval == 0:
                    self.observer(fit.iteration, fit.finish(fit.candidate)[0])
                if self.progress is not None and fit.iteration % _CHECK_INTERVAL == 0:
                    self.progress(fit.report())
                if reason is not None:
                    return reason
        except KeyboardInterrupt:
            if fit.iteration == 0:
                raise
            return StopReason("interrupted", fit.chosen_at, f"interrupted at iteration {fit.iteration}")


class _Fit:
    """The state of a fit in progress."""

    def __init__(
        self, problem: Problem, config: FitConfig, rule: StoppingRule, generator: torch.Generator, start: float
    ) -> None:
        self.problem = problem
        self.config = config
        self.rule = rule
        self.watchers = watching_rules(rule, problem)
        self.start = start
        self.device = problem.y.device
        self.shape = tuple(problem.adjoint_data.shape[1:])
        self.autocast = autocast(config, self.device)
        ndim = len(self.shape)
        memory_format = torch.channels_last if ndim == 2 else torch.channels_last_3d
        network_input = make_input(problem, config, generator)
        self.n_channels = to_channels(problem.adjoint_data[None]).shape[1]
        network = make_network(config.network, network_input.shape[1], self.n_channels, ndim, generator)
        self.network: nn.Module = network.to(self.device, memory_format=memory_format)  # type: ignore[call-overload]
        self.optimizers = make_optimizers(self.network, config)
        self.generator = generator
        self.memory_format = memory_format
        self.input = self._padded(network_input)
        # the jitter's own generator, so that the number of draws before it does not matter
        self.jitter = torch.Generator(self.device).manual_seed(config.seed + 1)
        self.average: Tensor | None = None
        self.iteration = 0
        self.rate_factor = 1.0
        self.chosen: Tensor = problem.adjoint_data[None]
        self.chosen_at = 0
        self.refit_from: int | None = None
        self.output = self.chosen
        self.curves: dict[str, list[tuple[int, float]]] = {"loss": [], rule.name: []}
        # two, because a step can spoil the weights after a loss that was still good
        self.snapshots = deque([self._snapshot(math.inf)], maxlen=2)

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

    def step(self) -> StopReason | None:
        """Do one iteration and say why the fit should end, if it should."""
        self._set_rate()
        loss = self._update_weights()
        self.iteration += 1
        if self.iteration % _CHECK_INTERVAL == 0 or self.iteration == 1:
            value = float(loss)
            if has_diverged(value, self.snapshots[-1].loss):
                self._restart(value)
                return None
            self.curves["loss"].append((self.iteration, value))
            self.snapshots.append(self._snapshot(value))
        return self._judge()

    def _set_rate(self) -> None:
        decays = self.config.schedule == "cosine" and not self.rule.needs_constant_rate
        set_rate(self.optimizers, self.rate_factor * (cosine_decay(self.progress) if decays else 1.0))

    def _update_weights(self) -> Tensor:
        jitter = torch.empty_like(self.input).normal_(generator=self.jitter)
        with self.autocast:
            channels = self.network(self.input.add(jitter, alpha=self.config.input_jitter))
        output = self._image(crop_to(channels.float(), self.shape))
        with torch.no_grad():
            value, gradient = self.problem.gradient(output)
        # the data term enters by its gradient, so that one forward and one adjoint a step are enough
        surrogate = torch.sum(to_channels(output) * to_channels(gradient))
        if self.config.tv_weight:
            penalty = self.config.tv_weight * total_variation(output, len(self.shape))
            surrogate = surrogate + penalty
            value = value + penalty.detach()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        surrogate.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        self.output = output.detach()
        self._update_average()
        self._update_input(gradient)
        return value

    def _padded(self, network_input: Tensor) -> Tensor:
        padded = pad_to_multiple(network_input, 2 ** len(self.config.network.channels), len(self.shape))
        return padded.contiguous(memory_format=self.memory_format)

    def _image(self, channels: Tensor) -> Tensor:
        image = to_image(channels)
        if not self.config.nonnegative or image.is_complex():
            return image
        return functional.softplus(image, beta=_SHARPNESS)

    def _update_average(self) -> None:
        if not self.config.averaging:
            return
        if self.average is None:
            self.average = self.output.clone()
            return
        # a short memory at first, so that the untrained outputs do not linger
        decay = min(self.config.averaging, self.iteration / (self.iteration + 10))
        self.average = torch.lerp(self.output, self.average, decay)

    def _update_input(self, gradient: Tensor) -> None:
        if self.config.input_update == "none" or self.config.inputs == ("noise",):
            return
        target = self.output
        if self.config.input_update == "data-consistent":
            target = target - gradient * (self.problem.energy / 2)
        image_channels = self.input[(slice(None), slice(0, self.n_channels), *(slice(0, n) for n in self.shape))]
        image_channels.lerp_(to_channels(target), self.config.input_drift)

    def _judge(self) -> StopReason | None:
        reason = None
        refitting = self.refit_from is not None
        if refitting:
            self.chosen, self.chosen_at = self.candidate, self.iteration
        for rule in self.watchers if refitting else (self.rule, *self.watchers):
            if self.iteration % rule.interval:
                continue
            verdict = rule.watch(self.problem, self.iteration, self.output, self.candidate)
            if verdict is None:
                continue
            self.curves.setdefault(rule.name, []).append((self.iteration, verdict.value))
            if rule is self.rule:
                if verdict.keep:
                    self.chosen, self.chosen_at = self.candidate.clone(), self.iteration
                    self._refit_if_due()
                reason = verdict.stop
        if reason is not None:
            return StopReason(self.rule.name, self.chosen_at, reason)
        if self.progress >= 1:
            return self._end_of_budget()
        return None

    def _refit_if_due(self) -> None:
        """Give the held-out locations back for the end of a fit that its rule has found no fault with so far."""
        if self.rule.needs_held_out and 1 - self.config.refit_share <= self.progress < 1:
            self.problem = self.problem.with_all_data()
            self.refit_from = self.iteration
            if self.config.renew_input:
                self.input = self._padded(make_input(self.problem, self.config, self.generator))

    def _end_of_budget(self) -> StopReason:
        if self.chosen_at == 0 or self.rule.name == "budget":
            self.chosen, self.chosen_at = self.candidate, self.iteration
        by_time = self.iteration < self.config.iterations
        limit = f"the time limit of {self.config.time_limit:g} s" if by_time else f"all {self.iteration} iterations"
        reason = f"{limit} were used"
        if self.refit_from is not None:
            reason += f", those after {self.refit_from} with the held-out locations"
        return StopReason("time-limit" if by_time else self.rule.name, self.chosen_at, reason)

    def _snapshot(self, loss: float) -> Snapshot:
        return Snapshot.take(self.iteration, loss, self.network, self.optimizers, self.input, self.average)

    def _restart(self, loss: float) -> None:
        if self.rate_factor < 1:
            raise DivergedError(
                f"the fit diverged again at iteration {self.iteration} (loss {loss:g}) after a restart at a lower "
                "rate; look for spikes in the data, or try --maps jsense, --method dip-vanilla or another --seed"
            )
        self.rate_factor = _RESTART_RATE
        self.iteration, self.average = self.snapshots[0].restore(self.network, self.optimizers, self.input)

    def finish(self, image: Tensor) -> Tensor:
        """Blank what the fit did not see, step towards the data, undo the scale; ``(1, 1, x, y[, z])``."""
        with torch.no_grad():
            return self.problem.towards_data(image, self.config.data_consistency_steps) / self.problem.scale

    def report(self) -> Progress:
        """What a progress display may show now."""
        elapsed = time.perf_counter() - self.start
        criterion = self.curves[self.rule.name][-1][1] if self.curves[self.rule.name] else None
        return Progress(
            iteration=self.iteration,
            iterations=self.config.iterations,
            data_error=self.curves["loss"][-1][1],
            criterion=criterion,
            seconds_left=elapsed * (1 / max(self.progress, 1e-6) - 1),
        )
