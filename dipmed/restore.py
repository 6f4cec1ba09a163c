"""From an image volume to a better one, where there is no raw data: less noise, thinner slices, no holes, less blur."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dipmed.calib.image_noise import image_noise_level
from dipmed.calib.scale import data_scale
from dipmed.config import FitConfig
from dipmed.devices import resolve_device
from dipmed.dip import DeepImagePrior, Observer, Progress, ProgressCallback, n_fits
from dipmed.image_pieces import Piece, Task, fitted_shape, join, n_pieces, pieces
from dipmed.io.image_store import ImageStore
from dipmed.io.source_volume import SourceVolume
from dipmed.manifest import image_manifest
from dipmed.memory import check_memory, image_memory
from dipmed.run_job import as_status
from dipmed.scan import DipmedError, DivergedError, ImageVolume, Reconstruction, StopReason
from dipmed.settings import ReconSettings
from dipmed.simulate.volume import from_slice, voxel_sizes
from dipmed.solvers import total_variation_image
from operators import Identity, ImageMask, norm_bound

_VARIATION = {"denoise": 0.7, "superres": 0.3, "inpaint": 0.3, "deblur": 0.3}
"""Weight of the total variation of the image that a fit starts from, in standard deviations of the noise."""

_LEAST_NOISE = 1e-3
"""Of the range of values: a volume of less noise is treated as if it had this much."""

PieceProgress = Callable[[int, int, Progress], None]
"""Takes the piece's number, how many there are, and the progress of its fit."""

PieceFit = Callable[[Piece, FitConfig], Reconstruction]


@dataclass(frozen=True)
class RestoreSettings:
    """What a user chooses for a restoration.

    Parameters
    ----------
    task
        What is to be done.
    sigma
        Standard deviation of the noise in units of the volume; None to estimate it.
    slices
        First slice and the one after the last; None for all.
    fit
        Of which ``preset``, ``changes``, ``sets`` and ``device`` count.
    """

    task: Task
    sigma: float | None = None
    slices: tuple[int, int] | None = None
    fit: ReconSettings = field(default_factory=ReconSettings)

    def __post_init__(self) -> None:
        if self.sigma is not None and not (np.isfinite(self.sigma) and self.sigma > 0):
            raise DipmedError(f"--sigma must be positive, in the units of the volume, got {self.sigma:g}")

    @property
    def preset(self) -> str:
        """Name of the fit's preset."""
        return self.fit.preset_for(self._kind, 3 if self.task.in_3d else 2)

    @property
    def _kind(self) -> str:
        return "denoise" if self.task.name == "denoise" else "image"

    def config(self, variation_weight: float | None = None) -> FitConfig:
        """Settings of a fit; a weight of the total variation that was chosen goes before the one that suits."""
        config = self.fit.fit_config(self._kind, 3 if self.task.in_3d else 2)
        if variation_weight is None or self._chooses_variation:
            return config
        return config.replace(variation_weight=variation_weight)

    @property
    def _chooses_variation(self) -> bool:
        return "variation_weight" in self.fit.chosen_changes()

    def chosen(self) -> dict[str, Any]:
        """What decides the volume beside the settings of the fit, by name."""
        weight = "as chosen" if self._chooses_variation else "by the noise"
        return {**asdict(self.task), "sigma": self.sigma, "slices": self.slices, "total variation": weight}


@dataclass(frozen=True)
class Restoration:
    """A restored volume and what is worth recording about how it came about.

    ``sigma`` is the noise level that was given or estimated, in units of the volume. ``n_resumed`` pieces were there
    before, and ``seconds`` are those of this run.
    """

    volume: ImageVolume
    unit: str | None
    parts: list[Reconstruction]
    sigma: float
    seconds: float
    device: str
    assumptions: tuple[str, ...]
    notes: tuple[str, ...]
    n_resumed: int = 0

    @property
    def was_interrupted(self) -> bool:
        return any(part.status == "interrupted" for part in self.parts)


def restore(
    source: SourceVolume,
    settings: RestoreSettings,
    holes: NDArray[np.bool_] | None = None,
    progress: PieceProgress | None = None,
    observer: Observer | None = None,
    store: ImageStore | None = None,
) -> Restoration:
    """Restore a volume, each plane by itself or all in three dimensions; its values keep their units.

    Where a fit diverges, and for what an interruption leaves undone, the image of least total variation stands in, and
    the notes say so.

    Parameters
    ----------
    holes
        Voxels to fill, bool ``(x, y, z)``, for the task ``"inpaint"``; the others come back as they were.
    observer
        Passed on to the fits, for evaluation from outside; its images are above the darkest known voxel of the volume.
    store
        Where each finished piece is put, and the pieces of a run before are taken from. Whoever writes the volume
        removes it afterwards.

    Raises
    ------
    DipmedError
        When the volume does not suit the task or the store, or the work would not fit in memory.
    """
    start = time.perf_counter()
    device = resolve_device(settings.fit.device)
    manifest = image_manifest(source.volume, holes, settings.chosen(), settings.config(), device)
    volume, holes = _chosen_slices(source.volume, settings.slices, holes)
    known = None if holes is None else ~holes
    check_restoration(volume, settings, holes)
    if store is not None:
        store.begin(manifest)
    n_resumed = 0 if store is None else len(store.places())
    sigma, assumptions = settings.sigma, []
    if sigma is None:
        sigma = image_noise_level(volume.data, known)
        assumptions.append("The noise level was estimated from the differences of neighbouring voxels.")
    seen = volume.data if known is None else volume.data[known]
    darkest = seen.min()
    level = max(sigma, _LEAST_NOISE * float(seen.max() - darkest))
    n_all = n_pieces(volume, settings.task)

    def fit(piece: Piece, config: FitConfig) -> Reconstruction:
        report = None if progress is None else _for_piece(progress, piece.index, n_all)
        return DeepImagePrior(config, noise_variance=level**2, progress=report, observer=observer)(piece.y, piece.A)

    # every operator leaves a constant as it is, and the fit wants air to be zero
    above = ImageVolume(volume.data - darkest, volume.affine)
    parts = _restore_pieces(above, settings, known, level, fit, store)
    images = [part.image[0].cpu().numpy() + darkest for part in parts]
    restored = join(images, volume, settings.task)
    if holes is not None:
        restored = ImageVolume(np.where(holes, restored.data, volume.data), restored.affine)
    return Restoration(
        volume=restored,
        unit=source.unit,
        parts=parts,
        sigma=float(sigma),
        seconds=time.perf_counter() - start,
        device=device.type,
        assumptions=tuple(assumptions),
        notes=(*source.notes, *_notes(parts)),
        n_resumed=n_resumed,
    )


def check_restoration(volume: ImageVolume, settings: RestoreSettings, holes: NDArray[np.bool_] | None) -> None:
    """Refuse what cannot be done, before the work begins.

    Raises
    ------
    DipmedError
        When the volume does not suit the task, or the work would not fit in memory.
    """
    task, shape = settings.task, volume.data.shape
    if (holes is not None) != (task.name == "inpaint"):
        raise DipmedError("inpaint needs --mask FILE, the voxels to fill; other tasks take none")
    if task.name == "superres" and shape[2] < 2:
        raise DipmedError(f"superres needs two slices or more, and the volume is {shape}")
    config, fitted = settings.config(), fitted_shape(volume, task)
    if min(fitted) < 2:
        raise DipmedError(f"two voxels or more along each axis are needed, and what is fitted is {fitted}")
    voxel_sizes(volume, 3)
    advice = "go plane by plane with --mode slice, or take fewer --slices" if task.in_3d else "use a smaller network"
    check_memory(
        image_memory(fitted, config, n_fits(config)), f"a fit of {' x '.join(map(str, fitted))} voxels", advice
    )


def _chosen_slices(
    volume: ImageVolume, slices: tuple[int, int] | None, holes: NDArray[np.bool_] | None
) -> tuple[ImageVolume, NDArray[np.bool_] | None]:
    n_slices = volume.data.shape[2]
    first, end = (0, n_slices) if slices is None else slices
    if not 0 <= first < end <= n_slices:
        raise DipmedError(f"--slices {first}:{end} does not fit {n_slices} slices; they count from 0")
    chosen = ImageVolume(volume.data[:, :, first:end], from_slice(volume.affine, first))
    return chosen, None if holes is None else holes[:, :, first:end]


def _restore_pieces(
    volume: ImageVolume,
    settings: RestoreSettings,
    known: NDArray[np.bool_] | None,
    sigma: float,
    fit: PieceFit,
    store: ImageStore | None,
) -> list[Reconstruction]:
    """Restore all pieces of a volume whose darkest voxel is zero, but for those that are finished already."""
    parts: list[Reconstruction] = []
    device = resolve_device(settings.fit.device)
    finished = () if store is None else store.places()
    interrupted = False
    for piece in pieces(volume, settings.task, known):
        place = (0, piece.index)
        if store is not None and place in finished:
            parts += store.read(place)
            continue
        on_device = Piece(piece.index, piece.y.to(device), piece.A.to(device))
        part = _restore_piece(on_device, settings, sigma, None if interrupted else fit)
        interrupted = interrupted or part.status == "interrupted"
        if store is not None and part.status != "interrupted":
            store.put(place, [part])
        parts.append(part)
    return parts


def _restore_piece(piece: Piece, settings: RestoreSettings, sigma: float, fit: PieceFit | None) -> Reconstruction:
    """Restore one piece; without a fit, after an interruption, as well as can be in little time."""
    plain = _plain(piece)
    if plain is not None:
        return plain
    weight = _variation_weight(piece, _VARIATION[settings.task.name] * sigma)
    if fit is None:
        return replace(_least_variation(piece, weight), status="interrupted")
    try:
        return as_status(fit(piece, settings.config(weight)))
    except DivergedError as error:
        return replace(_least_variation(piece, weight), status="filled", trouble=f"by tv, because {error}")


def _notes(parts: Sequence[Reconstruction]) -> list[str]:
    """Say which pieces were not fitted, and why."""
    notes = [
        f"the fit of piece {index} diverged: it is an image of least total variation"
        for index, part in enumerate(parts)
        if part.status == "filled"
    ]
    n_left = sum(part.status == "interrupted" and part.method == "tv" for part in parts)
    if n_left:
        notes.append(f"interrupted: {n_left} of {len(parts)} pieces were not fitted; they have least total variation")
    return notes


def _plain(piece: Piece) -> Reconstruction | None:
    """The image of a piece that leaves nothing to do; None where there is something."""
    y, A = piece.y, piece.A
    known = y[:, A.mask] if isinstance(A, ImageMask) else y.flatten()
    if bool((known == known.flatten()[0]).all()):
        stop = StopReason("direct", 0, "all voxels have one value")
        return Reconstruction(known.flatten()[0].expand(A.domain.shape), "none", stop, 0, 0.0)
    if isinstance(A, ImageMask) and not isinstance(A, Identity) and bool(A.mask.all()):
        return Reconstruction(y, "none", StopReason("direct", 0, "there is nothing to fill"), 0, 0.0)
    return None


def _variation_weight(piece: Piece, level: float) -> float:
    """Turn a weight of the total variation into the units of the fit, in which images peak near one."""
    factor = 1 / norm_bound(piece.A)
    adjoint = factor**2 * piece.A.adjoint(piece.y)
    return factor * level * data_scale(adjoint) if bool(adjoint.any()) else level


def _least_variation(piece: Piece, weight: float) -> Reconstruction:
    start = time.perf_counter()
    factor = 1 / norm_bound(piece.A)
    adjoint = factor**2 * piece.A.adjoint(piece.y)
    scale = data_scale(adjoint) if bool(adjoint.any()) else 1.0
    scaled: Tensor = scale * piece.A.adjoint(piece.y)
    image, _ = total_variation_image(piece.A, scaled, weight)
    stop = StopReason("direct", 0, "no fit")
    return Reconstruction(image / scale, "tv", stop, 0, time.perf_counter() - start, scale=scale)


def _for_piece(progress: PieceProgress, index: int, n_all: int) -> ProgressCallback:
    return lambda state: progress(index, n_all, state)
