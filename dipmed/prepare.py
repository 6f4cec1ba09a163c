"""What a user chooses for a reconstruction, and a scan brought to what the reconstruction starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.calib.coils import compress_coils
from dipmed.calib.helix import rebin_helix
from dipmed.calib.noise import prewhiten
from dipmed.calib.projections import assume_counts, centre_rotation, keep_slices, keep_views, resample_grid
from dipmed.calib.readout import remove_oversampling, split_readout
from dipmed.config import FitConfig, find_preset
from dipmed.dip import Uncertainty
from dipmed.dip.methods.warm_start import HOW_TO
from dipmed.io.arrays import load_mask
from dipmed.methods import METHODS, find_method
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan, Scan, ShapeError
from dipmed.weights import PretrainedWeights
from operators import make_mask, parse_undersampling

MANY_VIEWS = 45
"""From as many on slices of CT have a preset of their own; it was measured at 60, and the other up to 31."""


@dataclass(frozen=True)
class ReconSettings:
    """What a user chooses for a reconstruction.

    Parameters
    ----------
    method, preset
        Names; the preset defaults to the one for the scan's dimensions and views, see `with_preset`.
    changes
        Fields of `FitConfig` that replace the preset's and the method's.
    sets
        Texts ``KEY=VALUE`` that do so as well or set the method's own options, see `dipmed.methods.Method`.
    weights
        Where a fit starts, for methods that take such weights; their network then replaces the preset's.
    undersample
        Name of a retrospective undersampling, e.g. ``"random:R=4,acs=16,seed=0"``.
    mask
        File of a sampling mask to apply instead.
    join_frames
        Take all frames of a trajectory as one acquisition.
    split_readout
        Reconstruct a 3-D Cartesian acquisition slice by slice, see `dipmed.calib.readout.split_readout`; ``slices`` are
        then positions along the readout.
    poisson
        Weight the rays of projections by their photons in a fit.
    rebin
        Turn a helical CT scan into slices first, see `dipmed.calib.helix.rebin_helix`.
    maps
        ``"espirit"``, ``"jsense"``, or a file of sensitivity maps.
    map_sets
        Sets of ESPIRiT maps, more than one where the field of view is smaller than the object.
    n_coils
        Virtual coils to compress to; None keeps all.
    slices
        First slice and the one after the last; None for all.
    views
        How many of the measured views of projections to keep, evenly; None for all.
    matrix
        Pixels along x and y of a CT image over the same field of view; None for as many as the scan says.
    hounsfield
        Give CT images in Hounsfield units and not in 1/mm.
    water
        Attenuation of water in 1/mm for them; None for what the scan says.
    uncertainty
        Way to a map of the standard deviation beside the image; None for no map.
    warm_start
        Start the fit of each slice, but the first, from the weights of the one before.
    reference_image
        File of a similar image on the grid of the scan, for the method ``reference-guided``.
    mode
        ``"slice"`` fits each slice by itself, ``"3d"`` the volume by one network, ``"slab"`` overlapping parts of it;
        ``"auto"`` is what `dipmed.mode.choose_mode` makes of it.
    slab
        Most slices of a slab; None for as many as memory holds.
    memory_gib
        What a reconstruction may take; None for what is free.
    device
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    in_flight
        Slices that are fitted at a time as one program; None for one on the CPU, and what memory holds on a GPU.
    compile
        Compile that program: ``"on"``, ``"off"``, or ``"auto"`` for several slices on a GPU.
    """

    method: str = "dip"
    preset: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    sets: tuple[str, ...] = ()
    weights: PretrainedWeights | None = None
    undersample: str | None = None
    mask: Path | None = None
    join_frames: bool = False
    split_readout: bool = False
    rebin: bool = False
    poisson: bool = False
    maps: str = "espirit"
    map_sets: int = 1
    n_coils: int | None = None
    slices: tuple[int, int] | None = None
    views: int | None = None
    matrix: int | None = None
    hounsfield: bool = False
    water: float | None = None
    uncertainty: Uncertainty | None = None
    warm_start: bool = False
    reference_image: Path | None = None
    mode: str = "auto"
    slab: int | None = None
    memory_gib: float | None = None
    device: str = "auto"
    in_flight: int | None = None
    compile: str = "auto"

    def ndim_for(self, scan: Scan) -> int:
        """Dimensions of one image of a scan as it is reconstructed."""
        if self.mode in ("slab", "3d"):
            return 3
        return 2 if self.split_readout or self.rebin else scan.ndim

    def stacks_slices(self, scan: Scan) -> bool:
        """Whether slices of a prepared scan are fitted together as a volume."""
        return scan.ndim == 2 and self.mode in ("slab", "3d")

    def preset_for(self, modality: str, ndim: int) -> str:
        """Name of the preset for a scan of ``ndim`` dimensions by ``"mri"`` or ``"ct"``."""
        return self.preset or f"{modality}-{ndim}d"

    def fit_config(self, modality: str, ndim: int) -> FitConfig:
        """The settings of the fit for such a scan."""
        method = find_method(self.method)
        config = method.configure(find_preset(self.preset_for(modality, ndim)), modality)
        if self.weights is not None and method.takes_weights:
            config = config.replace(network=self.weights.network)
        changes = self.chosen_changes()
        if isinstance(changes.get("network"), dict):
            changes["network"] = replace(config.network, **changes["network"])
        return config.replace(**changes)

    def check_uncertainty(self, modality: str, ndim: int) -> None:
        """Refuse a map of the standard deviation that the method does not have.

        Raises
        ------
        DipmedError
            When it has none.
        """
        objection = self.objection_to_uncertainty(modality, ndim)
        if objection is not None:
            raise DipmedError(objection)

    def check_warm_start(self) -> None:
        """Refuse fits that cannot start from the weights of a neighbour.

        Raises
        ------
        DipmedError
            Saying why not.
        """
        if not self.warm_start:
            return
        if not find_method(self.method).can_start_warm:
            able = ", ".join(method.name for method in METHODS.values() if method.can_start_warm)
            raise DipmedError(f"{self.method} cannot start from a neighbour's weights; --warm-start is for {able}")
        if self.uncertainty is not None and self.uncertainty.kind == "ensemble":
            raise DipmedError("an ensemble tells how far fresh fits lie apart; leave out --warm-start")

    def objection_to_uncertainty(self, modality: str, ndim: int) -> str | None:
        """Say why the method has no map of the standard deviation; None when it has, or none is asked for."""
        if self.uncertainty is None:
            return None
        fit = find_method(self.method).fit
        if fit is None:
            return f"{self.method} is no fit, and has no uncertainty; choose a fit, as `dipmed methods` lists them"
        return self.uncertainty.objection(fit, self.fit_config(modality, ndim))

    def chosen_changes(self) -> dict[str, Any]:
        """The settings of the fit that were asked for, by name."""
        return {**find_method(self.method).read_settings(self.sets)[1], **self.changes}

    def method_options(self) -> dict[str, Any]:
        """What was chosen of the method's own options."""
        return find_method(self.method).read_settings(self.sets)[0]

    def fit_options(self) -> dict[str, Any]:
        """These and the weights, for the methods that take some."""
        weights = {"weights": self.weights} if find_method(self.method).takes_weights else {}
        return {**self.method_options(), **weights}


def with_preset(scan: Scan, settings: ReconSettings) -> ReconSettings:
    """Name the preset for slices of many views, or for stacks of slices, where none was named and it is for them."""
    if settings.preset is not None or not isinstance(scan, ProjectionScan):
        return settings
    if settings.mode in ("slab", "3d") and (scan.ndim == 2 or settings.rebin):
        return replace(settings, preset="ct-3d-slices")
    if settings.ndim_for(scan) != 2:
        return settings
    return replace(settings, preset="ct-2d-many-views") if has_many_views(scan, settings) else settings


def has_many_views(scan: ProjectionScan, settings: ReconSettings) -> bool:
    """Whether so many views are kept that slices of CT have a preset of their own."""
    return (scan.n_views if settings.views is None else settings.views) >= MANY_VIEWS


def prepare(scan: Scan, settings: ReconSettings) -> Scan:
    """Bring a scan to what a reconstruction starts from, with what it was told to keep.

    K-space: chosen slices, white noise, no oversampling, fewer coils. Projections: chosen slices and views, the
    rotation axis, the grid.

    Raises
    ------
    DipmedError
        When a choice does not fit the scan.
    """
    _check_choices(scan, settings)
    return prepare_kspace(scan, settings) if isinstance(scan, KSpaceScan) else _prepare_projections(scan, settings)


def check_weights(settings: ReconSettings, names: Sequence[str], modality: str | None = None, ndim: int = 2) -> None:
    """Refuse weights that none of these methods takes or that are for other images, and a method that lacks them.

    Raises
    ------
    DipmedError
        Saying which it is.
    """
    weights, takers = settings.weights, [name for name in names if find_method(name).takes_weights]
    if weights is None and takers:
        raise DipmedError(f"{takers[0]} starts from pre-trained weights; give --weights FILE: {HOW_TO}")
    if weights is None:
        return
    if not takers:
        able = " and ".join(method.name for method in METHODS.values() if method.takes_weights)
        raise DipmedError(f"{', '.join(names)} cannot start from weights; --weights is for {able}")
    if modality is not None and (weights.modality, weights.ndim) != (modality, ndim):
        raise DipmedError(
            f"the weights are for {weights.modality.upper()} images of {weights.ndim} dimensions, but this scan is "
            f"{modality.upper()} in {ndim}; {HOW_TO}"
        )


_FOR_KSPACE = {
    "undersample": "--undersample",
    "mask": "--mask",
    "join_frames": "--join-frames",
    "split_readout": "--split-readout",
    "map_sets": "--map-sets",
    "n_coils": "--coils",
}
_FOR_PROJECTIONS = {
    "rebin": "--rebin",
    "poisson": "--poisson",
    "views": "--views",
    "matrix": "--matrix",
    "hounsfield": "--hounsfield",
    "water": "--water",
}


def _check_choices(scan: Scan, settings: ReconSettings) -> None:
    """Refuse what makes sense for the other kind of scan only."""
    is_kspace = isinstance(scan, KSpaceScan)
    for name, option in (_FOR_PROJECTIONS if is_kspace else _FOR_KSPACE).items():
        if getattr(settings, name) != getattr(ReconSettings, name):
            kind, other = ("k-space", "projections") if is_kspace else ("projections", "k-space")
            raise DipmedError(f"{option} is for {other}, but this scan holds {kind}")


def _prepare_projections(scan: ProjectionScan, settings: ReconSettings) -> ProjectionScan:
    if settings.rebin:
        scan = rebin_helix(scan)
    if settings.slices is not None:
        scan = keep_slices(scan, settings.slices)
    if settings.views is not None:
        scan = keep_views(scan, settings.views)
    if settings.matrix is not None:
        scan = resample_grid(scan, settings.matrix)
    if settings.water is not None:
        scan = scan.replace(water_per_mm=settings.water)
    if settings.hounsfield and scan.water_per_mm is None:
        raise DipmedError("Hounsfield units need the attenuation of water, which the file does not say; give --water")
    if settings.poisson and scan.counts is None:
        scan = assume_counts(scan)
    # from the views that are kept: a reconstruction from few views must not profit from the others
    return centre_rotation(scan)


def prepare_kspace(scan: KSpaceScan, settings: ReconSettings) -> KSpaceScan:
    """Do the part of `prepare` that is for k-space."""
    if settings.join_frames:
        scan = join_frames(scan)
    if settings.split_readout:
        scan = split_readout(scan)
    scan = remove_oversampling(prewhiten(_choose_slices(scan, settings.slices)))
    scan = _undersample(scan, settings)
    if not scan.kspace.any():
        raise DipmedError("all k-space samples are zero: there is nothing to reconstruct")
    return scan if settings.n_coils is None else compress_coils(scan, settings.n_coils)


def _choose_slices(scan: KSpaceScan, slices: tuple[int, int] | None) -> KSpaceScan:
    if slices is None:
        return scan
    first, end = slices
    if scan.ndim == 3:
        raise DipmedError(
            "--slices chooses slices of a 2-D scan; this one is a 3-D acquisition: with --split-readout, positions "
            "along its readout are slices"
        )
    if not 0 <= first < end <= scan.n_slices:
        raise DipmedError(f"--slices {first}:{end} does not fit {scan.n_slices} slices; they count from 0")
    affine = scan.affine.copy()
    affine[:3, 3] += first * affine[:3, 2]
    chosen = slice(first, end)
    return scan.replace(
        kspace=scan.kspace[:, chosen],
        mask=None if scan.mask is None else scan.mask[:, chosen],
        calibration=None if scan.calibration is None else scan.calibration[:, chosen],
        affine=affine,
    )


def _undersample(scan: KSpaceScan, settings: ReconSettings) -> KSpaceScan:
    if settings.undersample is not None and settings.mask is not None:
        raise DipmedError("give --undersample or --mask, not both")
    if not scan.is_cartesian:
        return _undersample_readouts(scan, settings)
    if settings.undersample is not None:
        chosen = make_mask(settings.undersample, scan.matrix_shape).numpy()
    elif settings.mask is not None:
        chosen = _fit_mask(load_mask(settings.mask), scan)
        if settings.split_readout and chosen.ndim == 3 and (chosen != chosen[:1]).any():
            raise DipmedError("the mask leaves out parts of the readout, so the scan cannot be split into slices")
    else:
        return scan
    mask = sampled_mask(scan) & chosen
    # a separate reference acquisition was not part of what is undersampled, but using it would flatter the result
    return scan.replace(kspace=scan.kspace * mask[:, :, None], mask=mask, calibration=None)


def _undersample_readouts(scan: KSpaceScan, settings: ReconSettings) -> KSpaceScan:
    """Keep some readouts of a trajectory: the rule counts them as it counts lines."""
    if settings.mask is not None:
        raise DipmedError("--mask chooses locations of a Cartesian grid, but this scan has a trajectory")
    if settings.undersample is None:
        return scan
    limits = parse_undersampling(settings.undersample).limits
    if limits:
        raise DipmedError(f"{' and '.join(limits)} leave out parts of a Cartesian grid, but this scan has a trajectory")
    if scan.n_readouts is None:
        raise DipmedError("--undersample keeps whole readouts, but those of this scan differ in length")
    assert scan.trajectory is not None  # noqa: S101  # a scan without a mask has one
    readouts = make_mask(settings.undersample, (1, scan.n_readouts)).numpy()[0]
    chosen = np.repeat(readouts, scan.kspace.shape[-1] // scan.n_readouts)
    return scan.replace(
        kspace=scan.kspace[..., chosen], trajectory=scan.trajectory[:, chosen], n_readouts=int(readouts.sum())
    )


def join_frames(scan: KSpaceScan) -> KSpaceScan:
    """Take all frames of a trajectory as one acquisition.

    Raises
    ------
    DipmedError
        When the scan is Cartesian.
    """
    if scan.trajectory is None:
        raise DipmedError("frames can be joined where samples lie on a trajectory; this scan is Cartesian")
    n_frames, n_slices, n_coils, _ = scan.kspace.shape
    return scan.replace(
        kspace=np.moveaxis(scan.kspace, 0, 2).reshape(1, n_slices, n_coils, -1),
        trajectory=scan.trajectory.reshape(1, -1, scan.ndim),
        n_readouts=None if scan.n_readouts is None else scan.n_readouts * n_frames,
        frame_labels=({},),
        notes=(*scan.notes, f"{n_frames} frames were joined to one."),
    )


def _fit_mask(mask: NDArray[np.bool_], scan: KSpaceScan) -> NDArray[np.bool_]:
    """Broadcast a mask from a file to ``(slice, x, y[, z])``."""
    for shape in (scan.matrix_shape, scan.matrix_shape[1:], (scan.n_slices, *scan.matrix_shape)):
        if mask.shape == shape:
            return np.broadcast_to(mask, (scan.n_slices, *scan.matrix_shape))
    raise ShapeError(
        f"the mask must be {scan.matrix_shape} or {scan.matrix_shape[1:]} like the k-space, got {mask.shape}"
    )


def sampled_mask(scan: KSpaceScan) -> NDArray[np.bool_]:
    """Which locations of a Cartesian scan were sampled, ``(frame, slice, x, y[, z])``."""
    assert scan.mask is not None  # noqa: S101  # a Cartesian scan always has one
    return scan.mask
