"""A brain-like multi-coil scan whose k-space is known in closed form, for the demo and for tests.

The object is a sum of ellipses and every coil profile a sum of plane waves, so each k-space sample is a sum of known
Fourier integrals [1]_. Nothing is rasterised: the data hold the ringing and the partial volumes of a real
acquisition, and a reconstruction cannot profit from having the simulation's own pixel model.

References
----------
.. [1] Guerquin-Kern M, Lejeune L, Pruessmann KP, Unser M. Realistic analytical phantoms for parallel magnetic
   resonance imaging. IEEE Trans Med Imaging 31:626 (2012). doi:10.1109/TMI.2011.2174158
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

from dipmed.patient import MrdGeometry, affine_from_mrd
from dipmed.scan import KSpaceScan, ShapeError

__all__ = ["Ellipse", "PhantomTruth", "brain_ellipses", "brain_phantom_scan", "coil_profiles"]

FIELD_OF_VIEW_MM = 220.0
SLICE_THICKNESS_MM = 5.0

SUBPIXELS = 3
"""The true image is a mean over this many points along each side of a pixel."""

WAVE_STEPS = 3
"""Coil profiles are made of plane waves from -3 to 3 half cycles per field of view along each axis."""

COIL_RING_RADIUS = 0.62
COIL_RADIUS = 0.42
"""Where the coils stand and how large they are, in fields of view."""

NEIGHBOUR_CORRELATION = 0.2
"""Correlation of the noise of two neighbouring coils."""

Complex128 = NDArray[np.complex128]
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Ellipse:
    """An ellipse of constant signal, which is added to what lies under it.

    Parameters
    ----------
    signal
        Height; the brightest tissue of the phantom is about 1.
    centre
        ``(x, y)`` in fields of view from the middle: x grows to the patient's left, y to the back.
    semi_axes
        Along x and y before the rotation, in fields of view.
    angle
        Rotation from x towards y, in radians.
    """

    signal: float
    centre: tuple[float, float]
    semi_axes: tuple[float, float]
    angle: float = 0.0

    def contains(self, x: Float64, y: Float64) -> NDArray[np.bool_]:
        """Tell which of the points lie inside."""
        along, across = self._rotate(x - self.centre[0], y - self.centre[1])
        inside: NDArray[np.bool_] = (along / self.semi_axes[0]) ** 2 + (across / self.semi_axes[1]) ** 2 <= 1
        return inside

    def transform(self, kx: Float64, ky: Float64) -> Complex128:
        """Return the Fourier integral at spatial frequencies in cycles per field of view."""
        a, b = self.semi_axes
        along, across = self._rotate(kx, ky)
        # a disc gives J1(2 pi k) / k, whose limit at zero is pi; stretching, turning and moving do the rest
        k = np.maximum(np.hypot(a * along, b * across), 1e-9)
        shift = np.exp(-2j * np.pi * kx * self.centre[0]) * np.exp(-2j * np.pi * ky * self.centre[1])
        integral: Complex128 = self.signal * a * b * j1(2 * np.pi * k) / k * shift
        return integral

    def _rotate(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        c, s = np.cos(self.angle), np.sin(self.angle)
        return c * x + s * y, c * y - s * x


@dataclass(frozen=True)
class PhantomTruth:
    """What the phantom's data come from, sampled on the pixel grid.

    Parameters
    ----------
    image
        complex64 ``(1, x, y)``, pixel means.
    maps
        complex64 ``(coil, x, y)`` coil sensitivities with ``sum |s|^2 = 1`` everywhere, so that coil images are
        ``maps * image``.
    """

    image: NDArray[np.complex64]
    maps: NDArray[np.complex64]


def brain_phantom_scan(
    shape: tuple[int, int] = (128, 128), n_coils: int = 8, *, noise: float = 0.01, seed: int = 0
) -> tuple[KSpaceScan, PhantomTruth]:
    """Simulate a fully sampled axial slice of a head, 220 mm wide.

    Parameters
    ----------
    shape
        ``(x, y)`` samples; x, the readout, runs to the patient's left, y to the back.
    n_coils
        Coils on a ring around the head.
    noise
        Standard deviation of one complex sample of one coil (``E|n|² = noise²``). The transform is orthonormal, so
        it is also that of a pixel of a coil image, whose tissue is about 0.5.
    seed
        Of the fine structure and of the noise.

    Returns
    -------
    scan, truth
        K-space ``(1, 1, coil, x, y)`` with the true noise covariance, and what it was made from.

    Raises
    ------
    ShapeError
        When a size, the number of coils or the noise level is out of range.
    """
    if len(shape) != 2 or min(shape) < 8 or n_coils < 1 or not 0 <= noise < np.inf:
        raise ShapeError(
            "a phantom needs two sizes of at least 8, at least one coil and a noise level of at least 0, "
            f"got shape={shape}, n_coils={n_coils}, noise={noise}"
        )
    rng = np.random.default_rng(seed)
    ellipses = brain_ellipses(rng)
    weights = coil_weights(n_coils)
    # the centred orthonormal transform of N samples is the Fourier integral over the field of view times sqrt(N)
    waves = sample_shifted_transforms(ellipses, shape)
    kspace = np.sqrt(np.prod(shape)) * np.tensordot(weights, waves, axes=1)
    covariance = noise_covariance(n_coils, noise)
    kspace += draw_noise(covariance, shape, rng)
    voxel_mm = (FIELD_OF_VIEW_MM / shape[0], FIELD_OF_VIEW_MM / shape[1], SLICE_THICKNESS_MM)
    left, back, up = np.eye(3)
    geometry = MrdGeometry(np.zeros(3), read_dir=left, phase_dir=back, slice_dir=up, voxel_mm=voxel_mm)
    scan = KSpaceScan(
        kspace=kspace.astype(np.complex64)[None, None],
        mask=np.ones((1, 1, *shape), dtype=bool),
        affine=affine_from_mrd(geometry, (*shape, 1)),
        image_shape=shape,
        source="phantom",
        noise_covariance=covariance,
        notes=("Simulated in closed form: no scanner and no person was involved.",),
    )
    return scan, phantom_truth(ellipses, weights, shape)


def brain_ellipses(rng: np.random.Generator) -> list[Ellipse]:
    """Return the anatomy: scalp, skull, tissue layers and ventricles, then fine structure drawn with ``rng``."""
    nested = [
        Ellipse(0.75, (0.0, 0.0), (0.345, 0.425)),  # scalp
        Ellipse(-0.68, (0.0, 0.0), (0.328, 0.408)),  # skull
        Ellipse(0.13, (0.0, 0.0), (0.302, 0.382)),  # fluid around the brain
        Ellipse(0.32, (0.0, 0.005), (0.287, 0.365)),  # grey matter
        Ellipse(-0.2, (0.0, -0.24), (0.004, 0.11)),  # fissure between the hemispheres
    ]
    mirrored = [
        Ellipse(0.26, (0.127, 0.005), (0.115, 0.29), 0.09),  # white matter
        Ellipse(-0.4, (0.05, -0.06), (0.02, 0.095), -0.25),  # lateral ventricle, front horn
        Ellipse(-0.4, (0.062, 0.125), (0.018, 0.075), 0.35),  # back horn
        Ellipse(-0.16, (0.088, -0.085), (0.016, 0.05), -0.3),  # caudate
        Ellipse(-0.18, (0.14, -0.02), (0.022, 0.065), -0.15),  # putamen
        Ellipse(-0.15, (0.07, 0.045), (0.024, 0.04), 0.3),  # thalamus
    ]
    both = [side for half in mirrored for side in (half, _mirror(half))]
    lesions = [
        Ellipse(0.3, (-0.16, 0.14), (0.02, 0.014), 0.4),
        Ellipse(-0.3, (0.17, 0.17), (0.009, 0.009)),
        Ellipse(0.35, (0.13, -0.2), (0.006, 0.006)),
    ]
    return [*nested, *both, *lesions, *_sulci(rng), *_vessels(rng), *_texture(rng)]


def _mirror(ellipse: Ellipse) -> Ellipse:
    return Ellipse(ellipse.signal, (-ellipse.centre[0], ellipse.centre[1]), ellipse.semi_axes, -ellipse.angle)


def _sulci(rng: np.random.Generator, n: int = 44) -> list[Ellipse]:
    """Thin folds of fluid that point inwards from the surface of the brain."""
    around = 2 * np.pi * (np.arange(n) + rng.uniform(-0.3, 0.3, n)) / n
    depth = rng.uniform(0.78, 0.86, n)
    folds = []
    for angle, at in zip(around, depth, strict=True):
        x, y = 0.287 * at * np.cos(angle), 0.365 * at * np.sin(angle)
        length, width = rng.uniform(0.02, 0.045), rng.uniform(0.003, 0.006)
        folds.append(Ellipse(-0.2, (x, y), (length, width), np.arctan2(y, x) + rng.uniform(-0.4, 0.4)))
    return folds


def _vessels(rng: np.random.Generator, n: int = 14) -> list[Ellipse]:
    """Bright dots of one to three millimetres across."""
    radius = rng.uniform(0.0025, 0.006, n)
    return [Ellipse(0.4, _place(rng, 0.85), (float(r), float(r))) for r in radius]


def _texture(rng: np.random.Generator, n: int = 60) -> list[Ellipse]:
    """Faint blobs of many sizes, so that no tissue is flat."""
    return [
        Ellipse(
            rng.uniform(-0.05, 0.05),
            _place(rng, 0.8),
            (rng.uniform(0.008, 0.05), rng.uniform(0.008, 0.05)),
            rng.uniform(0, np.pi),
        )
        for _ in range(n)
    ]


def _place(rng: np.random.Generator, reach: float) -> tuple[float, float]:
    """Draw a point in the brain, evenly over its area."""
    radius, angle = reach * np.sqrt(rng.uniform()), rng.uniform(0, 2 * np.pi)
    return 0.287 * radius * np.cos(angle), 0.365 * radius * np.sin(angle)


def _waves(x: Float64, y: Float64) -> Complex128:
    """Return the plane waves ``(wave, ...)`` that coil profiles are made of, at the given points."""
    # half cycles: a period of two fields of view, so that a profile need not agree at opposite edges
    steps = np.arange(-WAVE_STEPS, WAVE_STEPS + 1) / 2
    fx, fy = (f.reshape(-1, *[1] * np.ndim(x)) for f in np.meshgrid(steps, steps, indexing="ij"))
    return np.exp(2j * np.pi * (fx * x + fy * y)).astype(np.complex128)


def coil_profiles(n_coils: int, x: Float64, y: Float64) -> Complex128:
    """Return the profiles of coils on a ring at points in fields of view from the middle, ``(coil, ...)``."""
    return _profiles(coil_weights(n_coils), x, y)


def _profiles(weights: Complex128, x: Float64, y: Float64) -> Complex128:
    profiles: Complex128 = np.tensordot(weights, _waves(x, y), axes=1)
    return profiles


def coil_weights(n_coils: int) -> Complex128:
    """Return how much of each plane wave each coil's profile holds, ``(coil, wave)``.

    The profile that is aimed at falls off as the field of a current loop does, turns its phase from coil to coil,
    and has a smooth background phase; the profile is the best approximation by the waves, exact by definition.
    """
    side = np.linspace(-0.55, 0.55, 23)
    x, y = (axis.ravel() for axis in np.meshgrid(side, side, indexing="ij"))
    angle = 2 * np.pi * (np.arange(n_coils)[:, None] + 0.5) / n_coils
    to_coil = np.hypot(x - COIL_RING_RADIUS * np.cos(angle), y - COIL_RING_RADIUS * np.sin(angle))
    magnitude = (1 + (to_coil / COIL_RADIUS) ** 2) ** -1.5
    background = 0.6 * x - 0.4 * y + 1.2 * (x**2 + y**2)
    phase = angle + 1.5 * (x * np.cos(angle) + y * np.sin(angle)) + background
    target = magnitude * np.exp(1j * phase)
    target /= np.sqrt((magnitude**2).sum(0).mean())
    # neighbouring waves look alike over one field of view: the cut keeps their weights small
    weights = np.linalg.lstsq(_waves(x, y).T, target.T, rcond=1e-3)[0].T
    return weights.astype(np.complex128)


def sample_shifted_transforms(ellipses: list[Ellipse], shape: tuple[int, int]) -> Complex128:
    """Return the Fourier integral of the object times each plane wave on the k-space grid, ``(wave, x, y)``.

    A plane wave moves the transform by half cycles, so one grid of half the spacing, a little wider than the
    scan's, holds the answers for all waves.
    """
    fine = [np.arange(-2 * (n // 2) - WAVE_STEPS, 2 * (n - n // 2) + WAVE_STEPS) / 2 for n in shape]
    kx, ky = np.meshgrid(*fine, indexing="ij", sparse=True)
    spectrum = np.zeros((len(fine[0]), len(fine[1])), dtype=np.complex128)
    for ellipse in ellipses:
        spectrum += ellipse.transform(kx, ky)
    starts = range(2 * WAVE_STEPS, -1, -1)  # the first wave has the lowest frequency: it reads the highest k
    windows = [[slice(start, start + 2 * n, 2) for start in starts] for n in shape]
    return np.stack([spectrum[rows, columns] for rows in windows[0] for columns in windows[1]])


def noise_covariance(n_coils: int, noise: float) -> Complex128:
    """Return ``E[n nᴴ]``: equal variances, correlations that fall off around the ring of coils."""
    apart = np.abs(np.subtract.outer(np.arange(n_coils), np.arange(n_coils)))
    return (noise**2 * NEIGHBOUR_CORRELATION ** np.minimum(apart, n_coils - apart)).astype(np.complex128)


def draw_noise(covariance: Complex128, shape: tuple[int, int], rng: np.random.Generator) -> Complex128:
    """Draw complex Gaussian noise ``(coil, x, y)`` of the given coil covariance."""
    size = (len(covariance), *shape)
    white = (rng.standard_normal(size) + 1j * rng.standard_normal(size)) / np.sqrt(2)
    values, vectors = np.linalg.eigh(covariance)  # unlike a Cholesky factor it also exists for a noise of zero
    root = vectors * np.sqrt(np.maximum(values, 0))
    noise: Complex128 = np.tensordot(root, white, axes=1)
    return noise


def phantom_truth(ellipses: list[Ellipse], weights: Complex128, shape: tuple[int, int]) -> PhantomTruth:
    """Sample the object and the coil profiles on the pixel grid."""
    pixels = [(np.arange(n) - n // 2) / n for n in shape]
    within = (np.arange(SUBPIXELS) - (SUBPIXELS - 1) / 2) / SUBPIXELS
    points = [(axis[:, None] + within / len(axis)).ravel() for axis in pixels]
    x, y = np.meshgrid(*points, indexing="ij", sparse=True)
    density = np.zeros((len(points[0]), len(points[1])))
    for ellipse in ellipses:
        density[ellipse.contains(x, y)] += ellipse.signal
    density = density.reshape(shape[0], SUBPIXELS, shape[1], SUBPIXELS).mean(axis=(1, 3))

    profiles = _profiles(weights, *np.meshgrid(*pixels, indexing="ij"))
    rss = np.sqrt((np.abs(profiles) ** 2).sum(0))
    # the image takes the profiles' common phase, that of their sum after each coil's own turn is taken back
    own_turn = np.exp(-2j * np.pi * (np.arange(len(weights)) + 0.5) / len(weights))
    common = np.exp(1j * np.angle(np.tensordot(own_turn, profiles, axes=1)))
    return PhantomTruth(
        image=(density * rss * common)[None].astype(np.complex64),
        maps=(profiles / (rss * common)).astype(np.complex64),
    )
