"""Off-resonance: spins that turn faster or slower than they are demodulated, by time segments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.base import LinearOperator
from operators.errors import DipmedError, ShapeError

_TOLERANCE = 5e-4
"""Largest error of a phase factor: the samples then differ from the exact sum by less than 1e-3, relatively."""
_MAX_SEGMENTS = 200
_MAX_TIMES = 400


class OffResonance(LinearOperator):
    """An encoding during which each voxel turns at its own frequency.

    Where the encoding multiplies an image and sums it to the sample s at the time ``t(s)``, the image is multiplied by
    ``exp(-2πi Δf(r) t(s))`` before. That product is split into L segments ``Σ_l b_l(t) exp(-2πi Δf(r) τ_l)``, each of
    which is the encoding of another image (D. C. Noll et al., 1991, doi:10.1109/42.108599). The interpolators ``b_l``
    are least squares over the range of frequencies at each time (B. P. Sutton, D. C. Noll, J. A. Fessler, 2003,
    doi:10.1109/TMI.2002.808360). Forward and adjoint cost L encodings; the adjoint is exact, that of the segments.

    Parameters
    ----------
    encoding
        `NonCartesianMRI`, `CartesianMRI` (echo-planar readouts) or a bare Fourier transform: any operator that a
        factor on the image passes through to the samples.
    field_map
        Δf in Hz, real ``(x, y[, z])``. Kept as the buffer ``field_map``.
    times
        When each sample is taken, in s, real; of the shape of a mask of the range, ``(sample,)`` or ``(x, y[, z])``.
        Kept as the buffer ``times``.
    n_segments
        L; by default the smallest that brings the error of every factor below 5e-4. That is the range of
        frequencies times the duration, plus at most eight (up to 12 turns) to fourteen (up to 185).

    Raises
    ------
    ShapeError
        When field map or times do not fit the encoding.
    DipmedError
        When they are not finite, or need more than 200 segments.

    Examples
    --------
    >>> import torch
    >>> from operators import NonCartesianMRI, OffResonance, spiral
    >>> positions = spiral((16, 16), 2, 200).reshape(-1, 2)
    >>> encoding = NonCartesianMRI(torch.ones(1, 16, 16, dtype=torch.complex64), positions)
    >>> times = torch.arange(200).repeat(2) * 5e-5
    >>> A = OffResonance(encoding, torch.full((16, 16), 40.0), times)
    >>> A.n_segments
    1
    """

    traceable = False
    field_map: Tensor
    times: Tensor
    _phases: Tensor
    _interpolators: Tensor

    def __init__(
        self, encoding: LinearOperator, field_map: Tensor, times: Tensor, n_segments: int | None = None
    ) -> None:
        _check("field map", field_map, encoding.domain.shape)
        _check("times", times, encoding.range.shape)
        if n_segments is not None and not 1 <= n_segments <= _MAX_SEGMENTS:
            raise DipmedError(f"there can be 1 to {_MAX_SEGMENTS} time segments, got {n_segments}")
        super().__init__(encoding.domain, encoding.range)
        self.encoding = encoding
        self._wanted = n_segments
        self.register_buffer("field_map", field_map.detach().to(encoding.device))
        self.register_buffer("times", times.detach().to(encoding.device))
        self._prepare()
        self.register_load_state_dict_post_hook(_prepare_again)  # type: ignore[no-untyped-call]  # torch's own

    @property
    def n_segments(self) -> int:
        """How many encodings one application costs."""
        return len(self._phases)

    def _prepare(self) -> None:
        """Derive the segments from field map and times; called again when a state is loaded."""
        field = self.field_map.double().cpu().numpy()
        times, index = np.unique(self.times.double().cpu().numpy(), return_inverse=True)
        starts, weights = _segments(float(field.min()), float(field.max()), times, self._wanted)
        phases = np.exp(-2j * np.pi * starts.reshape(-1, *[1] * field.ndim) * field)
        interpolators = weights[:, index.reshape(self.times.shape)]
        for name, array in (("_phases", phases), ("_interpolators", interpolators)):
            tensor = torch.from_numpy(array.astype(np.complex64)).to(self.field_map.device)
            self.register_buffer(name, tensor, persistent=False)

    def _forward(self, x: Tensor) -> Tensor:
        return sum(
            (self.encoding._forward(x * phase) * weight for phase, weight in self._pairs(x)),
            start=x.new_zeros(()),
        )

    def _adjoint(self, y: Tensor) -> Tensor:
        return sum(
            (self.encoding._adjoint(y * weight.conj()) * phase.conj() for phase, weight in self._pairs(y)),
            start=y.new_zeros(()),
        )

    def _pairs(self, x: Tensor) -> zip[tuple[Tensor, Tensor]]:
        return zip(self._phases.to(x.dtype), self._interpolators.to(x.dtype), strict=True)

    def extra_repr(self) -> str:
        return f"{self.encoding!r}, {self.n_segments} segments"


def _prepare_again(operator: OffResonance, _incompatible_keys: Any) -> None:
    operator._prepare()


def _check(name: str, array: Tensor, shape: tuple[int, ...]) -> None:
    expected = shape[1:]
    if tuple(array.shape) != expected or array.is_complex():
        raise ShapeError(
            f"the {name} must be real {expected} as the encoding's, got {array.dtype} {tuple(array.shape)}"
        )
    if not bool(torch.isfinite(array).all()):
        raise DipmedError(f"the {name} must be finite")


def _segments(
    lowest: float, highest: float, times: NDArray[np.float64], wanted: int | None
) -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """Return the times of the segments ``(segment,)`` and their interpolators at sorted times ``(segment, time)``."""
    turns = (highest - lowest) * (times[-1] - times[0])
    if wanted is None and turns > _MAX_SEGMENTS:
        raise DipmedError(
            f"the field map spans {highest - lowest:.4g} Hz and the times {times[-1] - times[0]:.3g} s: {turns:.0f} "
            f"turns, more than {_MAX_SEGMENTS} time segments can follow; are they in Hz and s?"
        )
    frequencies = np.linspace(lowest, highest, 64 + 16 * math.ceil(turns)) if highest > lowest else np.array([lowest])
    few = times[np.unique(np.linspace(0, len(times) - 1, min(len(times), _MAX_TIMES)).astype(int))]
    n = max(1, math.floor(turns)) if wanted is None else wanted
    while True:
        starts = times[0] + (times[-1] - times[0]) / 2 * (1 + _nodes(n))
        error = _residual(frequencies, starts, few, _interpolate(frequencies, starts, few))
        if wanted is not None or error <= _TOLERANCE or n >= min(len(times), _MAX_SEGMENTS):
            return starts, _interpolate(frequencies, starts, times)
        n += 1


def _nodes(n: int) -> NDArray[np.float64]:
    """Return where in [-1, 1] segments are best.

    They are closer at both ends, where interpolation is hardest, as the nodes of Chebyshev are, but less so the more
    of them there are: those would take π/2 segments for each turn in place of one (D. Kosloff, H. Tal-Ezer, 1993,
    doi:10.1006/jcph.1993.1044).
    """
    stretch = 1 / math.cosh(math.log(10 / _TOLERANCE) / n)
    return np.arcsin(-stretch * np.cos(np.pi * (np.arange(n) + 0.5) / n)) / math.asin(stretch)


def _interpolate(
    frequencies: NDArray[np.float64], starts: NDArray[np.float64], times: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """Least squares over the frequencies, which are as good as all of their range, ``(segment, time)``."""
    # about the middle frequency, which is exact: segments have to follow the deviation from it alone
    middle = (frequencies[0] + frequencies[-1]) / 2
    basis = np.exp(-2j * np.pi * np.outer(frequencies - middle, starts))
    wanted = np.exp(-2j * np.pi * np.outer(frequencies - middle, times))
    weights = np.linalg.lstsq(basis, wanted, rcond=1e-9)[0]
    return np.asarray(weights * np.exp(-2j * np.pi * middle * (times - starts[:, None])))


def _residual(
    frequencies: NDArray[np.float64],
    starts: NDArray[np.float64],
    times: NDArray[np.float64],
    weights: NDArray[np.complex128],
) -> float:
    """Largest error of a phase factor."""
    basis = np.exp(-2j * np.pi * np.outer(frequencies, starts))
    return float(np.abs(basis @ weights - np.exp(-2j * np.pi * np.outer(frequencies, times))).max())
