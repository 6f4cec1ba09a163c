"""Whose images a DICOM series shows: patient, study and frame of reference, of another series or new and anonymous."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dipmed.io.dicom_files import Image, choose_series, dicom_images, reading
from dipmed.io.dicom_frames import FRAME_TAGS, frames_of
from dipmed.scan import FormatError

if TYPE_CHECKING:
    from pydicom import Dataset

_PATIENT = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge")
_PATIENT_2 = ("PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod")
_STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
_STUDY_2 = ("StudyDescription",)
_PLACE = ("FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined", "Laterality")
_KEPT = (*_PATIENT, *_PATIENT_2, *_STUDY, *_STUDY_2, *_PLACE)
_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
_REFERENCE = ("SOPClassUID", "SOPInstanceUID")
_NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", *_REFERENCE)
_LARGEST_NUMBER = 2**31 - 1
_LONGEST_ID = 64  # characters of DICOM's LO


@dataclass(frozen=True)
class Reference:
    """An image of the series that is followed: its class and UID, and the centres of first pixels, LPS, mm."""

    sop_class: str
    sop_instance: str
    corners: NDArray[np.float64]


@dataclass(frozen=True)
class Study:
    """What all series of a study share, and what the new series refers to.

    Parameters
    ----------
    elements
        Patient, study and frame of reference, as DICOM elements.
    series_number
        Of the new series.
    scanner
        Elements that name the equipment of the series that is followed; empty where none is.
    modality
        DICOM's word for that of the series that is followed, None where none is.
    series
        Its UID.
    references
        Its images.
    thickness_mm
        Of its slices, None where unknown.
    is_source
        Whether the new series is made from its images, and not only shows the same.
    """

    elements: Dataset
    series_number: int
    scanner: Dataset
    modality: str | None = None
    series: str | None = None
    references: tuple[Reference, ...] = ()
    thickness_mm: float | None = None
    is_source: bool = False


def new_study(patient_id: str | None = None) -> Study:
    """Return a study of its own.

    Parameters
    ----------
    patient_id
        By default a random one, so that an archive does not take two unknown patients for one.

    Raises
    ------
    FormatError
        When DICOM has no place for such an identifier.
    """
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    elements = Dataset()
    if patient_id is None:
        elements.PatientIdentityRemoved = "YES"
        elements.DeidentificationMethod = "dipmed reads no identity from raw data"
        patient_id = f"ANON-{secrets.token_hex(6).upper()}"
    if not 0 < len(patient_id) <= _LONGEST_ID or "\\" in patient_id or not patient_id.isprintable():
        raise FormatError(f"a patient's identifier has 1 to {_LONGEST_ID} printable characters and no backslash")
    now = datetime.now()
    elements.PatientName = "ANONYMOUS^"
    elements.PatientID = patient_id
    elements.PatientBirthDate = elements.PatientSex = ""
    elements.StudyInstanceUID = generate_uid(prefix=None)
    elements.StudyDate, elements.StudyTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    elements.ReferringPhysicianName = elements.AccessionNumber = ""
    elements.StudyID = "1"
    elements.FrameOfReferenceUID = generate_uid(prefix=None)
    elements.PositionReferenceIndicator = elements.PatientPosition = elements.Laterality = ""
    return Study(elements, 1, Dataset())


def study_of(path: Path, series: str | None = None) -> Study:
    """Return the study that a series of DICOM images belongs to; what names the patient stays in the result.

    Raises
    ------
    FormatError
        When there is no series or several, a file is damaged, or one says nothing of its study.
    """
    from pydicom import Dataset

    found, _ = dicom_images(path, (*_KEPT, *_EQUIPMENT, *_REFERENCE, *FRAME_TAGS))
    images = choose_series(found, series, path)
    for file, header in images:
        with reading(file, private=True):
            _check(file, header)
    first = images[0][1]
    with reading(images[0][0], private=True):
        elements, scanner = Dataset(), Dataset()
        for names, target in ((_KEPT, elements), (_EQUIPMENT, scanner)):
            for name in names:
                if name in first:
                    target.add(first[name])
        for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            elements.setdefault(name, "")
        for name in ("ReferringPhysicianName", "StudyID", "AccessionNumber", "PositionReferenceIndicator"):
            elements.setdefault(name, "")
        elements.setdefault("PatientPosition", "")
        if "BodyPartExamined" not in elements:
            elements.setdefault("Laterality", "")
        number = min(100 * int(first.get("SeriesNumber") or 0) + 1, _LARGEST_NUMBER)
        for kept in (elements, scanner):
            _check_writable(kept)
    frames = [_reference(image) for image in images]
    return Study(
        elements=elements,
        series_number=number,
        scanner=scanner,
        modality=str(first.get("Modality", "")),
        series=str(first.SeriesInstanceUID),
        references=tuple(reference for reference, _ in frames),
        thickness_mm=frames[0][1],
    )


def _check(path: Path, header: Dataset) -> None:
    from pydicom.uid import UID

    for name in (*_NEEDED, "FrameOfReferenceUID"):
        value = str(header.get(name) or "")
        if not UID(value).is_valid:
            raise FormatError(f"{path} says no valid {name}, which a series of the same study needs")


def _check_writable(elements: Dataset) -> None:
    """Fail now, and not after the work, on values that can be read but not written."""
    from pydicom import Dataset, dcmwrite

    trial = Dataset()
    trial.update(elements)
    trial.SpecificCharacterSet = "ISO_IR 192"
    dcmwrite(BytesIO(), trial, implicit_vr=False, little_endian=True)


def _reference(image: Image) -> tuple[Reference, float | None]:
    path, header = image
    with reading(path, private=True):
        frames = frames_of(path, header)
    corners = np.array([frame.corner for frame in frames])
    return Reference(str(header.SOPClassUID), str(header.SOPInstanceUID), corners), frames[0].thickness_mm
