"""The images that a reconstruction writes, and whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dipmed.io.dicom_modules import MODALITIES, DicomDetails
from dipmed.io.dicom_study import Study, new_study, study_of
from dipmed.io.dicom_writer import check_details
from dipmed.io.images import check_output, is_dicom, is_series, save_image, std_path
from dipmed.io.source_volume import SourceVolume
from dipmed.recon import ScanResult
from dipmed.scan import DipmedError, KSpaceScan, Scan, SequenceFigures
from dipmed.settings import ReconSettings


def check_outputs(paths: Sequence[Path], *, with_std: bool, force: bool) -> None:
    """Refuse images that could not be written, or of which one would replace the other.

    Raises
    ------
    OutputError
        When one cannot be written.
    DipmedError
        When two have the same name.
    """
    targets = [*paths, *(std_path(path) for path in paths if with_std)]
    for path in targets:
        check_output(path, force=force)
        if targets.count(path) > 1:
            raise DipmedError(f"{path} would be written twice; choose other names for the images")


def find_study(paths: Sequence[Path], *, like: Path | None, series: str | None, patient_id: str | None) -> Study | None:
    """Return the study that DICOM outputs belong to, None where there is none.

    Raises
    ------
    FormatError
        When the series to follow cannot be read, or the identifier is no possible one.
    DipmedError
        When options contradict each other.
    """
    if not any(map(is_dicom, paths)):
        if like is not None or patient_id is not None:
            raise DipmedError("--like and --patient-id are for DICOM: -o FOLDER, NAME.dcm or NAME.sc.dcm")
        return None
    if like is not None and patient_id is not None:
        raise DipmedError("--like says who the patient is; leave out --patient-id")
    if like is None and series is not None:
        raise DipmedError("--series chooses a series of --like FOLDER, which is missing")
    return new_study(patient_id) if like is None else study_of(like, series)


def find_source(paths: Sequence[Path], volume: Path, series: str | None) -> Study | None:
    """Return the study of the volume that DICOM outputs are made from, None where there is none.

    Raises
    ------
    FormatError
        When it cannot be read.
    DipmedError
        When the volume is no DICOM, and so does not say of which modality it is.
    """
    if not any(map(is_dicom, paths)):
        return None
    if not is_series(volume):
        raise DipmedError(f"{volume} does not say what modality it is of; images of it are not written as DICOM")
    return replace(study_of(volume, series), is_source=True)


def restored_details(source: SourceVolume, task: str, study: Study, paths: Sequence[Path]) -> DicomDetails:
    """Return what DICOM outputs will say of a restored volume.

    Raises
    ------
    DipmedError
        When it is neither MRI nor CT.
    OutputError
        When they cannot hold it.
    """
    modality = next((name for name, word in MODALITIES.items() if word == source.modality), None)
    if modality is None:
        raise DipmedError(f"MRI and CT are written as DICOM, and the volume is of modality {source.modality or 'none'}")
    return _checked(DicomDetails(modality, source.unit, task, study=study), paths)


def dicom_details(scan: Scan, settings: ReconSettings, study: Study, paths: Sequence[Path]) -> DicomDetails:
    """Return what DICOM outputs will say of the image of a scan.

    Raises
    ------
    OutputError
        When they cannot hold it.
    """
    details = DicomDetails(
        modality=scan.modality,
        unit="HU" if scan.modality == "ct" and settings.hounsfield else None,
        method=settings.method,
        ndim=scan.ndim,
        sequence=scan.sequence if isinstance(scan, KSpaceScan) else SequenceFigures(),
        study=study,
    )
    return _checked(details, paths)


def _checked(details: DicomDetails, paths: Sequence[Path]) -> DicomDetails:
    for path in filter(is_dicom, paths):
        check_details(path, details)
    return details


def save_outputs(
    result: ScanResult,
    paths: Sequence[Path],
    *,
    complex: bool = False,
    dicom: DicomDetails | None = None,
    force: bool = False,
) -> list[Path]:
    """Write the image, and its standard deviation where there is one, and return the names of all.

    Raises
    ------
    OutputError
        When one cannot be written.
    """
    for path in paths:
        save_image(result.volume, path, complex=complex, dicom=dicom, force=force)
    if result.std is None:
        return list(paths)
    of_std = dicom and replace(dicom, quantity="standard deviation")
    maps = [std_path(path) for path in paths]
    for path in maps:
        save_image(result.std, path, dicom=of_std, force=force)
    return [*paths, *maps]
