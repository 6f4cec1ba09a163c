"""Fit each band of frequencies as far as it holds signal."""

from __future__ import annotations

import torch
from torch import Tensor

from dipmed.dip.problem import Problem
from dipmed.dip.stopping.base import Minimum, Sight, StoppingRule, Verdict
from dipmed.scan import DipmedError
from operators import CartesianMRI, FilteredProjector, ImageMask, LinearOperator, NonCartesianMRI

_DRAWS = 4
"""Of noise, averaged for its energy in each band."""


class SpectralBand(StoppingRule):
    """Keeps the iterate that has fitted each band of frequencies by the share of it that is signal.

    A network fits low frequencies first (Z. Shi et al., 2022, arXiv:2107.01125, who measure it by the ratio of
    magnitudes in five rings). Here, of the measured data of band b,

        ``C_b = Re Σ conj(y) A x_t / Σ |y|²``  and  ``s_b = max(0, 1 − noise energy / Σ |y|²)``.

    At the true image C_b is s_b, up to chance; a fit that has all noise in it has C_b = 1. The criterion is

        ``Σ_b E_b (C_b − s_b)² / Σ_b E_b``,  ``E_b = Σ |y|²`` in b,

    which is the excess error of the fitted data if the fit is the data times one gain in each band. The product of
    magnitudes, in place of its real part, would be positive for any image and has no known value at the true one.
    Like `sure` the rule judges the data, not the image.

    Bands are rings of equal width about the centre of k-space, frequencies along the columns of projections, and rings
    of the spectrum of an image. Empty ones count nothing.

    Parameters
    ----------
    n_bands
        How many.
    patience
        Iterations without a new minimum after which the fit stops.
    """

    name = "spectral-band"
    interval = 10
    needs_noise = True

    def __init__(self, n_bands: int = 5, patience: int = 200) -> None:
        self.n_bands = n_bands
        self._minimum = Minimum("the misfit of the bands", patience)
        self._problem: Problem | None = None

    def check(self, problem: Problem) -> None:
        super().check(problem)
        band_of(problem.A, self.n_bands)

    def watch(self, sight: Sight) -> Verdict | None:
        if self._problem is not sight.problem:
            self._measure(sight.problem)
        fitted = spectrum(sight.problem.A_fit, sight.problem.A_fit(sight.average)[0])
        products = self._sum((self._data.conj() * fitted).real)
        # where a band is empty, 0
        gains = products / self._energies.clamp(min=1e-30)
        misfit = (self._energies * (gains - self._signal).square()).sum() / self._energies.sum()
        return self._minimum.judge(float(misfit), sight.iteration)

    def _measure(self, problem: Problem) -> None:
        """Energy and share of signal of each band of the data that are fitted."""
        assert problem.noise is not None  # noqa: S101  # the rule needs it
        A = problem.A_fit
        self._problem = problem
        self._bands = band_of(A, self.n_bands)
        self._data = spectrum(A, problem.y_fit)
        self._energies = self._sum(self._data.abs().square())
        generator = torch.Generator().manual_seed(0)
        noise = torch.zeros_like(self._energies)
        seen = 1 if problem.held_out_mask is None else ~problem.held_out_mask
        for _ in range(_DRAWS):
            draw = problem.noise.draw(generator)[0] * seen
            noise += self._sum(spectrum(A, draw).abs().square()) / _DRAWS
        self._signal = (1 - problem.noise_gain * noise / self._energies.clamp(min=1e-30)).clamp(min=0)

    def _sum(self, values: Tensor) -> Tensor:
        """Add up what lies in each band, ``(band,)``."""
        bands = self._bands.expand(values.shape).flatten()
        return torch.zeros(self.n_bands, device=values.device).index_add_(0, bands, values.flatten())


def band_of(A: LinearOperator, n_bands: int) -> Tensor:
    """Band of each entry of `spectrum`, broadcastable to it.

    Raises
    ------
    DipmedError
        When the data are neither k-space nor projections nor an image.
    """
    if isinstance(A, NonCartesianMRI):
        # each sample by its own position
        radius = torch.stack([along / n for along, n in zip(A.positions, A.domain.shape[1:], strict=True)]).norm(dim=0)
    elif isinstance(A, CartesianMRI):
        squares = [(along / n).square() for along, n in zip(A.positions, A.mask.shape, strict=True)]
        radius = sum(squares, torch.zeros((), device=A.device)).sqrt()
    elif isinstance(A, FilteredProjector):
        radius = torch.fft.fftfreq(A.range.shape[-1], device=A.device).abs()
    elif isinstance(A, ImageMask):
        shape = A.range.shape[1:]
        axes = torch.meshgrid(*(torch.fft.fftfreq(n, device=A.device) for n in shape), indexing="ij")
        radius = torch.stack(axes).norm(dim=0)
    else:
        raise DipmedError(f"the data of {A!r} have no bands of frequencies; choose another rule with --stop")
    return (radius / radius.max() * n_bands).long().clamp(max=n_bands - 1)


def spectrum(A: LinearOperator, data: Tensor) -> Tensor:
    """Frequencies of data: k-space as it is, projections along their columns, images along all axes."""
    if isinstance(A, FilteredProjector):
        return torch.fft.fft(data, norm="ortho")
    if isinstance(A, ImageMask):
        return torch.fft.fftn(data, dim=tuple(range(1, data.ndim)), norm="ortho")
    return data
