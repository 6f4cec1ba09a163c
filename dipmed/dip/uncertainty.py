"""How far images that explain the same data lie apart, pixel by pixel.

Three ways of drawing such images: fits from several seeds; one fitted network that sees fresh noise; a method that
samples by itself. None of them knows the noise of the data, or what no image of the network can show: these maps say
where fits disagree, and are compared with errors by `dipmed.evaluate.calibration`, outside the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from dipmed.config import FitConfig
from dipmed.dip.method import FitMethod
from dipmed.scan import DipmedError, Reconstruction
from operators import combine_sets

if TYPE_CHECKING:
    from dipmed.dip.fit import Fit

_SAMPLES = {"ensemble": 5, "jitter": 20}


@dataclass(frozen=True)
class Uncertainty:
    """A way to a map of the standard deviation.

    Parameters
    ----------
    kind
        ``"ensemble"``: fits with the seeds ``seed``, ``seed + 1``, …; the image is their mean (B. Lakshminarayanan, A.
        Pritzel, C. Blundell, 2017, arXiv:1612.01474). ``"jitter"``: outputs of the network as it is after the last
        step, for fresh noise on its input; the image is that of the fit. ``"sgld"``: the samples of a method that
        draws them itself.
    samples
        How many images; None for 5 fits or 20 outputs. A method that samples by itself takes all that it has.

    Raises
    ------
    DipmedError
        When there is no such way, or fewer than two samples are asked for.
    """

    kind: Literal["ensemble", "jitter", "sgld"]
    samples: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("ensemble", "jitter", "sgld"):
            raise DipmedError(f"unknown uncertainty {self.kind!r}; choose ensemble, jitter or sgld")
        if self.samples is not None and (self.kind == "sgld" or self.samples < 2):
            raise DipmedError(
                "a standard deviation needs two samples or more, and from sgld it is that of all samples: "
                f"got {self.samples} for {self.kind}"
            )

    @property
    def n_samples(self) -> int:
        """How many images are drawn of an ensemble or by jitter."""
        return self.samples or _SAMPLES[self.kind]

    def objection(self, method: type[FitMethod], config: FitConfig) -> str | None:
        """Say why this method with these settings has no such map; None when it has."""
        if self.kind == "sgld" and method.standard_deviation is FitMethod.standard_deviation:
            return f"{method.name} draws no samples; take --method sgld, or --uncertainty ensemble"
        plain = method.network_input is FitMethod.network_input
        if self.kind == "jitter" and plain and config.input_jitter == 0:
            return f"{method.name} puts no noise on its input; take --uncertainty ensemble, or --set input_jitter=0.03"
        return None

    def of_fit(self, fit: Fit) -> Tensor | None:
        """Standard deviation of the images that one fit leads to, ``(1, x, y[, z])``, in the units of the data."""
        if self.kind == "jitter":
            return _of_outputs(fit, self.n_samples)
        if self.kind == "sgld":
            deviation = fit.method.standard_deviation(fit)
            return None if deviation is None else deviation / fit.problem.scale
        return None


def shown_of(image: Tensor) -> Tensor:
    """Return what is shown of an image ``(set, x, y[, z])``: the magnitude, or a real one as it is, with one set."""
    one = combine_sets(image)
    return one.abs() if one.is_complex() else one


def ensemble(fit_with: Callable[[int], Reconstruction], n: int) -> Reconstruction:
    """Average the images of ``n`` fits, which ``fit_with`` makes of the numbers 0 to n - 1.

    An interruption ends the series; what was done before it is averaged. All else that is told is of the first fit.
    """
    fits: list[Reconstruction] = []
    interrupted = None
    for number in range(n):
        result = fit_with(number)
        if result.stop.rule == "interrupted":
            interrupted = result
            break
        fits.append(result)
    if interrupted is not None and not fits:
        return interrupted
    images = torch.stack([result.image for result in fits])
    done = fits if interrupted is None else [*fits, interrupted]
    return replace(
        fits[0],
        image=images.mean(0),
        std=torch.stack([shown_of(image) for image in images]).std(0) if len(fits) > 1 else None,
        stop=fits[0].stop if interrupted is None else interrupted.stop,
        iterations=sum(result.iterations for result in done),
        seconds=sum(result.seconds for result in done),
    )


@torch.no_grad()
def _of_outputs(fit: Fit, n: int) -> Tensor:
    method = fit.method
    # each ends as the image did: how many steps pay is no part of how far they lie apart
    fit.config = fit.config.replace(data_consistency_steps=fit.last_steps)
    predictions = (method.predict(fit, method.network_input(fit)) for _ in range(n))
    return torch.stack([shown_of(fit.finish(prediction)[0]) for prediction in predictions]).std(0)
