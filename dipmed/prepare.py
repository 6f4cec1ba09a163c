"""A scan brought to what its reconstruction starts from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dipmed.calib.coils import compress_coils
from dipmed.calib.helix import rebin_helix
from dipmed.calib.noise import prewhiten
from dipmed.calib.projections import assume_counts, centre_rotation, keep_slices, keep_views, resample_grid
from dipmed.calib.readout import remove_oversampling, split_readout
from dipmed.io.arrays import load_mask
from dipmed.scan import DipmedError, KSpaceScan, ProjectionScan, Scan, ShapeError
from dipmed.settings import ReconSettings
from operators import make_mask, parse_undersampling


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
