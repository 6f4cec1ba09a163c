"""K-space in Siemens Twix files (``.dat``) of software VB, VD, VE and XA."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dipmed.io.acquisitions import READOUT, Readouts, noise_covariance
from dipmed.io.cartesian_readouts import Protocol, RawScan, build_cartesian_scan, usual_coils
from dipmed.io.twix_raw import Measurement, read_measurements
from dipmed.patient import directions_from_quaternion
from dipmed.scan import FormatError, KSpaceScan, SequenceFigures

_COUNTERS = {
    "line": "Lin",
    "partition": "Par",
    "slice": "Sli",
    "average": "Ave",
    "contrast": "Eco",
    "phase": "Phs",
    "repetition": "Rep",
    "set": "Set",
}
_LPS = ("Sag", "Cor", "Tra")
_SKIPPED = (
    "RTFEEDBACK",
    "HPFEEDBACK",
    "REFPHASESTABSCAN",
    "PHASESTABSCAN",
    "PHASCOR",
    "SLICE_ACCEL_REFSCAN",
    "SLICE_ACCEL_PHASCOR",
    "PACE",
    "RETRO_DUMMYSCAN",
    "B1_CONTROLLOOP",
    "MDH_VOP",
    "noname60",
)
_TRAJECTORIES = {2: "radial", 4: "spiral", 8: "BLADE"}
# how Siemens numbers the ways of measuring reference lines (sPat.ucRefScanMode)
_CALIBRATION = {2: "embedded", 4: "separate", 8: "separate"}
_NOISE_BANDWIDTH = 0.793  # mean over the band of the receiver filter, as siemens_to_ismrmrd states it


def read(path: Path, measurement: int | None = None) -> KSpaceScan:
    """Read a measurement from a Twix file.

    Parameters
    ----------
    path
        The file.
    measurement
        Which one of several in a file, counted from 0; the last with image data when None. The others may serve
        for the noise.

    Raises
    ------
    FormatError
        When the file is damaged, has no image data, or is not Cartesian.
    GeometryError
        When positions or directions are impossible.
    """
    measurements = [_Sorted.of(item) for item in read_measurements(path)]
    index = _choose(measurements, measurement, path)
    chosen = measurements[index]
    values = chosen.measurement.protocol
    _refuse_trajectories(values, path)
    covariance, noise_notes = _noise(measurements, index)
    heads = chosen.measurement.heads
    protocol, assumptions = _protocol(chosen, values)
    return build_cartesian_scan(
        RawScan(
            path=str(path),
            source="twix",
            stored_bytes=path.stat().st_size,
            imaging=chosen.readouts[chosen.imaging],
            calibration=chosen.readouts[chosen.calibration],
            positions=np.stack([heads["SliceData"]["SlicePos"][name] for name in _LPS], axis=1).astype(np.float64),
            directions=_directions(heads["SliceData"]["Quaternion"], chosen.imaging),
            fetch=chosen.measurement.samples,
            noise_covariance=covariance,
            protocol=protocol,
            assumptions=(*assumptions, *noise_notes),
            notes=(*_other_measurements(measurements, index), *_notes(chosen)),
        )
    )


@dataclass(frozen=True)
class _Sorted:
    """A measurement and what its readouts are for."""

    measurement: Measurement
    readouts: Readouts
    noise: NDArray[np.bool_]
    skipped: NDArray[np.bool_]
    calibration: NDArray[np.bool_]
    imaging: NDArray[np.bool_]

    @classmethod
    def of(cls, measurement: Measurement) -> _Sorted:
        heads = measurement.heads
        noise, skipped = measurement.flagged("NOISEADJSCAN"), measurement.flagged(*_SKIPPED)
        calibration = measurement.flagged("PATREFSCAN") & ~measurement.flagged("PATREFANDIMASCAN") & ~noise & ~skipped
        imaging = ~noise & ~skipped & ~calibration & (heads["SamplesInScan"] > 0) & (heads["UsedChannels"] > 0)
        return cls(measurement, _readouts(measurement), noise, skipped, calibration, imaging)


def _readouts(measurement: Measurement) -> Readouts:
    heads = measurement.heads
    readouts = np.zeros(len(heads), READOUT)
    for name, theirs in _COUNTERS.items():
        readouts[name] = heads["Counter"][theirs]
    readouts["samples"] = heads["SamplesInScan"]
    readouts["coils"] = heads["UsedChannels"]
    readouts["centre"] = heads["CenterCol"]
    # more than everything cannot be dropped
    readouts["drop_first"] = np.minimum(heads["CutOff"]["Pre"], readouts["samples"])
    readouts["drop_last"] = np.minimum(heads["CutOff"]["Post"], readouts["samples"] - readouts["drop_first"])
    readouts["reversed"] = measurement.flagged("REFLECT")
    readouts["source"] = np.arange(len(heads))
    return readouts


def _choose(measurements: list[_Sorted], wanted: int | None, path: Path) -> int:
    if wanted is None:
        with_image = [i for i, item in enumerate(measurements) if item.imaging.any()]
        if not with_image:
            raise FormatError(f"{path} has no readouts that belong to an image; if it should, copy it again")
        return with_image[-1]
    if not 0 <= wanted < len(measurements):
        raise FormatError(f"{path} has the measurements 0 to {len(measurements) - 1}, there is no {wanted}")
    if not measurements[wanted].imaging.any():
        raise FormatError(f"measurement {wanted} of {path} has no readouts that belong to an image")
    return wanted


def _refuse_trajectories(values: dict[str, str], path: Path) -> None:
    kind = _TRAJECTORIES.get(int(_number(values, "sKSpace.ucTrajectory") or 0))
    if kind:
        raise FormatError(
            f"{path} is a {kind} scan, and Twix files do not hold the trajectory; convert it to ISMRMRD with one"
        )


def _number(values: dict[str, str], name: str) -> float | None:
    """Return a value of the protocol as a number; flags are written as 0x4."""
    text = values.get(name, "")
    try:
        number = float(int(text, 16)) if text.startswith("0x") else float(text)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _listed(values: dict[str, str], name: str, factor: float) -> tuple[float, ...]:
    """Return the positive entries of an array of the protocol, up to the first that is missing."""
    numbers: list[float] = []
    while (number := _number(values, f"{name}[{len(numbers)}]")) is not None and number > 0:
        numbers.append(number * factor)
    return tuple(numbers)


def _sequence(measurement: Measurement, values: dict[str, str]) -> SequenceFigures:
    n_echoes = max(1, int(_number(values, "lContrasts") or 1))
    inverted = _number(values, "sPrepPulses.ucInversion") in (1, 2)  # slice-selective, not selective; 4 is off
    return SequenceFigures(
        field_strength_t=_number(values, "sProtConsistencyInfo.flNominalB0")
        or measurement.parameter("flMagneticFieldStrength"),
        repetition_times_s=_listed(values, "alTR", 1e-6),
        echo_times_s=_listed(values, "alTE", 1e-6)[:n_echoes],
        inversion_times_s=_listed(values, "alTI", 1e-6) if inverted else (),
        flip_angles_rad=_listed(values, "adFlipAngleDegree", math.pi / 180),
    )


def _protocol(chosen: _Sorted, values: dict[str, str]) -> tuple[Protocol, tuple[str, ...]]:
    measurement, imaging = chosen.measurement, chosen.imaging
    n_samples, oversampling, assumptions = _readout_length(chosen, values)
    three_d = int(np.ptp(chosen.readouts["partition"][imaging])) > 0
    fov = _field_of_view(values, three_d=three_d)
    heads = measurement.heads[imaging]
    protocol = Protocol(
        n_samples=n_samples,
        n_lines=_size(values, "sKSpace.lPhaseEncodingLines"),
        n_partitions=_size(values, "sKSpace.lPartitions"),
        centre_line=_most_common(heads["CenterLin"]),
        centre_partition=_most_common(heads["CenterPar"]),
        n_columns=round(n_samples / oversampling),
        fov_mm=None if fov is None else (fov[0] * oversampling, fov[1], fov[2]),
        calibration_mode=_CALIBRATION.get(int(_number(values, "sPat.ucRefScanMode") or 0)),
        siemens=True,
        sequence=_sequence(measurement, values),
    )
    return protocol, (*assumptions, *_doubts(measurement, values))


def _readout_length(chosen: _Sorted, values: dict[str, str]) -> tuple[int, float, tuple[str, ...]]:
    """Return the samples of a full readout, its oversampling, and what was assumed.

    The header's figures are taken if the readouts can be explained by them; sequences that are programmed
    outside of the scanner leave placeholders there.
    """
    readouts = chosen.readouts[chosen.imaging]
    longest = int(readouts["samples"].max())
    base = _size(values, "sKSpace.lBaseResolution")
    oversampling = chosen.measurement.parameter("flReadoutOSFactor")
    if base is None:
        return longest, 1.0, ("The header does not say the base resolution; readouts were taken as not oversampled.",)
    if oversampling is None or not 1 <= oversampling <= 16:
        oversampling = 2.0 if longest == 2 * base else 1.0
    full = round(base * oversampling)
    is_partial_echo = longest < full and bool((readouts["centre"] != longest // 2).any())
    if longest == full or is_partial_echo:
        return full, oversampling, ()
    return (
        longest,
        1.0,
        (
            f"The header speaks of {full} samples in a readout ({base} with {oversampling:g}-fold oversampling) but "
            f"{longest} were measured; they were taken as not oversampled, over the header's field of view.",
        ),
    )


def _size(values: dict[str, str], name: str) -> int | None:
    number = _number(values, name)
    return int(number) if number is not None and 1 <= number < 2**16 else None


def _field_of_view(values: dict[str, str], *, three_d: bool) -> tuple[float, float, float] | None:
    sizes = [_number(values, f"sSliceArray.asSlice[0].{name}") for name in ("dReadoutFOV", "dPhaseFOV", "dThickness")]
    x, y, z = (size if size is not None and 0 < size < 1e5 else None for size in sizes)
    if x is None or y is None or z is None:
        return None
    phase = _number(values, "sKSpace.dPhaseOversamplingForDialog") or 0.0
    slab = (_number(values, "sKSpace.dSliceOversamplingForDialog") or 0.0) if three_d else 0.0
    return x, y * (1 + max(phase, 0.0)), z * (1 + max(slab, 0.0))


def _most_common(numbers: NDArray[np.uint16]) -> int:
    return int(np.bincount(numbers).argmax())


def _directions(quaternions: NDArray[np.float32], imaging: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return read, phase and slice directions of each imaging readout; zero for others, and where none is given."""
    directions = np.zeros((len(quaternions), 3, 3))
    unique, index = np.unique(quaternions[imaging], axis=0, return_inverse=True)
    known = [np.stack(directions_from_quaternion(q)) if q.any() else np.zeros((3, 3)) for q in unique]
    directions[imaging] = np.stack(known)[index.reshape(-1)]
    return directions


def _doubts(measurement: Measurement, values: dict[str, str]) -> tuple[str, ...]:
    doubts = []
    if "pulseq" in values.get("tSequenceFileName", "").lower():
        doubts.append(
            "A Pulseq sequence need not encode along the directions of the header; these were assumed, and the "
            "orientation of the image may be wrong."
        )
    if (measurement.parameter("alRegridMode") or 1) > 1:
        doubts.append("Readouts were sampled on gradient ramps; they were taken as evenly spaced.")
    return tuple(doubts)


def _noise(measurements: list[_Sorted], index: int) -> tuple[NDArray[np.complex128] | None, tuple[str, ...]]:
    """Return the noise covariance of imaging samples, from the chosen measurement or from another in the file.

    Noise power grows with the bandwidth of a sample, that is with one over its dwell time; the receiver filters
    the edges of the band of the noise measurement (doi:10.1002/mrm.20713).
    """
    chosen = measurements[index]
    channels = chosen.measurement.channels(int(np.flatnonzero(chosen.imaging)[0]))
    n_coils = usual_coils(chosen.readouts[chosen.imaging])
    for item in [chosen, *measurements[:index][::-1], *measurements[index + 1 :]]:
        usable = item.noise & (item.readouts["coils"] == n_coils) & (item.readouts["samples"] > 0)
        numbers = np.flatnonzero(usable)
        if not len(numbers) or item.measurement.channels(int(numbers[0])) != channels:
            continue
        covariance = noise_covariance(item.measurement.samples(numbers))
        dwell_ns = _number(chosen.measurement.protocol, "sRXSPEC.alDwellTime[0]")
        if not dwell_ns or dwell_ns <= 0:
            return covariance, ("The dwell time of the image is missing; that of the noise measurement was assumed.",)
        noise_ns = _noise_dwell_ns(item, int(item.readouts["samples"][numbers[0]]))
        assumed = f"The dwell time of the noise measurement is not in the file; {noise_ns / 1000:g} µs were assumed."
        return covariance * (noise_ns / dwell_ns / _NOISE_BANDWIDTH), (assumed,)
    return None, ()


def _noise_dwell_ns(item: _Sorted, n_samples: int) -> float:
    """Return the dwell time that Siemens' noise measurements have, as siemens_to_ismrmrd knows them."""
    name = item.measurement.protocol.get("tProtocolName", "")
    if name in ("AdjCoilSens", "AdjQuietCoilSens"):
        return 5000.0 if name == "AdjCoilSens" else 4000.0
    if item.measurement.is_vb:
        return 1e9 / n_samples / 130
    return float(76800 * 10 // n_samples) * 10 if n_samples else 0.0


def _other_measurements(measurements: list[_Sorted], index: int) -> tuple[str, ...]:
    others = []
    for number, item in enumerate(measurements):
        if number != index:
            name = item.measurement.protocol.get("tProtocolName", "unnamed")
            others.append(f"{number} ({name}, {int(item.imaging.sum())} image readouts)")
    if not others:
        return ()
    return (f"Measurement {index} of {len(measurements)} was read; the others are {', '.join(others)}.",)


def _notes(chosen: _Sorted) -> tuple[str, ...]:
    notes = []
    if chosen.skipped.any():
        notes.append(f"{int(chosen.skipped.sum())} readouts that are no image data were left out.")
    if not chosen.measurement.is_complete:
        notes.append("The measurement has no end mark; the scan may have been stopped before its end.")
    return tuple(notes)
