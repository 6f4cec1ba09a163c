"""What noise does along the predicted path, and when to stop: with the truth in a simulation, or from the data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from dipmed.theory.path import PredictedPath, make_filter
from dipmed.theory.spectrum import Spectrum

_LAST_STEP = 2**40
"""Where the search for a stop ends."""

_GROUP = 8
"""Neighbouring modes whose signal is judged together."""


@dataclass(frozen=True)
class Risk:
    """Expected errors of the linear model over all noise, against a known truth.

    Parameters
    ----------
    steps
        Of gradient descent.
    image
        ``E‖x_t − x‖²`` at each step.
    data
        ``E‖A x_t − A x‖²``, the error of the noiseless data.
    degrees_of_freedom
        As `PredictedPath.degrees_of_freedom`.
    """

    steps: tuple[float, ...]
    image: tuple[float, ...]
    data: tuple[float, ...]
    degrees_of_freedom: tuple[float, ...]

    @property
    def best_image_step(self) -> float:
        """The step with the smallest error of the image."""
        return min(zip(self.image, self.steps, strict=True))[1]

    @property
    def best_data_step(self) -> float:
        """The step with the smallest error of the data, where SURE of the data stops on average: usually too late."""
        return min(zip(self.data, self.steps, strict=True))[1]


def expected_risk(
    spectrum: Spectrum,
    truth: Tensor,
    sigma: float,
    steps: Sequence[float],
    *,
    rate: float | None = None,
    flow: bool = False,
) -> Risk:
    """Compute the expected errors after each of some numbers of steps. This needs the truth: simulations only.

    Slow modes are amplified on their way from data to image. So the best image comes earlier than the best data.

    Parameters
    ----------
    spectrum
        Of network and operator.
    truth
        The image, one element of the operator's domain.
    sigma
        Standard deviation of the noise of one sample, ``E|n|² = sigma²``.
    steps
        Of gradient descent.
    rate, flow
        As for `predict_path`.

    Raises
    ------
    ShapeError
        When ``truth`` is not of the operator's domain.
    DipmedError
        When ``sigma`` or the rate is out of its bounds.
    """
    stacked = spectrum.model.stacked
    variance = stacked.deviation(sigma) ** 2
    apply = make_filter(spectrum, rate, flow)
    sought = stacked.vector(truth) - spectrum.model.start
    data = stacked.forward(sought[None])[0]
    signal = spectrum.modes.T @ data
    unresolved = max(0.0, float(data.square().sum() - signal.square().sum()))
    amplification = spectrum.responses.square().sum(0)
    image_risk, data_risk, freedom = [], [], []
    for step in steps:
        left, weights = apply(spectrum.eigenvalues, step)
        bias = spectrum.responses @ (weights * signal) - sought
        image_risk.append(float(bias.square().sum() + variance * (weights.square() * amplification).sum()))
        data_bias = unresolved + (left * signal).square().sum()
        data_risk.append(float(data_bias + variance * (1 - left).square().sum()))
        freedom.append(float((1 - left).sum()))
    return Risk(tuple(steps), tuple(image_risk), tuple(data_risk), tuple(freedom))


@dataclass(frozen=True)
class PredictedStop:
    """Steps at which to stop by the data and their noise alone.

    Parameters
    ----------
    discrepancy
        The first step whose data error is down to the noise; None when the known modes cannot explain the data so far.
    mode_snr
        The step at which the modes are learnt as far as is best that are the last, from fast to slow, to hold more
        signal than noise; None when the fastest do not.
    """

    discrepancy: int | None
    mode_snr: int | None


def predict_stop(path: PredictedPath, sigma: float) -> PredictedStop:
    """Predict from the data when gradient descent should stop, without running it and without the truth.

    Parameters
    ----------
    path
        Predicted path of the data.
    sigma
        Standard deviation of the noise of one sample, ``E|n|² = sigma²``.

    Raises
    ------
    DipmedError
        When ``sigma`` is not positive and finite.

    Notes
    -----
    A mode of signal a² is learnt best to ``g = σ² / (a² + σ²)``, that is for ``log(1 + a²/σ²) / (ηλ)`` steps of
    gradient flow. A single mode's a² cannot be told from one noisy number, so it is the mean over eight neighbours.
    Neither rule knows what the slow modes do to the part of the image that is not measured: where noise is low, both
    stop too late.
    """
    variance = path.spectrum.model.stacked.deviation(sigma) ** 2
    return PredictedStop(_discrepancy_step(path, variance), _mode_snr_step(path, variance))


def _discrepancy_step(path: PredictedPath, variance: float) -> int | None:
    """Find by bisection where the data error, which never grows, comes down to the noise."""
    goal = path.spectrum.model.stacked.m * variance
    if path.data_error(_LAST_STEP) > goal:
        return None
    low, high = -1, _LAST_STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if path.data_error(middle) <= goal else (middle, high)
    return high


def _mode_snr_step(path: PredictedPath, variance: float) -> int | None:
    useful = path.spectrum.useful()
    eigenvalues, squares = path.spectrum.eigenvalues[useful], path.coefficients[useful].square()
    step = None
    for start in range(0, len(squares), _GROUP):
        group = slice(start, start + _GROUP)
        ratio = float(squares[group].mean()) / variance - 1
        if ratio < 1:
            break
        step = round(math.log1p(ratio) / (path.filter.rate * float(eigenvalues[group].log().mean().exp())))
    return step
