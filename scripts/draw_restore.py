"""Draws docs/img/restore.png: part of a chest with noise, and what takes it away.

Run as ``DIPMED_DATA=DIR python scripts/draw_restore.py``; it takes a few minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from benchmark_restore import CASES, load_truth, non_local_means, plane_of, psnr, spoil
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dipmed.io.source_volume import SourceVolume
from dipmed.restore import RestoreSettings, restore
from dipmed.settings import ReconSettings

OUT = Path(__file__).resolve().parent.parent / "docs" / "img" / "restore.png"
WINDOW = {"vmin": -250.0, "vmax": 350.0}


def main() -> None:
    """Restore, and draw the images in one window of Hounsfield units."""
    case = CASES["denoise chest 60 HU"]
    truth = load_truth(case)
    everywhere = np.ones(truth.shape, bool)
    volume = spoil(truth, case, None)
    smooth = max(non_local_means(volume, case, None).values(), key=lambda image: psnr(image, truth, everywhere))
    found = restore(SourceVolume(volume), RestoreSettings(case.task, fit=ReconSettings(device="cpu")))
    shown = {
        "with noise": plane_of(volume),
        "non-local means, best strength": smooth,
        "dipmed restore": plane_of(found.volume),
    }
    scored = {f"{name}\n{psnr(image, truth, everywhere):.2f} dB": image for name, image in shown.items()}
    draw_row({"slice of the volume": truth, **scored}, WINDOW, OUT)


def draw_row(images: dict[str, NDArray[Any]], window: dict[str, float], path: Path) -> None:
    """Draw images ``(x, y)`` beside each other, by their titles, all in one window."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, image) in zip(figure.subplots(1, len(images)), images.items(), strict=True):
        axis.imshow(image.T, cmap="gray", **window)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
