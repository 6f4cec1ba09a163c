"""What the report of a reconstruction says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from dipmed.io.dicom_study import Study
from dipmed.methods import find_method
from dipmed.recon import ScanResult
from dipmed.report.beside import Beside, Follower
from dipmed.report.caveats import caveats_of
from dipmed.report.fits import part_of
from dipmed.report.page import Page, Table, table
from dipmed.report.sampling import sampling_of
from dipmed.report.viewer import Layer, Viewer, pack
from dipmed.scan import Scan
from dipmed.settings import ReconSettings

_SHOWN_ELSEWHERE = (
    *("images", "stop", "iterations", "seconds", "peak_memory_mib", "device", "image", "unit"),
    *("assumptions", "warnings", "notes", "versions", "config"),
)


def recon_page(
    result: ScanResult,
    record: dict[str, Any],
    follower: Follower,
    *,
    identity: tuple[tuple[str, str], ...] = (),
) -> Page:
    """Say and show what there is to know of a reconstruction.

    Parameters
    ----------
    record
        What `dipmed.record.recon_record` says.
    follower
        A listener of that run.
    identity
        Names and values that tell whose scan it is, of a page that may say so; see `identity_of`.
    """
    settings, prepared, places = follower.settings, follower.prepared, follower.places
    other = follower.beside(result.reconstructions)
    viewer = pack(_layers(result, other, settings), places)
    parts = zip(result.reconstructions, other.errors, strict=True)
    remarks = (("Assumed", result.assumptions), ("Noted", (result.choice.reason, *result.notes)))
    memory = record["peak_memory_mib"]
    voxel_mm = np.linalg.norm(result.volume.affine[:3, :3], axis=0)
    return Page(
        title=f"{'MRI' if prepared.modality == 'mri' else 'CT'} reconstructed by {settings.method}",
        warnings=_warnings(prepared, settings, result, viewer),
        figures=(
            ("image", " × ".join(map(str, result.volume.data.shape))),
            ("voxel", " × ".join(f"{size:.3g}" for size in voxel_mm) + " mm"),
            ("unit", result.unit or "the scanner's"),
            ("time", f"{result.seconds['total']:.1f} s on {result.device}"),
            ("most memory", "not known" if memory is None else f"{memory / 1024:.2f} GiB"),
        ),
        viewer=viewer,
        parts=tuple(part_of(places.name_part(number), *part) for number, part in enumerate(parts)),
        sampling=sampling_of(prepared),
        remarks=tuple((title, texts) for title, texts in remarks if texts),
        tables=_tables(record, settings),
        all_well="noise was measured, no image was filled, retried or interrupted.",
        identity=identity,
    )


def identity_of(file: Path, study: Study | None) -> tuple[tuple[str, str], ...]:
    """Name the file of a scan, and the patient of the study that its images belong to."""
    of_patient = () if study is None else (("patient", "PatientName"), ("identifier", "PatientID"))
    told = [(name, str(study.elements.get(key, ""))) for name, key in of_patient] if study else []
    return (("file", file.name), *((name, value) for name, value in told if value))


def _layers(result: ScanResult, other: Beside, settings: ReconSettings) -> list[Layer]:
    is_fit = find_method(settings.method).is_fit
    note = "What the data do not determine is the network's guess." if is_fit else ""
    layers = [
        Layer(settings.method, f"The result. {note}", "image", result.volume),
        Layer(other.name, "The same data by a direct method without a prior, to compare.", "image", other.image),
        Layer(
            "disagreement with the data",
            "|Aᴴ(Ax − y)|: what the image does not explain of the data, brought back to where it would be. Noise looks "
            "alike everywhere; structure points to motion, wrong maps or a stop too early.",
            "map",
            other.disagreement,
        ),
    ]
    if result.std is not None:
        kind = "" if settings.uncertainty is None else f" ({settings.uncertainty.kind})"
        caption = f"How much the image varies{kind}: where the method is not sure. A small value is no proof."
        layers.append(Layer("standard deviation", caption, "map", result.std))
    return layers


def _tables(record: dict[str, Any], settings: ReconSettings) -> tuple[Table, ...]:
    chosen = {name: value for name, value in record.items() if name not in _SHOWN_ELSEWHERE}
    of_fit = ((("Settings of the fit"), table(record["config"])),) if find_method(settings.method).is_fit else ()
    return (
        ("Settings", table(chosen)),
        *of_fit,
        ("Seconds", table(record["seconds"])),
        ("Versions", table(record["versions"])),
    )


def _warnings(scan: Scan, settings: ReconSettings, result: ScanResult, viewer: Viewer) -> tuple[str, ...]:
    """What changes how far the image can be trusted."""
    found = [text[:1].upper() + text[1:] + "." for text in result.warnings]
    if result.was_interrupted:
        n = sum(part.status == "interrupted" for part in result.reconstructions)
        found.append(
            f"The run was interrupted: {n} of {len(result.reconstructions)} images are not what was asked for."
        )
    found += caveats_of(scan)
    if settings.uncertainty is not None and result.std is None:
        found.append("There is no map of the standard deviation: too few samples were drawn of some image.")
    if viewer.shown < viewer.of:
        found.append(f"This page shows {viewer.shown} of {viewer.of} slices, evenly chosen; the image file has all.")
    return tuple(found)
