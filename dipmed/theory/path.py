"""The path that the linear model predicts for gradient descent, each mode of the data by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dipmed.scan import DipmedError
from dipmed.theory.spectrum import Spectrum


@dataclass(frozen=True)
class Filter:
    """What some steps do to each mode.

    Parameters
    ----------
    rate
        Length of a step.
    flow
        Steps of gradient flow, the limit of many short ones, and not of gradient descent.
    """

    rate: float
    flow: bool = False

    def __call__(self, eigenvalues: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """Return what is left of each mode's residual, ``g = (1 − ηλ)ᵗ`` or ``e^(−ηλt)``, and ``(1 − g) / λ``.

        Raises
        ------
        DipmedError
            When ``step`` is negative, or no whole number of gradient descent.
        """
        if step < 0 or not (self.flow or step == int(step)):
            raise DipmedError(f"steps of gradient descent are counted from 0 in whole numbers, got {step}")
        pace = self.rate * eigenvalues
        left = torch.exp(-step * pace) if self.flow else (1 - pace) ** float(step)
        # 1 - g loses its digits where g is near one, as it is for the slow modes
        logarithm = -pace if self.flow else torch.log1p(-pace.clamp(max=0.5))
        learnt = torch.where(pace < 0.5, -torch.expm1(step * logarithm), 1 - left)
        return left, torch.where(eigenvalues > 0, learnt / eigenvalues, self.rate * step)


def make_filter(spectrum: Spectrum, rate: float | None, flow: bool) -> Filter:
    """Return the filter of this step length, by default `Spectrum.rate`.

    Raises
    ------
    DipmedError
        When gradient descent with such steps would diverge.
    """
    rate = spectrum.rate if rate is None else rate
    if rate <= 0 or (not flow and rate >= 2 * spectrum.rate):
        raise DipmedError(
            f"gradient descent needs a rate above 0 and below 2 / the largest eigenvalue = {2 * spectrum.rate:.4g}, "
            f"got {rate:.4g}"
        )
    return Filter(rate, flow)


@dataclass(frozen=True)
class PredictedPath:
    """Images and errors after any number of steps, without taking them.

    With few modes of many, the slower modes are taken as not learnt at all: right as long as the last mode's
    ``ηλt`` is small.

    Parameters
    ----------
    spectrum
        Modes of the data.
    filter
        What the steps do to each.
    coefficients
        ``Vᵀ(y − A x₀)``, the residual at the start along each mode.
    unresolved
        Squared residual at the start outside all modes that are known.
    """

    spectrum: Spectrum
    filter: Filter
    coefficients: Tensor
    unresolved: float

    def image(self, step: float) -> Tensor:
        """Return the image after ``step`` steps, ``(1, x, y[, z])``."""
        model = self.spectrum.model
        _, weights = self.filter(self.spectrum.eigenvalues, step)
        return model.stacked.image(model.start + self.spectrum.responses @ (weights * self.coefficients))

    def data_error(self, step: float) -> float:
        """Return ``‖A x_t − y‖²`` over the locations that an image reaches."""
        left, _ = self.filter(self.spectrum.eigenvalues, step)
        return self.unresolved + float((left * self.coefficients).square().sum())

    def degrees_of_freedom(self, step: float) -> float:
        """Return ``Σ (1 − g)``, the trace of what turns data into fitted data; at most the real numbers measured."""
        left, _ = self.filter(self.spectrum.eigenvalues, step)
        return float((1 - left).sum())


def predict_path(spectrum: Spectrum, y: Tensor, *, rate: float | None = None, flow: bool = False) -> PredictedPath:
    """Predict gradient descent on ``½‖A f(θ) − y‖²`` from the network at its start.

    Parameters
    ----------
    spectrum
        Of network and operator.
    y
        Data, one element of the operator's range.
    rate
        Length of a step; the default learns the fastest mode in one.
    flow
        Predict gradient flow, whose steps are the limit of many short ones.

    Raises
    ------
    ShapeError
        When ``y`` is not of the operator's range.
    DipmedError
        When gradient descent with this rate would diverge.

    References
    ----------
    J. Lee et al., "Wide neural networks of any depth evolve as linear models under gradient descent", NeurIPS 2019,
    arXiv:1902.06720.
    """
    stacked = spectrum.model.stacked
    residual = stacked.data_vector(y) - stacked.forward(spectrum.model.start[None])[0]
    coefficients = spectrum.modes.T @ residual
    unresolved = max(0.0, float(residual.square().sum() - coefficients.square().sum()))
    return PredictedPath(spectrum, make_filter(spectrum, rate, flow), coefficients, unresolved)
