"""What DICOM images of all kinds say: patient, study, series, equipment, how they came about.

They are built with pydicom alone: highdicom, which is made for derived objects, has no MR Image and CT Image.
Modules are those of the standard, PS3.3 C.7 and C.12; https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

import dipmed
from dipmed.io.dicom_study import Study, new_study
from dipmed.io.dicom_values import StoredValues
from dipmed.patient import DicomPlanes
from dipmed.scan import SequenceFigures

if TYPE_CHECKING:
    from pydicom import Dataset

_PROCESSED = ("121322", "DCM", "Source image for image processing operation")
RESEARCH = "Research use only, not for diagnosis."
MODALITIES = {"mri": "MR", "ct": "CT"}
_LONGEST_NAME = 64  # characters of DICOM's LO


@dataclass(frozen=True)
class DicomDetails:
    """What a DICOM series says of an image besides its values and its place.

    Parameters
    ----------
    modality
        ``"mri"`` or ``"ct"``.
    unit
        ``"HU"`` for CT images in Hounsfield units; other units are written as secondary captures alone.
    method
        Name of the method that made the image.
    quantity
        What the voxels are, e.g. ``"standard deviation"``; empty for the image itself.
    ndim
        2 or 3: the dimensions that MRI was encoded in; None where unknown.
    sequence
        Figures of the pulse sequence; several echoes or angles count only where there are as many frames.
    study
        Whose images these are; by default nobody's.
    """

    modality: str
    unit: str | None = None
    method: str = "dipmed"
    quantity: str = ""
    ndim: int | None = None
    sequence: SequenceFigures = field(default_factory=SequenceFigures)
    study: Study = field(default_factory=new_study)


@dataclass(frozen=True)
class Series:
    """One series in the making: the image with what is said of it, and what all its files share.

    ``values.pixels`` is ``(x, y, slice, frame)``.
    """

    details: DicomDetails
    planes: DicomPlanes
    values: StoredValues
    uid: str
    made: datetime

    @property
    def n_frames(self) -> int:
        return self.values.pixels.shape[3]

    @property
    def n_slices(self) -> int:
        return self.values.pixels.shape[2]

    @property
    def thickness_mm(self) -> float:
        """Of the series that is followed where slices are as far apart; else slices are taken to touch."""
        return self.details.study.thickness_mm or self.planes.distance_mm


def new_instance(series: Series, sop_class: str) -> Dataset:
    """Return an object with everything but its kind, its place and its pixels."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    date, time = series.made.strftime("%Y%m%d"), series.made.strftime("%H%M%S")
    instance = Dataset()
    instance.update(series.details.study.elements)
    instance.SpecificCharacterSet = "ISO_IR 192"
    instance.SOPClassUID, instance.SOPInstanceUID = sop_class, generate_uid(prefix=None)
    instance.InstanceCreationDate, instance.InstanceCreationTime = date, time
    instance.SeriesDate, instance.SeriesTime = date, time
    instance.ContentDate, instance.ContentTime = date, time
    instance.SeriesInstanceUID, instance.SeriesNumber = series.uid, series.details.study.series_number
    name = " ".join(["dipmed", series.details.method, series.details.quantity, "(research use only)"]).split()
    instance.SeriesDescription = " ".join(name)[:_LONGEST_NAME]
    instance.ImageComments = f"{derivation(series.details)} {RESEARCH}"
    if series.details.study.series is not None:
        related = Dataset()
        related.StudyInstanceUID, related.SeriesInstanceUID = instance.StudyInstanceUID, series.details.study.series
        related.PurposeOfReferenceCodeSequence = []
        instance.RelatedSeriesSequence = [related]
    instance.BurnedInAnnotation = "NO"
    instance.LossyImageCompression = "00"
    _add_equipment(instance, series)
    return instance


def derivation(details: DicomDetails) -> str:
    """How the image came about, in a sentence."""
    of = f"{details.quantity.capitalize()} of an image" if details.quantity else "Image"
    made = "restored from other images" if details.study.is_source else "reconstructed"
    return f"{of} {made} by dipmed {dipmed.__version__}, method {details.method}."


def _add_equipment(instance: Dataset, series: Series) -> None:
    """Say that dipmed made the object, and that the scanner, if known, contributed to it."""
    from pydicom import Dataset

    instance.Manufacturer = instance.ManufacturerModelName = "dipmed"
    instance.DeviceSerialNumber = "none"
    instance.SoftwareVersions = dipmed.__version__
    made = Dataset()
    made.PurposeOfReferenceCodeSequence = [code("109102", "DCM", "Processing Equipment")]
    made.Manufacturer = made.ManufacturerModelName = "dipmed"
    made.SoftwareVersions = dipmed.__version__
    made.ContributionDateTime = series.made.strftime("%Y%m%d%H%M%S")
    made.ContributionDescription = derivation(series.details)
    items = [made]
    scanner = series.details.study.scanner
    if scanner.get("Manufacturer"):
        measured = Dataset()
        measured.update(scanner)
        measured.PurposeOfReferenceCodeSequence = [code("109101", "DCM", "Acquisition Equipment")]
        items.insert(0, measured)
    instance.ContributingEquipmentSequence = items


def add_pixels(instance: Dataset, values: StoredValues, shape: tuple[int, int], content: bytes) -> None:
    """Add the pixels of pictures of ``shape`` (row, column)."""
    instance.SamplesPerPixel, instance.PhotometricInterpretation = 1, "MONOCHROME2"
    instance.Rows, instance.Columns = shape
    instance.BitsAllocated, instance.BitsStored, instance.HighBit = 16, 16, 15
    instance.PixelRepresentation = 1 if values.pixels.dtype == np.int16 else 0
    instance.PixelData = content
    instance["PixelData"].VR = "OW"


def add_window(target: Dataset, values: StoredValues) -> None:
    """Add what a viewer opens with."""
    centres, widths, names = zip(*values.windows, strict=True)
    target.WindowCenter, target.WindowWidth = decimals(centres), decimals(widths)
    target.WindowCenterWidthExplanation = list(names)


def add_references(instance: Dataset, series: Series, indices: range) -> None:
    """Refer to the images that lie where these slices of the new series do.

    As sources only where the image was made from them, not where they just show the same anatomy.
    """
    from pydicom import Dataset

    study, planes = series.details.study, series.planes
    normal = np.cross(planes.row_dir, planes.column_dir)
    heights = planes.corners[list(indices)] @ normal
    found = []
    for reference in study.references:
        distances = np.abs(heights[:, None] - reference.corners @ normal).min(axis=0)
        near = np.flatnonzero(distances <= planes.distance_mm / 2)
        if len(near):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class, reference.sop_instance
            if len(near) < len(reference.corners):
                item.ReferencedFrameNumber = [int(number) + 1 for number in near]
            found.append(item)
    if not found:
        return
    if study.is_source:
        for item in found:
            item.PurposeOfReferenceCodeSequence = [code(*_PROCESSED)]
        instance.SourceImageSequence = found
    else:
        instance.ReferencedImageSequence = found
    parent = Dataset()
    parent.SeriesInstanceUID = study.series
    parent.ReferencedInstanceSequence = [_bare(item) for item in found]
    instance.ReferencedSeriesSequence = [parent]


def _bare(reference: Dataset) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = reference.ReferencedSOPClassUID
    item.ReferencedSOPInstanceUID = reference.ReferencedSOPInstanceUID
    return item


def real_world_mapping(values: StoredValues) -> Dataset:
    """The way from stored values to those of the image, for objects whose viewers do not rescale."""
    from pydicom import Dataset

    item = Dataset()
    first, last = int(values.pixels.min()), int(values.pixels.max())
    item.RealWorldValueFirstValueMapped, item.RealWorldValueLastValueMapped = first, last
    vr = "SS" if values.pixels.dtype == np.int16 else "US"
    for name in ("RealWorldValueFirstValueMapped", "RealWorldValueLastValueMapped"):
        item[name].VR = vr
    item.RealWorldValueIntercept, item.RealWorldValueSlope = values.intercept, values.slope
    item.LUTExplanation, item.LUTLabel = "values of the reconstruction", "image"
    item.MeasurementUnitsCodeSequence = [code("1", "UCUM", "no units")]
    return item


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """A term of a coding scheme."""
    from pydicom import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def decimals(values: object) -> object:
    """Numbers as DICOM writes them, in 16 characters."""
    from pydicom.valuerep import DSfloat

    if isinstance(values, (int, float)):
        return DSfloat(float(values), auto_format=True)
    return [DSfloat(float(value), auto_format=True) for value in np.asarray(values).ravel()]
