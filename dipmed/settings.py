"""What a user chooses for a reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dipmed.config import FitConfig, find_preset
from dipmed.dip import Uncertainty
from dipmed.dip.methods.warm_start import HOW_TO
from dipmed.dip.noise_weights import FOLLOWING
from dipmed.methods import METHODS, find_method
from dipmed.scan import DipmedError, ProjectionScan, Scan
from dipmed.weights import PretrainedWeights

MANY_VIEWS = 45
"""From as many on slices of CT have a preset of their own; it was measured at 60, and the other at 30 and 31."""

FEW_VIEWS = 24
"""Below as many they have one as well, which was measured at 18."""


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
        if not FOLLOWING.isdisjoint(changes):
            changes.setdefault("follow_noise", False)
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
    """Name the preset for stacks of slices, or for slices of many or few views, where none was named."""
    if settings.preset is not None or not isinstance(scan, ProjectionScan):
        return settings
    if settings.mode in ("slab", "3d") and (scan.ndim == 2 or settings.rebin):
        return replace(settings, preset="ct-3d-slices")
    if settings.ndim_for(scan) != 2:
        return settings
    if has_many_views(scan, settings):
        return replace(settings, preset="ct-2d-many-views")
    return replace(settings, preset="ct-2d-few-views") if _kept_views(scan, settings) < FEW_VIEWS else settings


def has_many_views(scan: ProjectionScan, settings: ReconSettings) -> bool:
    """Whether so many views are kept that slices of CT have a preset of their own."""
    return _kept_views(scan, settings) >= MANY_VIEWS


def _kept_views(scan: ProjectionScan, settings: ReconSettings) -> int:
    return scan.n_views if settings.views is None else settings.views


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
