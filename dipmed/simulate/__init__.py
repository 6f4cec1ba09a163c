"""Scans made from image volumes, whose truth is known: projections or k-space, and a reference beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipmed.io.dicom_series import read_series
from dipmed.io.files import atomic_write_all, check_target, ending_of
from dipmed.io.images import check_volume, is_series, load_volume, save_image
from dipmed.io.ismrmrd_writer import save_ismrmrd
from dipmed.io.projection_file import save_projections
from dipmed.scan import DipmedError, ImageVolume, OutputError, ProjectionScan, Scan
from dipmed.simulate.ct import ProjectionSettings, simulate_projections
from dipmed.simulate.mri import KSpaceSettings, simulate_kspace
from dipmed.simulate.scanner import GEOMETRIES

__all__ = [
    "GEOMETRIES",
    "KSpaceSettings",
    "ProjectionSettings",
    "Simulation",
    "check_outputs",
    "make_settings",
    "read_volume",
    "reference_path",
    "save_simulation",
    "simulate",
    "simulate_kspace",
    "simulate_projections",
]

Settings = ProjectionSettings | KSpaceSettings


@dataclass(frozen=True)
class Simulation:
    """A simulated scan, the truth on its grid, and what was chosen or assumed on the way, one sentence each."""

    scan: Scan
    reference: ImageVolume
    settings: Settings
    assumptions: tuple[str, ...]


def make_settings(modality: str, of_ct: dict[str, Any], of_mri: dict[str, Any], **common: Any) -> Settings:
    """Return the settings of a modality from the options that were given for either.

    Raises
    ------
    DipmedError
        When the modality is unknown, an option belongs to the other one, views are missing, or a value is impossible.
    """
    if modality not in ("ct", "mri"):
        raise DipmedError(f"unknown modality {modality!r}; choose ct or mri")
    given, others, other = (of_ct, of_mri, "mri") if modality == "ct" else (of_mri, of_ct, "ct")
    if others:
        names = ", ".join(_OPTIONS.get(name, f"--{name.replace('_', '-')}") for name in others)
        raise DipmedError(f"{names} is for --modality {other}, but the modality is {modality}")
    if modality == "mri":
        return KSpaceSettings(**given, **common)
    if "n_views" not in given:
        raise DipmedError("--modality ct needs --views N")
    return ProjectionSettings(**given, **common)


_OPTIONS = {"n_views": "--views", "water_per_mm": "--water"}


def read_volume(path: str | Path, modality: str, series: str | None = None) -> ImageVolume:
    """Read the volume to simulate from: an image file, or a series of DICOM slices, of several the named one.

    Raises
    ------
    FormatError
        When it cannot be read.
    DipmedError
        When it is complex, has frames, or DICOM files are of another modality.
    """
    path = Path(path)
    if is_series(path):
        found = read_series(path, series)
        expected = {"ct": "CT", "mri": "MR"}[modality]
        if found.modality != expected:
            raise DipmedError(f"--modality {modality} needs {expected} images, but {path} holds {found.modality!r}")
        return check_volume(found.volume, path)
    return load_volume(path)


def simulate(
    volume: ImageVolume,
    settings: Settings,
    slices: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Measure slices of a volume.

    Parameters
    ----------
    volume
        Hounsfield units for CT, magnitudes for MRI, ``(x, y, slice)``.
    settings
        Of the scanner: their kind decides the modality.
    slices
        First slice and the one after the last; None for all.
    progress
        Takes the number of parts done and of all parts.

    Raises
    ------
    DipmedError
        When the slices or settings do not fit the volume, or the work would not fit in memory.
    """
    n_slices = volume.data.shape[2]
    first, end = (0, n_slices) if slices is None else slices
    if not 0 <= first < end <= n_slices:
        raise DipmedError(f"--slices {first}:{end} does not fit {n_slices} slices; they count from 0")
    scan: Scan
    if isinstance(settings, ProjectionSettings):
        scan, reference = simulate_projections(volume, settings, range(first, end), progress)
    else:
        scan, reference = simulate_kspace(volume, settings, range(first, end), progress)
    # assumptions are about the way from volume to scan; what is measured is exactly what the file says
    return Simulation(scan.replace(assumptions=()), reference, settings, scan.assumptions)


def reference_path(scan_path: str | Path) -> Path:
    """Return where the truth of a scan file lies: ``scan.reference.nii.gz`` beside ``scan.h5``."""
    path = Path(scan_path)
    return path.with_name(f"{path.stem}.reference.nii.gz")


def check_outputs(path: str | Path, *, force: bool = False) -> None:
    """Check that scan and reference can be written, before the work begins.

    Raises
    ------
    OutputError
        When the ending is not ``.h5``, a file exists without ``force``, or the folder cannot be written.
    """
    if ending_of(path) != ".h5":
        raise OutputError(f"cannot write {path}: a simulated scan is a .h5 file")
    for target in (path, reference_path(path)):
        check_target(target, force=force)


def save_simulation(simulation: Simulation, path: str | Path, *, force: bool = False) -> None:
    """Write the scan, and the truth beside it: both files or none; the truth is not in the scan.

    Raises
    ------
    OutputError
        When a file exists without ``force`` or cannot be written.
    """
    check_outputs(path, force=force)
    with atomic_write_all([path, reference_path(path)], force=force) as (scan_file, reference_file):
        if isinstance(simulation.scan, ProjectionScan):
            save_projections(simulation.scan, scan_file)
        else:
            save_ismrmrd(simulation.scan, scan_file)
        save_image(simulation.reference, reference_file)
