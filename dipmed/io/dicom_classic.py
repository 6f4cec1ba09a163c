"""MR Image and CT Image objects, one slice each (PS3.3 A.4 and A.3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dipmed.io.dicom_modules import (
    Series,
    add_pixels,
    add_references,
    add_window,
    decimals,
    derivation,
    new_instance,
    real_world_mapping,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_CLASSES = {"mri": "1.2.840.10008.5.1.4.1.1.4", "ct": "1.2.840.10008.5.1.4.1.1.2"}


def slice_objects(series: Series) -> Iterator[Dataset]:
    """Yield one object for each slice of each frame; a frame's are one acquisition."""
    for frame in range(series.n_frames):
        for place in range(series.n_slices):
            yield _slice_object(series, frame, place)


def _slice_object(series: Series, frame: int, place: int) -> Dataset:
    planes, modality = series.planes, series.details.modality
    instance = new_instance(series, _CLASSES[modality])
    instance.InstanceNumber = frame * series.n_slices + place + 1
    instance.AcquisitionNumber = frame + 1
    instance.DerivationDescription = derivation(series.details)
    instance.ImagePositionPatient = decimals(planes.corners[place])
    instance.ImageOrientationPatient = decimals([*planes.row_dir, *planes.column_dir])
    instance.PixelSpacing = decimals(planes.spacing_mm)
    instance.SliceThickness = decimals(series.thickness_mm)
    instance.SpacingBetweenSlices = decimals(planes.distance_mm)
    add_references(instance, series, range(place, place + 1))
    add_window(instance, series.values)
    if modality == "mri":
        _add_mr(instance, series, frame)
    else:
        _add_ct(instance, series)
    picture = planes.axes.turn(series.values.pixels[:, :, planes.order[place], frame])
    add_pixels(instance, series.values, (picture.shape[0], picture.shape[1]), picture.tobytes())
    return instance


def _add_mr(instance: Dataset, series: Series, frame: int) -> None:
    instance.Modality = "MR"
    instance.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    instance.ScanningSequence, instance.SequenceVariant, instance.ScanOptions = "RM", "NONE", ""  # research mode
    ndim = series.details.ndim
    instance.MRAcquisitionType = f"{ndim}D" if ndim else ""
    instance.RealWorldValueMappingSequence = [real_world_mapping(series.values)]
    figures = series.details.sequence
    instance.EchoTrainLength = None
    for name, values, factor in (
        ("RepetitionTime", figures.repetition_times_s, 1e3),
        ("EchoTime", figures.echo_times_s, 1e3),
        ("FlipAngle", figures.flip_angles_rad, 57.29577951308232),
    ):
        known = _of_frame(values, frame, series.n_frames)
        setattr(instance, name, None if known is None else decimals(known * factor))
    if figures.field_strength_t is not None:
        instance.MagneticFieldStrength = decimals(figures.field_strength_t)


def _of_frame(values: tuple[float, ...], frame: int, n_frames: int) -> float | None:
    """The figure of one frame: the only one, or its own where there are as many as frames."""
    if len(values) == 1:
        return values[0]
    return values[frame] if len(values) == n_frames else None


def _add_ct(instance: Dataset, series: Series) -> None:
    instance.Modality = "CT"
    instance.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    instance.KVP = None
    instance.RescaleIntercept, instance.RescaleSlope = decimals(series.values.intercept), decimals(series.values.slope)
    instance.RescaleType = "HU"
