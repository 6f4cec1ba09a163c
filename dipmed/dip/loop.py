"""The fit: an untrained network's weights are moved until its image explains the measured data."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.copies import perturb, recorrupt
from dipmed.dip.fit import CHECK_INTERVAL, Fit
from dipmed.dip.hold_out import WITH_A_MASK
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import Default
from dipmed.dip.noise_weights import follow_noise
from dipmed.dip.problem import Problem, make_problem
from dipmed.dip.progress import Progress
from dipmed.dip.start import weights_of
from dipmed.dip.stopping import Panel, make_rules
from dipmed.dip.stopping.budget import Until
from dipmed.dip.uncertainty import Uncertainty, ensemble
from dipmed.scan import DipmedError, Reconstruction, StopReason
from operators import LinearOperator, SliceProjector, StackedProjector, can_be_divided, through_parts

ProgressCallback = Callable[[Progress], None]
Observer = Callable[[int, Tensor], None]
"""Takes the iteration and the image as it would be returned then; the fit never learns what it does with them."""


@dataclass
class Leg:
    """One fit of the one or two that lead to an image, whoever does its steps.

    Attributes
    ----------
    after
        Iterations of the fit before, from which this one's are counted on.
    seconds_elsewhere
        Of the time since it began, those in which steps of other images were done.
    """

    fit: Fit
    after: int
    progress: ProgressCallback | None
    observer: Observer | None
    observer_interval: int
    seconds_elsewhere: float = 0.0

    def run(self) -> StopReason:
        """Do steps until there is a reason to end."""
        try:
            while True:
                reason = self.tell(self.fit.step())
                if reason is not None:
                    return reason
        except KeyboardInterrupt:
            return self.interrupt()

    def tell(self, reason: StopReason | None) -> StopReason | None:
        """Tell those who watch of a step that was done; return the reason to end, if it is one."""
        fit = self.fit
        if self.observer is not None and fit.iteration % self.observer_interval == 0:
            self.observer(self.after + fit.iteration, fit.finish(fit.candidate)[0])
        if self.progress is not None and fit.losses and fit.iteration % CHECK_INTERVAL == 0:
            self.progress(fit.report(self.after))
        return None if reason is None else replace(reason, iteration=self.after + reason.iteration)

    def interrupt(self) -> StopReason:
        """End it early, with the best image so far; re-raise the interruption where there is none."""
        if self.fit.iteration == 0 and not self.after:
            raise KeyboardInterrupt
        words = f"interrupted at iteration {self.after + self.fit.iteration}"
        return StopReason("interrupted", self.fit.ending.chosen_at, words)


Course = Generator[Leg, StopReason, Reconstruction]
"""Yields each fit of an image as it is to be done, takes the reason why it ended, and returns the image."""


class DeepImagePrior:
    """Reconstruct one image by fitting an untrained network to one set of measurements.

    Parameters
    ----------
    config
        Settings of the fit.
    method
        Hooks into the fit, with their options; the default recipe where none is given.
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
        Called with the image of every ``observer_interval``-th iteration, for evaluation from outside; of an ensemble,
        with those of the first fit.
    uncertainty
        Way to a map of the standard deviation; None for no map.
    start
        Weights that a fit of a similar image has ended with, `Reconstruction.weights`; this one then needs fewer
        iterations, see `FitConfig.warmed`.
    keep_weights
        Return those of this fit.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Deep image prior", IJCV 2020, doi:10.1007/s11263-020-01303-4.
    """

    def __init__(
        self,
        config: FitConfig | None = None,
        *,
        method: FitMethod | None = None,
        noise_variance: float | None = None,
        A_final: LinearOperator | None = None,
        ray_weights: Tensor | None = None,
        progress: ProgressCallback | None = None,
        observer: Observer | None = None,
        observer_interval: int = 25,
        uncertainty: Uncertainty | None = None,
        start: Tensor | None = None,
        keep_weights: bool = False,
    ) -> None:
        self.config = config or FitConfig()
        self.method = method or Default()
        self.noise_variance = noise_variance
        self.A_final = A_final
        self.ray_weights = ray_weights
        self.progress = progress
        self.observer = observer
        self.observer_interval = observer_interval
        self.uncertainty = uncertainty
        self.start = start
        self.keep_weights = keep_weights

    def __call__(self, y: Tensor, A: LinearOperator) -> Reconstruction:
        """Fit ``y``, one element of the range of ``A``; an interruption returns the best image so far.

        Raises
        ------
        DivergedError
            When the loss explodes or becomes NaN a second time, after a restart at a lower rate.
        DipmedError
            When this method has no such map of the standard deviation.
        """
        # callers that evaluate, such as a pipeline around a trained network, have switched gradients off
        with torch.inference_mode(False), torch.enable_grad():
            return self._reconstruct(y, A)

    def _reconstruct(self, y: Tensor, A: LinearOperator) -> Reconstruction:
        if self.uncertainty is not None:
            objection = self.uncertainty.objection(type(self.method), self.config)
            if objection is not None:
                raise DipmedError(objection)
            if self.uncertainty.kind == "ensemble":
                return ensemble(lambda number: self._member(number)(y, A), self.uncertainty.n_samples)
        course = self.course(y, A)
        leg = next(course)
        while True:
            try:
                leg = course.send(leg.run())
            except StopIteration as end:
                result: Reconstruction = end.value
                return result

    def _member(self, number: int) -> DeepImagePrior:
        """One fit of an ensemble: the same with a seed of its own."""
        member = copy(self)
        member.config = self.config.replace(seed=self.config.seed + number)
        member.uncertainty = None
        member.observer = self.observer if number == 0 else None
        return member

    def course(self, y: Tensor, A: LinearOperator) -> Course:
        """Make all but the steps of the fits, which whoever asks for them does, with gradients switched on."""
        start = time.perf_counter()
        A, config, in_parts = _divided(A, self.config)
        rules = make_rules(config.stop, config.watch, noise_is_measured=self.noise_variance is not None)
        generator = torch.Generator().manual_seed(config.seed)
        problem = make_problem(
            y,
            A,
            kspace_exponent=config.kspace_exponent,
            phase_weight=config.phase_weight,
            data_loss=config.data_loss,
            held_out=config.held_out if any(rule.needs_held_out for rule in rules) else None,
            noise_variance=self.noise_variance,
            needs_noise=any(rule.needs_noise for rule in rules),
            generator=generator,
            A_final=self.A_final,
            ray_weights=self.ray_weights,
        )
        # drawn apart from all else, so that a rule that only watches leaves inputs and weights as they were
        noise = torch.Generator().manual_seed(config.seed + 2)
        if any(rule.needs_pair for rule in rules):
            problem = recorrupt(problem, noise)
        followed, raised, of_noise = follow_noise(config, problem)
        probe = perturb(problem, noise) if any(rule.needs_twin for rule in rules) else None
        beginning = generator.get_state()
        fit = Fit(problem, followed, self.method, Panel(rules, problem), generator, start, probe, self.start)
        leg = self._leg(fit)
        stop = yield leg
        elsewhere = leg.seconds_elsewhere
        curves, choices, iterations = fit.curves, fit.choices, fit.iteration
        if config.refit != "continue" and fit.ending.rule.sets_data_apart and stop.rule == fit.ending.rule.name:
            more = _n_measured(problem.A) / _n_measured(problem.A_fit)
            if config.refit == "resume":
                again = self._leg(fit, after=iterations - fit.ending.chosen_at)
                fit.resume(more * problem.noise_gain)
            else:
                generator.set_state(beginning)
                whole = problem.with_all_data()
                followed, raised, of_noise = follow_noise(config.replace(first_jitter=fit.first_jitter), whole)
                again = self._leg(self._refit(whole, followed, more, fit.ending.chosen_at, generator), after=iterations)
            end = yield again
            elsewhere += again.seconds_elsewhere
            curves["refit-loss"] = again.fit.losses
            iterations = again.after + again.fit.iteration
            if end.rule == "interrupted":  # the first fit has an image, a part of the second has not yet
                stop = replace(end, iteration=stop.iteration)
            else:
                fit, stop = again.fit, replace(end, rule=stop.rule, reason=f"{stop.reason}; {end.reason}")
        image = fit.finish(fit.ending.chosen)
        assumption = None if problem.noise is None else problem.noise.assumption
        return Reconstruction(
            image=image[0],
            method=self.method.name,
            stop=stop,
            iterations=iterations,
            seconds=time.perf_counter() - start - elsewhere,
            curves=curves,
            choices=choices,
            scale=problem.scale,
            assumptions=tuple(words for words in (assumption, in_parts, of_noise) if words is not None),
            std=None if self.uncertainty is None else self.uncertainty.of_fit(fit),
            weights=weights_of(fit.network) if self.keep_weights else None,
            is_warm=self.start is not None,
            raised=raised,
            last_steps=fit.last_steps,
            first_jitter=fit.first_jitter,
        )

    def _refit(self, whole: Problem, config: FitConfig, more: float, chosen_at: int, generator: torch.Generator) -> Fit:
        """Begin again with the same seeds, all data, and as many more iterations as there are more data."""
        config = config.replace(iterations=max(1, round(more * config.iterations)))
        panel = Panel((Until(min(config.iterations, max(1, round(more * chosen_at)))),), whole)
        return Fit(whole, config, self.method, panel, generator, time.perf_counter(), weights=self.start)

    def _leg(self, fit: Fit, after: int = 0) -> Leg:
        return Leg(fit, after, self.progress, self.observer, self.observer_interval)


def _divided(A: LinearOperator, config: FitConfig) -> tuple[LinearOperator, FitConfig, str | None]:
    """Divide the pixels as the settings say; where the matrices would be large, leave them whole and say so."""
    n = config.subpixels
    if n == 1:
        return A, config, None
    if not isinstance(A, SliceProjector | StackedProjector):
        raise DipmedError(
            f"only pixels of slices of projections, or of stacks of them, can be divided: set subpixels=1, not {n}"
        )
    if can_be_divided(A.grid, A.beam, n):
        return through_parts(A, n), config, None
    words = f"Pixels were fitted whole: the matrices through {n} x {n} parts of them would be large."
    return A, config.replace(subpixels=1), words


def _n_measured(A: LinearOperator) -> int:
    """How many locations or views are seen; 1 where they cannot be told apart."""
    return int(A.mask.sum()) if isinstance(A, WITH_A_MASK) else 1
