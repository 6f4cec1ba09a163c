"""The few figures of an ISMRMRD header that a reconstruction needs; nothing about the person is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar
from xml.etree import ElementTree

from dipmed.scan import FormatError, SequenceFigures

SIMULATING_VENDOR = "dipmed, simulated"
"""What stands for the maker of the scanner where there was none."""

_LARGEST_MATRIX = 2**16  # counters of readouts and samples have 16 bits
_NUMBER = TypeVar("_NUMBER", int, float)


@dataclass(frozen=True)
class EncodedSpace:
    """Matrix size and field of view (mm) along x, y and z; None where the header does not say."""

    matrix: tuple[int, int, int] | None = None
    fov_mm: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class MrdHeader:
    """What an ISMRMRD header says about its first encoding.

    Parameters
    ----------
    trajectory
        Kind of trajectory, e.g. ``"cartesian"``.
    encoded, recon
        The encoded space and the one that is meant to be shown.
    centre_line, centre_partition
        Counters of the centre of k-space.
    calibration_mode
        ``"embedded"``, ``"separate"`` and so on.
    vendor
        Maker of the scanner.
    noise_bandwidth
        Mean of the receiver's noise power over its band, relative to the middle of the band.
    sequence
        Figures of the pulse sequence, in SI units.
    spaces
        The encoded space of each encoding, the first included.
    """

    trajectory: str = "cartesian"
    encoded: EncodedSpace = field(default_factory=EncodedSpace)
    recon: EncodedSpace = field(default_factory=EncodedSpace)
    centre_line: int | None = None
    centre_partition: int | None = None
    calibration_mode: str | None = None
    vendor: str = ""
    noise_bandwidth: float = 1.0
    sequence: SequenceFigures = field(default_factory=SequenceFigures)
    spaces: tuple[EncodedSpace, ...] = ()


def parse_mrd_header(text: str) -> MrdHeader:
    """Read the XML header of an ISMRMRD file.

    Elements that are missing stay unsaid, since many files do not follow the schema to the letter.

    Raises
    ------
    FormatError
        When it is not XML, declares entities, is no ISMRMRD header, or has an impossible figure.
    """
    root = _parse(text)
    system = root.find("{*}acquisitionSystemInformation")
    bandwidth = _number(system, "relativeReceiverNoiseBandwidth", float)
    header = MrdHeader(
        vendor=_text(system, "systemVendor"),
        noise_bandwidth=bandwidth if bandwidth and 0 < bandwidth <= 1 else 1.0,
        sequence=_sequence(root.find("{*}sequenceParameters"), _number(system, "systemFieldStrength_T", float)),
    )
    encodings = root.findall("{*}encoding")
    if not encodings:
        return header
    first = encodings[0]
    spaces = tuple(_space(encoding.find("{*}encodedSpace")) for encoding in encodings)
    return replace(
        header,
        trajectory=_text(first, "trajectory").lower() or "cartesian",
        encoded=spaces[0],
        recon=_space(first.find("{*}reconSpace")),
        centre_line=_centre(first, "kspace_encoding_step_1"),
        centre_partition=_centre(first, "kspace_encoding_step_2"),
        calibration_mode=_text(first.find("{*}parallelImaging"), "calibrationMode").lower() or None,
        spaces=spaces,
    )


def _parse(text: str) -> ElementTree.Element:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise FormatError("the ISMRMRD header declares XML entities, which are refused because they can be harmful")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 -- see above: without entities there is nothing to expand
    except (ElementTree.ParseError, ValueError) as error:
        raise FormatError(f"the ISMRMRD header is no XML: {error}") from error
    if root.tag.rpartition("}")[2] != "ismrmrdHeader":
        raise FormatError(f"the XML header is no ISMRMRD header; its first element is <{root.tag[:40]}>")
    return root


def _space(element: ElementTree.Element | None) -> EncodedSpace:
    if element is None:
        return EncodedSpace()
    matrix_element, fov_element = element.find("{*}matrixSize"), element.find("{*}fieldOfView_mm")
    matrix = tuple(_number(matrix_element, axis, int) for axis in "xyz")
    fov = tuple(_number(fov_element, axis, float) for axis in "xyz")
    for size in matrix:
        if size is not None and not 1 <= size <= _LARGEST_MATRIX:
            raise FormatError(f"the ISMRMRD header asks for a matrix of {size} points along one axis")
    x, y, z = matrix
    width, height, depth = fov
    return EncodedSpace(
        None if x is None or y is None or z is None else (x, y, z),
        # some converters write 0 for what they do not know
        (width, height, depth) if width and height and depth and min(width, height, depth) > 0 else None,
    )


def _centre(encoding: ElementTree.Element, name: str) -> int | None:
    limits = encoding.find(f"{{*}}encodingLimits/{{*}}{name}")
    centre = _number(limits, "center", int)
    return centre if centre is not None and 0 <= centre < _LARGEST_MATRIX else None


def _sequence(element: ElementTree.Element | None, field_strength: float | None) -> SequenceFigures:
    def listed(name: str, factor: float) -> tuple[float, ...]:
        """Positive figures, scaled; zero stands for what a converter did not know."""
        found = [] if element is None else element.findall(f"{{*}}{name}")
        numbers = [_convert(item.text, float) for item in found]
        return tuple(number * factor for number in numbers if number is not None and number > 0)

    return SequenceFigures(
        field_strength_t=field_strength if field_strength and field_strength > 0 else None,
        repetition_times_s=listed("TR", 1e-3),
        echo_times_s=listed("TE", 1e-3),
        inversion_times_s=listed("TI", 1e-3),
        flip_angles_rad=listed("flipAngle_deg", math.pi / 180),
        echo_spacings_s=listed("echo_spacing", 1e-3),
    )


def _text(parent: ElementTree.Element | None, name: str) -> str:
    element = None if parent is None else parent.find(f"{{*}}{name}")
    return "" if element is None or element.text is None else element.text.strip()


def _number(parent: ElementTree.Element | None, name: str, kind: Callable[[str], _NUMBER]) -> _NUMBER | None:
    return _convert(_text(parent, name), kind)


def _convert(text: str | None, kind: Callable[[str], _NUMBER]) -> _NUMBER | None:
    """Return a finite number, or None for nothing or something else."""
    try:
        number = kind(text or "")
        return number if math.isfinite(number) else None
    except (ValueError, OverflowError):
        return None
