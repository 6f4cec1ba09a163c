"""The fit: an untrained network's weights are moved until its image explains the measured data."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.fit import CHECK_INTERVAL, Fit, Progress
from dipmed.dip.method import FitMethod
from dipmed.dip.methods.plain import Default
from dipmed.dip.problem import make_problem
from dipmed.dip.stopping import find_rule
from dipmed.scan import Reconstruction, StopReason
from operators import LinearOperator

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
        Called with the image of every ``observer_interval``-th iteration, for evaluation from outside.

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
    ) -> None:
        self.config = config or FitConfig()
        self.method = method or Default()
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
            data_loss=self.config.data_loss,
            held_out=self.config.held_out if rule.needs_held_out else None,
            noise_variance=self.noise_variance,
            generator=generator,
            A_final=self.A_final,
            ray_weights=self.ray_weights,
        )
        fit = Fit(problem, self.config, self.method, rule, generator, start)
        stop = self._run(fit)
        image = fit.finish(fit.chosen)
        return Reconstruction(
            image=image[0],
            method=self.method.name,
            stop=stop,
            iterations=fit.iteration,
            seconds=time.perf_counter() - start,
            curves=fit.curves,
            scale=problem.scale,
        )

    def _run(self, fit: Fit) -> StopReason:
        try:
            while True:
                reason = fit.step()
                if self.observer is not None and fit.iteration % self.observer_interval == 0:
                    self.observer(fit.iteration, fit.finish(fit.candidate)[0])
                if self.progress is not None and fit.iteration % CHECK_INTERVAL == 0:
                    self.progress(fit.report())
                if reason is not None:
                    return reason
        except KeyboardInterrupt:
            if fit.iteration == 0:
                raise
            return StopReason("interrupted", fit.chosen_at, f"interrupted at iteration {fit.iteration}")
