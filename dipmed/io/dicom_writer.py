"""Image volumes as DICOM: a folder with a file for each slice, or one file with all."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dipmed.io.dicom_classic import slice_objects
from dipmed.io.dicom_modules import MODALITIES, DicomDetails, Series
from dipmed.io.dicom_multiframe import capture_object, enhanced_object
from dipmed.io.dicom_values import store_hounsfield, store_magnitude
from dipmed.io.files import atomic_folder, atomic_write, check_folder, check_target, ending_of
from dipmed.patient import dicom_planes
from dipmed.scan import ImageVolume, OutputError

if TYPE_CHECKING:
    from pydicom import Dataset

CAPTURE = ".sc.dcm"
_PATTERN = "*.dcm"


def write_dicom(volume: ImageVolume, path: Path, details: DicomDetails, *, force: bool = False) -> None:
    """Write a volume as a new DICOM series; it appears whole or not at all.

    ``NAME.dcm``
        One Enhanced MR or Enhanced CT object.
    ``NAME.sc.dcm``
        One secondary capture, for values that are no CT numbers, and for archives that take nothing else.
    ``NAME``
        A folder of MR Image or CT Image objects, one for each slice.

    Parameters
    ----------
    volume
        A complex image is written as its magnitude. Frames are acquisitions of the one series.
    path
        Where to write.
    details
        What is said of the image.
    force
        Replace what is there; a folder only if it holds nothing but such files.

    Raises
    ------
    OutputError
        When CT values have another unit than the objects ask for, or the files exist or cannot be written.
    GeometryError
        When the axes of a slice are not perpendicular, which DICOM cannot express.
    """
    check_details(path, details)
    series = _series(volume, details, capture=is_capture(path))
    if ending_of(path) == "":
        with atomic_folder(path, pattern=_PATTERN, force=force) as folder:
            for number, instance in enumerate(slice_objects(series), 1):
                _save(instance, folder / f"{number:05d}.dcm")
        return
    instance = capture_object(series) if is_capture(path) else enhanced_object(series)
    with atomic_write(path, force=force) as temporary:
        _save(instance, temporary)


def is_capture(path: Path) -> bool:
    """Whether a file is to be a secondary capture."""
    return ending_of(path) == CAPTURE


def check_output_dicom(path: Path, *, force: bool = False) -> None:
    """Check that `write_dicom` will be able to write there, before the work begins.

    Raises
    ------
    OutputError
        When it cannot.
    """
    if ending_of(path) == "":
        check_folder(path, pattern=_PATTERN, force=force)
    else:
        check_target(path, force=force)


def check_details(path: Path, details: DicomDetails) -> None:
    """Refuse what a reader of the objects would take for something else.

    Raises
    ------
    OutputError
        When CT images are no CT numbers, or the series that is followed is of another modality, whose frame of
        reference says nothing of this one.
    """
    modality = MODALITIES[details.modality]
    if details.study.modality not in (None, modality):
        raise OutputError(
            f"cannot write {path}: it holds {modality}, but is to follow a series of {details.study.modality!r}"
        )
    if details.modality == "ct" and details.unit != "HU" and not is_capture(path):
        raise OutputError(
            f"cannot write {path}: CT images in DICOM hold Hounsfield units; ask for them (--hounsfield), or name the "
            f"file NAME{CAPTURE} for a secondary capture"
        )


def _series(volume: ImageVolume, details: DicomDetails, *, capture: bool) -> Series:
    from pydicom.uid import generate_uid

    data = np.abs(volume.data) if np.iscomplexobj(volume.data) else volume.data
    data = data if data.ndim == 4 else data[..., None]
    if details.unit == "HU" and not capture:
        values = store_hounsfield(data, soft_tissue=not details.quantity)
    else:
        values = store_magnitude(data)
    planes = dicom_planes(volume.affine, data.shape)
    return Series(details, planes, values, generate_uid(prefix=None), datetime.now())


def _save(instance: Dataset, path: Path) -> None:
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = instance.SOPClassUID, instance.SOPInstanceUID
    instance.file_meta = meta
    instance.save_as(path, enforce_file_format=True)
