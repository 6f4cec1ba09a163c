"""K-space of an MR volume: coils and phase on its own fine pixels, of whose spectrum the scan measures the middle."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dipmed.patient import mrd_from_affine, plane_affine
from dipmed.phantom import coil_profiles
from dipmed.scan import SIMULATED, DipmedError, ImageVolume, KSpaceScan
from dipmed.simulate.volume import check_memory, check_reduction, from_slice, generator_for, voxel_sizes
from operators import add_noise, centred_fft, centred_ifft, make_mask, parse_undersampling

_PHASE_WAVES = 3
"""Phase is made of cosines of up to two half periods along each axis."""


@dataclass(frozen=True)
class KSpaceSettings:
    """How an MR volume is measured.

    Parameters
    ----------
    n_coils
        On a ring around the field of view.
    noise
        Standard deviation of one complex sample of one coil (``E|n|² = noise²``), in units of the brightest voxel of
        the volume. The transform is orthonormal, so it is also that of a pixel of a fully sampled coil image.
    undersample
        Lines to keep, e.g. ``"random:R=4,acs=16,seed=0"``; None for all.
    reduce
        Voxels of the volume along each side of a pixel to reconstruct, 2 or more.
    seed
        Of phase and noise.
    """

    n_coils: int = 8
    noise: float = 0.0
    undersample: str | None = None
    reduce: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_coils < 1:
            raise DipmedError(f"--n-coils needs one or more coils, got {self.n_coils}")
        if not 0 <= self.noise < math.inf:
            raise DipmedError(f"--noise must be finite and not negative, got {self.noise}")
        if self.undersample is not None:
            parse_undersampling(self.undersample)
        check_reduction(self.reduce)


def simulate_kspace(
    volume: ImageVolume,
    settings: KSpaceSettings,
    slices: range,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[KSpaceScan, ImageVolume]:
    """Measure slices of magnitudes; return the scan, and the magnitude that its band of k-space holds.

    Raises
    ------
    GeometryError
        When the axes of the slices are not perpendicular.
    DipmedError
        When the volume is zero, has negative values or too few pixels, whole readouts cannot be kept, or the work would
        not fit in memory.
    """
    voxel_sizes(volume)
    peak = _check_magnitude(volume)
    fine = volume.data.shape[:2]
    matrix = fine[0] // settings.reduce, fine[1] // settings.reduce
    if min(matrix) < 8:
        raise DipmedError(f"{fine} pixels reduced {settings.reduce} times leave {matrix}; take a smaller --reduce")
    mask = _mask(settings, matrix)
    n_values = settings.n_coils * (4 * math.prod(fine) + 3 * len(slices) * math.prod(matrix))
    check_memory(8 * n_values, "choose fewer --slices or --n-coils")
    affine = from_slice(_cropped_affine(volume.affine, fine, matrix), slices[0])
    mrd_from_affine(plane_affine(affine), (*matrix, 1))  # what the file of the scan can hold

    maps, phase = _coil_maps(settings.n_coils, fine), _smooth_phase(fine, settings.seed)
    kspace, magnitudes = [], []
    for number in slices:
        image = torch.from_numpy(np.ascontiguousarray(volume.data[:, :, number], dtype=np.float32)) * phase
        measured = _middle(centred_fft(image * maps, 2), matrix)
        noisy = add_noise(measured, settings.noise * peak, generator_for(settings.seed, number))
        kspace.append((noisy * mask).numpy())
        magnitudes.append(centred_ifft(_middle(centred_fft(image, 2), matrix), 2).abs().numpy())
        if progress is not None:
            progress(len(kspace), len(slices))
    scan = KSpaceScan(
        kspace=np.stack(kspace)[None],
        mask=np.broadcast_to(mask.numpy(), (1, len(slices), *matrix)).copy(),
        affine=affine,
        image_shape=matrix,
        source=SIMULATED,
        assumptions=_assumptions(settings, peak),
        notes=(f"Simulated from an image volume on pixels {settings.reduce} times finer.",),
    )
    return scan, ImageVolume(np.stack(magnitudes, axis=-1), affine)


def _check_magnitude(volume: ImageVolume) -> float:
    """Return the brightest voxel."""
    lowest, peak = float(volume.data.min()), float(volume.data.max())
    if lowest < 0 or peak == 0:
        raise DipmedError(f"expected magnitudes of an MR volume, not negative and not all zero; got {lowest} to {peak}")
    return peak


def _mask(settings: KSpaceSettings, matrix: tuple[int, int]) -> Tensor:
    if settings.undersample is None:
        return torch.ones(matrix, dtype=torch.bool)
    mask = make_mask(settings.undersample, matrix)
    if not torch.equal(mask, mask[:1].expand_as(mask)):
        raise DipmedError(
            f"a scan of slices keeps whole readouts, which {settings.undersample!r} does not; take random"
        )
    return mask


def _middle(kspace: Tensor, matrix: tuple[int, int]) -> Tensor:
    """Keep the band of the middle of k-space, scaled so that a constant image keeps its value."""
    fine = kspace.shape[-2:]
    x, y = (slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(fine, matrix, strict=True))
    return kspace[..., x, y] * math.sqrt(math.prod(matrix) / math.prod(fine))


def _coil_maps(n_coils: int, fine: tuple[int, int]) -> Tensor:
    """Sensitivities ``(coil, x, y)`` with ``Σ|s|² = 1``."""
    profiles = coil_profiles(n_coils, *_places(fine))
    return torch.from_numpy((profiles / np.sqrt((np.abs(profiles) ** 2).sum(axis=0))).astype(np.complex64))


def _smooth_phase(fine: tuple[int, int], seed: int) -> Tensor:
    """Return a unit phase ``(x, y)`` from a few random cosines, about one radian in all."""
    rng = np.random.default_rng(seed)
    x, y = (place[:, 0] if axis == 0 else place[0] for axis, place in enumerate(_places(fine)))
    orders = np.arange(_PHASE_WAVES)
    heights = rng.standard_normal((_PHASE_WAVES, _PHASE_WAVES)) / (1 + np.add.outer(orders, orders))
    along_x, along_y = (np.cos(np.pi * np.multiply.outer(orders, place + 0.5)) for place in (x, y))
    return torch.from_numpy(np.exp(1j * (along_x.T @ heights @ along_y)).astype(np.complex64))


def _places(fine: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels in fields of view from the middle, ``(x, y)`` each."""
    x, y = np.meshgrid(*[(np.arange(n) - n // 2) / n for n in fine], indexing="ij")
    return x, y


def _cropped_affine(affine: NDArray[np.float64], fine: tuple[int, int], matrix: tuple[int, int]) -> NDArray[np.float64]:
    """Affine of fewer pixels over the same field of view: the middle pixel, n // 2, stays in its place."""
    coarse = affine.copy()
    coarse[:3, :2] *= np.array(fine) / np.array(matrix)
    coarse[:3, 3] += affine[:3, :2] @ (np.array(fine) // 2) - coarse[:3, :2] @ (np.array(matrix) // 2)
    return coarse


def _assumptions(settings: KSpaceSettings, peak: float) -> tuple[str, ...]:
    noise = f"White noise of {settings.noise:g} of the brightest voxel, {settings.noise * peak:.4g}, in each sample."
    return (
        "The values of the volume were taken as magnitudes; the phase is random and smooth, the same in all slices.",
        f"{settings.n_coils} coils stand on a ring around the field of view, the same for all slices.",
        "The first axis of the volume is the readout, the second the phase encode, slices are measured one by one.",
        noise if settings.noise else "No noise.",
    )
