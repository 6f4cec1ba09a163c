"""What the report of a comparison says: every method beside the reference, its errors, scores and stop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dipmed.compare import Comparison, score_cells
from dipmed.evaluate import scale_factor
from dipmed.methods import find_method
from dipmed.places import Places
from dipmed.report.caveats import caveats_of
from dipmed.report.fits import part_of
from dipmed.report.page import Page, Scores, Table, table
from dipmed.report.sampling import sampling_of
from dipmed.report.viewer import Layer, Viewer, pack
from dipmed.scan import ImageVolume

_ERROR_GAIN = 5
"""How much brighter errors are shown than images, as in the picture of `dipmed.plot`."""

_SHOWN_ELSEWHERE = ("rows", "configs", "versions", "peak_memory_mib", "device", "slice")
_COLUMNS = ("method", "PSNR dB", "SSIM", "NRMSE", "fit s", "iterations", "regret dB", "stopped by")
_ABOUT = (
    "Scored against the reference after one factor that brings each image closest to it, inside the reference's "
    "support. Regret: by how much the best of every 25th image of the fit would have been better than the one that was "
    "kept."
)
_ONE_IMAGE = (
    "One image, of one scan with one sampling and one seed: methods that lie within some tenths of a decibel may "
    "change places on the next."
)
_REFERENCES = {
    (
        "mri",
        "full",
    ): "The reference is the image of all samples of this scan, by a plain inverse transform: it has noise of "
    "its own, and an image may be better than it where they differ.",
    (
        "ct",
        "full",
    ): "The reference is an image of all views, of little total variation: it is no truth, and likes images of "
    "little total variation.",
}


def comparison_page(result: Comparison, record: dict[str, Any], *, identity: tuple[tuple[str, str], ...] = ()) -> Page:
    """Say and show what there is to know of a comparison.

    Parameters
    ----------
    record
        What `dipmed.record.comparison_record` says.
    identity
        Names and values that tell whose scan it is, of a page that may say so.
    """
    prepared, memory = result.prepared, record["peak_memory_mib"]
    viewer = pack(_layers(result), Places(((0, 1),) if prepared.ndim == 2 else None, 1, result.slice))
    voxel_mm = np.linalg.norm(prepared.affine[:3, :3], axis=0)
    given = "The reference is an image that was given."
    remarks = (
        ("Assumed", prepared.assumptions + _assumptions(result)),
        ("How to read the scores", (_REFERENCES.get((prepared.modality, record["reference"]), given), _ONE_IMAGE)),
        ("Noted", prepared.notes),
    )
    return Page(
        title=f"{len(result.rows)} reconstructions of one {'MRI' if prepared.modality == 'mri' else 'CT'} scan",
        warnings=_warnings(result, viewer),
        figures=(
            ("data", result.data_left or "as measured"),
            ("image", " × ".join(map(str, result.reference.shape))),
            ("voxel", " × ".join(f"{size:.3g}" for size in voxel_mm) + " mm"),
            ("time", f"{sum(row['seconds_fit'] for row in result.rows):.1f} s on {result.device}"),
            ("most memory", "not known" if memory is None else f"{memory / 1024:.2f} GiB"),
        ),
        viewer=viewer,
        parts=tuple(
            part_of(row["method"], result.parts[row["method"]], None, row["snapshots"])
            for row in result.rows
            if row["iterations"] and find_method(row["method"]).is_fit
        ),
        sampling=sampling_of(prepared),
        remarks=tuple((title, texts) for title, texts in remarks if texts),
        tables=_tables(record),
        all_well="noise was measured.",
        scores=Scores(_COLUMNS, tuple(map(score_cells, result.rows)), _ABOUT),
        parts_follow=False,
        identity=identity,
    )


def _assumptions(result: Comparison) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for part in result.parts.values() for text in part.assumptions))


def _layers(result: Comparison) -> list[Layer]:
    peak = float(result.reference[result.support].max())
    layers = [
        Layer(
            "reference",
            "What the images are scored against; no fit saw it.",
            "image",
            _volume(result, result.reference),
        )
    ]
    for row in result.rows:
        name = row["method"]
        factor = scale_factor(result.images[name], result.reference, result.support)
        image = factor * result.images[name]
        error = np.where(result.support, np.abs(image - result.reference), 0)
        caption = f"{row['psnr']:.2f} dB, SSIM {row['ssim']:.4f}"
        below = f"|image − reference|, at first {_ERROR_GAIN} times as bright. Errors share one window."
        layers += [
            Layer(name, caption, "image", _volume(result, image)),
            Layer(f"error of {name}", below, "map", _volume(result, error), "error", peak / _ERROR_GAIN, below=True),
        ]
        std = result.parts[name].std
        if std is not None:
            spread = abs(factor) * std[0].cpu().numpy()
            title, about = f"standard deviation of {name}", "How much the image varies, in the window of the errors."
            layers.append(Layer(title, about, "map", _volume(result, spread), "error", peak / _ERROR_GAIN, below=True))
    return layers


def _volume(result: Comparison, image: NDArray[Any]) -> ImageVolume:
    return ImageVolume(image[..., None] if image.ndim == 2 else image, result.prepared.affine)


def _tables(record: dict[str, Any]) -> tuple[Table, ...]:
    chosen = {name: value for name, value in record.items() if name not in _SHOWN_ELSEWHERE}
    return (
        ("Settings", table(chosen)),
        *((f"Settings of {name}", table(config)) for name, config in record["configs"].items()),
        ("Seconds", tuple((row["method"], f"{row['seconds']:.4g}") for row in record["rows"])),
        ("Versions", table(record["versions"])),
    )


def _warnings(result: Comparison, viewer: Viewer) -> tuple[str, ...]:
    found = caveats_of(result.prepared)
    for row in result.rows:
        if row["stop"]["rule"] == "interrupted":
            found.append(f"The fit of {row['method']} was interrupted: its image is the best until then.")
    if viewer.shown < viewer.of:
        found.append(f"This page shows {viewer.shown} of {viewer.of} slices, evenly chosen.")
    return tuple(found)
