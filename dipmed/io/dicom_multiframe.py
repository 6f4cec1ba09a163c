"""Enhanced MR, Enhanced CT and secondary captures: all slices and frames in one object (PS3.3 A.36, A.38 and A.8.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dipmed.io.dicom_modules import (
    MODALITIES,
    Series,
    add_pixels,
    add_references,
    add_window,
    code,
    decimals,
    derivation,
    new_instance,
    real_world_mapping,
)
from dipmed.io.dicom_values import StoredValues

if TYPE_CHECKING:
    from pydicom import Dataset

_CLASSES = {"mri": "1.2.840.10008.5.1.4.1.1.4.1", "ct": "1.2.840.10008.5.1.4.1.1.2.1"}
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.3"
_PER_FRAME = 0x52009230
_ANYWHERE = ("91723000", "SCT", "Anatomical structure")
_FRAME_CONTENT = 0x00209111
_POINTERS = (0x00209056, 0x00209057, 0x00209128)  # stack, position in it, temporal position


def enhanced_object(series: Series) -> Dataset:
    """Return an Enhanced MR or Enhanced CT object."""
    from pydicom.uid import generate_uid

    modality = series.details.modality
    instance = _frames_object(series, _CLASSES[modality])
    instance.Modality = MODALITIES[modality]
    instance.ContentQualification = "RESEARCH"
    instance.PresentationLUTShape = "IDENTITY"
    instance.AcquisitionContextSequence = []
    if "Laterality" in instance:
        del instance.Laterality  # is said of frames
    kind = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    groups = instance.SharedFunctionalGroupsSequence[0]
    groups.FrameAnatomySequence = [_item(FrameLaterality="U", AnatomicRegionSequence=[code(*_ANYWHERE)])]
    groups.PixelValueTransformationSequence = [_item(**_rescaling(series.values))]
    if not series.values.rescaled:
        groups.RealWorldValueMappingSequence = [real_world_mapping(series.values)]
    groups.FrameVOILUTSequence = [_item()]
    add_window(groups.FrameVOILUTSequence[0], series.values)
    frame_type = _item(FrameType=kind)
    instance.ImageType = kind
    for target in (instance, frame_type):
        target.PixelPresentation = "MONOCHROME"
        target.VolumetricProperties = "VOLUME"
        target.VolumeBasedCalculationTechnique = "NONE"
    if modality == "mri":
        for target in (instance, frame_type):
            target.ComplexImageComponent = "MAGNITUDE"
            target.AcquisitionContrast = "UNKNOWN"
        instance.ApplicableSafetyStandardAgency = "IEC"
        if series.details.sequence.field_strength_t is not None:
            instance.MagneticFieldStrength = series.details.sequence.field_strength_t
        groups.MRImageFrameTypeSequence = [frame_type]
    else:
        groups.CTImageFrameTypeSequence = [frame_type]
        groups.IrradiationEventIdentificationSequence = [_item(IrradiationEventUID=generate_uid(prefix=None))]
    return instance


def capture_object(series: Series) -> Dataset:
    """Return a secondary capture, which says nothing of how the image was acquired."""
    instance = _frames_object(series, _CAPTURE)
    instance.Modality = MODALITIES[series.details.modality]
    instance.ConversionType = "WSD"
    instance.ImageType = ["DERIVED", "SECONDARY"]
    instance.DerivationDescription = derivation(series.details)
    instance.PatientOrientation = ""
    add_references(instance, series, range(series.n_slices))
    instance.PresentationLUTShape = "IDENTITY"
    for name, value in _rescaling(series.values).items():
        setattr(instance, name, value)
    add_window(instance, series.values)
    # not in the functional groups: the standard lists no such group for captures
    instance.RealWorldValueMappingSequence = [real_world_mapping(series.values)]
    if instance.NumberOfFrames > 1:
        instance.FrameIncrementPointer = _PER_FRAME
    return instance


def _frames_object(series: Series, sop_class: str) -> Dataset:
    instance = new_instance(series, sop_class)
    instance.InstanceNumber = 1
    instance.NumberOfFrames = series.n_slices * series.n_frames
    _add_dimensions(instance)
    instance.SharedFunctionalGroupsSequence = [_shared(series)]
    instance.PerFrameFunctionalGroupsSequence = [
        _frame(series, frame, place) for frame in range(series.n_frames) for place in range(series.n_slices)
    ]
    pixels = series.values.pixels
    pictures = np.stack(
        [
            series.planes.axes.turn(pixels[:, :, index, frame])
            for frame in range(series.n_frames)
            for index in series.planes.order
        ]
    )
    add_pixels(instance, series.values, (pictures.shape[1], pictures.shape[2]), pictures.tobytes())
    return instance


def _add_dimensions(instance: Dataset) -> None:
    from pydicom.uid import generate_uid

    uid = generate_uid(prefix=None)
    instance.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=uid)]
    instance.DimensionIndexSequence = [
        _item(DimensionOrganizationUID=uid, DimensionIndexPointer=pointer, FunctionalGroupPointer=_FRAME_CONTENT)
        for pointer in _POINTERS
    ]


def _shared(series: Series) -> Dataset:
    planes = series.planes
    groups = _item()
    groups.PixelMeasuresSequence = [
        _item(
            PixelSpacing=decimals(planes.spacing_mm),
            SliceThickness=decimals(series.thickness_mm),
            SpacingBetweenSlices=decimals(planes.distance_mm),
        )
    ]
    groups.PlaneOrientationSequence = [
        _item(ImageOrientationPatient=decimals([*planes.row_dir, *planes.column_dir])),
    ]
    return groups


def _rescaling(values: StoredValues) -> dict[str, object]:
    return {
        "RescaleIntercept": decimals(values.intercept if values.rescaled else 0.0),
        "RescaleSlope": decimals(values.slope if values.rescaled else 1.0),
        "RescaleType": "HU" if values.rescaled else "US",
    }


def _frame(series: Series, frame: int, place: int) -> Dataset:
    content = _item(
        StackID="1",
        InStackPositionNumber=place + 1,
        TemporalPositionIndex=frame + 1,
        FrameAcquisitionNumber=frame + 1,
        DimensionIndexValues=[1, place + 1, frame + 1],
    )
    corner = _item(ImagePositionPatient=decimals(series.planes.corners[place]))
    return _item(FrameContentSequence=[content], PlanePositionSequence=[corner])


def _item(**elements: object) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return item
