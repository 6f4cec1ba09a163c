"""Cartesian sampling: the operator that keeps measured locations, and the masks of retrospective undersampling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.base import LinearOperator, Space
from operators.errors import DipmedError, ShapeError

KINDS = ("random", "equispaced", "poisson", "golden")
_KEYS = ("R", "acs", "seed", "partial", "echo", "shutter")
_WHOLE = ("seed", "shutter")
_EXAMPLE = "random:R=4,acs=16,seed=0"


def check_mask(mask: Tensor) -> None:
    """Raise `ShapeError` unless ``mask`` is a sampling mask, bool ``(x, y[, z])``."""
    if mask.dtype != torch.bool or mask.ndim not in (2, 3):
        raise ShapeError(f"a sampling mask must be bool (x, y) or (x, y, z), got {mask.dtype} {tuple(mask.shape)}")


class CartesianSampling(LinearOperator):
    """Keep the sampled locations of k-space ``(coil, x, y[, z])`` and set the others to zero; its own adjoint.

    Unsampled values are multiplied by zero, so a NaN among them is not hidden.

    Parameters
    ----------
    mask
        Bool ``(x, y[, z])``. Kept as the buffer ``mask``.
    n_coils
        Number of coils.

    Raises
    ------
    ShapeError
        When the mask is not bool or has another number of axes.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, n_coils: int) -> None:
        check_mask(mask)
        space = Space((n_coils, *mask.shape))
        super().__init__(space, space)
        self.register_buffer("mask", mask.detach())

    def _forward(self, x: Tensor) -> Tensor:
        return x * self.mask

    def _adjoint(self, y: Tensor) -> Tensor:
        return y * self.mask

    def _normal(self, x: Tensor) -> Tensor:
        return x * self.mask


@dataclass(frozen=True)
class UndersamplingSpec:
    """A rule of retrospective undersampling; ``str(spec)`` is its name, e.g. ``random:R=4,acs=16,seed=0``.

    Parameters
    ----------
    kind
        ``"random"``, ``"equispaced"`` or ``"golden"`` (lines along the last axis), or ``"poisson"`` (two axes).
    acceleration
        R >= 1: one in R lines (or locations) is kept, the centre included.
    acs
        Size of the fully sampled centre: a number of lines, or a fraction of all lines when below 1.
    seed
        Seed of the random choice.
    partial
        Partial Fourier: fraction of the lines along the last axis that are there at all, those of lowest index missing.
    echo
        Asymmetric echo: fraction of each readout, along the first axis, that is there at all, its beginning missing.
    shutter
        Leave out the corners of the last two axes, both phase encodes, beyond the ellipse that touches their ends.

    Raises
    ------
    DipmedError
        When a value is out of its range.
    """

    kind: str
    acceleration: float
    acs: float
    seed: int = 0
    partial: float = 1.0
    echo: float = 1.0
    shutter: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise DipmedError(f"undersampling is one of {', '.join(KINDS)}, got {self.kind!r}; e.g. {_EXAMPLE}")
        if not (math.isfinite(self.acceleration) and self.acceleration >= 1):
            raise DipmedError(f"the acceleration R must be at least 1, got {self.acceleration:g}")
        if not (math.isfinite(self.acs) and self.acs >= 0 and (self.acs < 1 or self.acs == int(self.acs))):
            raise DipmedError(f"acs must be a whole number of lines or a fraction below 1, got {self.acs:g}")
        if self.seed != int(self.seed) or not 0 <= self.seed < 2**32:
            raise DipmedError(f"the seed must be a whole number from 0 to 2**32 - 1, got {self.seed}")
        for name, share in (("partial", self.partial), ("echo", self.echo)):
            if not 0.5 < share <= 1:
                raise DipmedError(f"{name} keeps more than half and at most all (0.5 < {name} <= 1), got {share:g}")

    def __str__(self) -> str:
        limits = "".join(f",{name}={value:g}" for name, value in self.limits.items())
        return f"{self.kind}:R={self.acceleration:g},acs={self.acs:g},seed={self.seed}{limits}"

    @property
    def limits(self) -> dict[str, float]:
        """What is never sampled, by the names of the fields; empty where all of k-space is within reach."""
        given = {"partial": self.partial, "echo": self.echo, "shutter": float(self.shutter)}
        nothing = {"partial": 1.0, "echo": 1.0, "shutter": 0.0}
        return {name: value for name, value in given.items() if value != nothing[name]}

    def n_centre(self, n: int) -> int:
        """Return the number of central lines to keep of ``n``."""
        return round(self.acs * n) if self.acs < 1 else int(self.acs)


def parse_undersampling(spec: str) -> UndersamplingSpec:
    """Read a name such as ``random:R=4,acs=16,seed=0``.

    ``R`` and ``acs`` must be given, ``seed`` is 0 otherwise. ``partial=0.75``, ``echo=0.8`` and ``shutter=1`` may
    follow.

    Raises
    ------
    DipmedError
        When the name has another form, an unknown key, a key twice, or a value that is no number in range.
    """
    kind, _, rest = spec.strip().partition(":")
    values: dict[str, float] = {}
    for item in rest.split(",") if rest else []:
        key, equals, text = (part.strip() for part in item.partition("="))
        if key not in _KEYS or not equals:
            raise DipmedError(
                f"undersampling {spec!r}: expected R=, acs= and seed=, got {item!r}; e.g. {_EXAMPLE}, after which "
                "partial=, echo= and shutter=1 may follow"
            )
        if key in values:
            raise DipmedError(f"undersampling {spec!r}: {key} is given twice")
        try:
            values[key] = int(text) if key in _WHOLE else float(text)
        except ValueError:
            number = "whole number" if key in _WHOLE else "number"
            raise DipmedError(f"undersampling {spec!r}: {key} must be a {number}, got {text!r}") from None
    missing = [key for key in ("R", "acs") if key not in values]
    if kind in KINDS and missing:
        raise DipmedError(f"undersampling {spec!r}: {' and '.join(missing)} missing; e.g. {_EXAMPLE}")
    if values.get("shutter", 0) not in (0, 1):
        raise DipmedError(f"undersampling {spec!r}: shutter must be 0 or 1, got {values['shutter']:g}")
    return UndersamplingSpec(
        kind,
        values.get("R", 1.0),
        values.get("acs", 0.0),
        int(values.get("seed", 0)),
        values.get("partial", 1.0),
        values.get("echo", 1.0),
        bool(values.get("shutter", 0)),
    )


def make_mask(spec: str | UndersamplingSpec, shape: tuple[int, ...]) -> Tensor:
    """Make the sampling mask of an undersampling rule.

    Of n lines along the last axis, the central ``acs`` are kept, starting at ``n // 2 - acs // 2``; further lines
    follow the rule until ``round(n / R)`` are kept in all:

    random
        drawn without replacement by ``numpy.random.default_rng(seed)``;
    equispaced
        evenly spaced among the lines outside the centre, the first offset drawn from the seed;
    golden
        successive steps of the golden ratio from a start drawn from the seed, doi:10.1109/TMI.2006.885337.

    ``poisson`` keeps ``round(n / R)`` of the n locations of the last two axes: a square centre and, around it,
    locations no closer to each other than a distance that grows towards the corners (Poisson discs, R. L. Cook, 1986,
    doi:10.1145/7529.8927).

    ``partial``, ``echo`` and ``shutter`` say what is never sampled; n and R then count what is left along the axes of
    the rule, and lines and locations are drawn there. Partial Fourier leaves out the lines of lowest index of the last
    axis, an asymmetric echo the beginning of the first axis; both keep the centre.

    Parameters
    ----------
    spec
        The rule or its name.
    shape
        ``(x, y)`` or ``(x, y, z)``.

    Returns
    -------
        Bool tensor ``(x, y[, z])``, True where sampled.

    Raises
    ------
    ShapeError
        When the shape has another number of axes, has too few lines for R and acs, or no corners for a shutter.
    DipmedError
        When the name is not understood.
    """
    rule = parse_undersampling(spec) if isinstance(spec, str) else spec
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ShapeError(f"a sampling mask covers (x, y) or (x, y, z), got {tuple(shape)}")
    if rule.shutter and len(shape) == 2 and rule.kind != "poisson":
        raise ShapeError(f"{rule}: a shutter needs two phase encodes, the last two axes of (x, y, z), got {shape}")
    pattern = _poisson_disc(rule, shape[-2], shape[-1]) if rule.kind == "poisson" else _lines(rule, shape[-1])
    mask = torch.from_numpy(pattern).expand(shape).clone()
    if rule.shutter:
        mask &= torch.from_numpy(inside_ellipse(shape[-2:]))
    mask[: _n_missing(shape[0], rule.echo)] = False
    return mask


def inside_ellipse(shape: tuple[int, ...], radius: float = 1.0) -> NDArray[np.bool_]:
    """Return which locations of k-space lie in the ellipse that touches the ends of its axes, or a smaller one."""
    along = [(np.arange(n) - n // 2) / max(n / 2, 1) for n in shape]
    distance = sum(np.square(axis) for axis in np.meshgrid(*along, indexing="ij", sparse=True))
    return np.asarray(distance <= radius**2)


def _n_missing(n: int, share: float) -> int:
    """How many samples are missing where a share of n is there, never more than those before the centre."""
    return min(n - round(n * share), n // 2)


def _lines(rule: UndersamplingSpec, n_all: int) -> NDArray[np.bool_]:
    """Choose lines of one axis, ``(n,)``."""
    n_missing = _n_missing(n_all, rule.partial)
    n = n_all - n_missing
    n_centre, n_kept = rule.n_centre(n_all), round(n / rule.acceleration)
    if n_kept < max(n_centre, 1):
        raise ShapeError(
            f"{rule}: R={rule.acceleration:g} keeps {n_kept} of {n} lines, fewer than the {max(n_centre, 1)} of the "
            "centre; lower R or acs"
        )
    kept = np.zeros(n_all, dtype=bool)
    centre = _centre(n_all, n_centre)
    if centre.start < n_missing:
        raise ShapeError(f"{rule}: partial={rule.partial:g} leaves out lines of the centre; raise it or lower acs")
    kept[centre] = True
    rest, n_more = np.flatnonzero(~kept[n_missing:]) + n_missing, n_kept - n_centre
    if n_more == 0:
        return kept
    rng = np.random.default_rng(rule.seed)
    if rule.kind == "random":
        kept[rng.choice(rest, n_more, replace=False)] = True
    elif rule.kind == "equispaced":
        kept[rest[((np.arange(n_more) + rng.random()) * (rest.size / n_more)).astype(int)]] = True
    else:
        _golden_steps(kept[n_missing:], n_kept, rng.random())
    return kept


def _golden_steps(kept: NDArray[np.bool_], n_kept: int, position: float) -> None:
    """Add lines in place at steps of the golden ratio of the axis, passing over those already kept."""
    step = (math.sqrt(5) - 1) / 2
    while np.count_nonzero(kept) < n_kept:
        kept[int(position * kept.size)] = True
        position = (position + step) % 1.0


def _poisson_disc(rule: UndersamplingSpec, n_y: int, n_z: int) -> NDArray[np.bool_]:
    """Choose locations of two axes, ``(n_y, n_z)``: discs whose radius grows outside the centre as fast as R asks."""
    size = rule.n_centre(n_y), rule.n_centre(n_z)
    allowed = inside_ellipse((n_y, n_z)) if rule.shutter else np.ones((n_y, n_z), dtype=bool)
    allowed[:, : _n_missing(n_z, rule.partial)] = False
    n_kept = round(int(allowed.sum()) / rule.acceleration)
    if size[0] > n_y or size[1] > n_z or max(size[0] * size[1], 1) > n_kept:
        raise ShapeError(
            f"{rule}: R={rule.acceleration:g} keeps {n_kept} of {n_y}x{n_z} locations, too few or too narrow for the "
            f"{size[0]}x{size[1]} of the centre; lower R or acs"
        )
    centre = np.zeros((n_y, n_z), dtype=bool)
    centre[_centre(n_y, size[0]), _centre(n_z, size[1])] = True
    if not allowed[centre].all():
        raise ShapeError(f"{rule}: the limits leave out a part of the centre; lower acs, or widen them")
    distance = np.hypot(_distance(n_y, size[0])[:, None], _distance(n_z, size[1])[None, :])
    rng = np.random.default_rng(rule.seed)
    order = rng.permutation(n_y * n_z)
    kept, low, high = allowed.copy(), 0.0, float(max(n_y, n_z))
    for _ in range(16):
        slope = (low + high) / 2
        pattern = _throw_discs(centre, allowed, 1 + slope * distance, order)
        if np.count_nonzero(pattern) >= n_kept:
            kept, low = pattern, slope
        else:
            high = slope
    # discs stay apart when some are taken away
    surplus = np.count_nonzero(kept) - n_kept
    kept.flat[rng.choice(np.flatnonzero(kept & ~centre), surplus, replace=False)] = False
    return kept


def _throw_discs(
    centre: NDArray[np.bool_], allowed: NDArray[np.bool_], radius: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Keep, in the given order, each allowed location that lies in no disc around a location kept before."""
    n_y, n_z = centre.shape
    squares = np.square(np.arange(-n_y, n_y + 1.0))[:, None] + np.square(np.arange(-n_z, n_z + 1.0))[None, :]
    kept, covered = centre.copy(), centre | ~allowed
    for y, z in (divmod(location, n_z) for location in order.tolist()):
        if covered[y, z]:
            continue
        kept[y, z] = True
        reach = int(radius[y, z])
        y0, y1, z0, z1 = max(y - reach, 0), min(y + reach + 1, n_y), max(z - reach, 0), min(z + reach + 1, n_z)
        from_here = squares[y0 - y + n_y : y1 - y + n_y, z0 - z + n_z : z1 - z + n_z]
        covered[y0:y1, z0:z1] |= from_here < radius[y, z] ** 2
    return kept


def _distance(n: int, size: int) -> NDArray[np.float64]:
    """Distance of each location of an axis from the centre block, as a fraction of the half axis."""
    block = _centre(n, size)
    index = np.arange(n)
    return np.maximum(np.maximum(block.start - index, index - (block.stop - 1)), 0) / max(n / 2, 1)


def _centre(n: int, size: int) -> slice:
    start = n // 2 - size // 2
    return slice(start, start + size)
