"""Draws docs/img/noise.png: a chest by a ninth of the photons, with weights of one dose and with those that follow it.

Run as ``DIPMED_DATA=DIR python scripts/draw_noise.py``; it takes a few minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from study_noise import noisy_case, reconstruct

from dipmed.ct_baselines import CGTotalVariation
from dipmed.evaluate import match_scale, score

OUT = Path(__file__).resolve().parent.parent / "docs" / "img" / "noise.png"
CASE, TIMES = "lung1-60", 3
WEIGHT = 1e-3
"""The best of total variation there, by the study."""


def main() -> None:
    """Reconstruct, and draw all images in one window of attenuation."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = noisy_case(CASE, TIMES, Path(folder))
        target, support = prepared.target()
        job = prepared.job()
        images = {"total variation, best weight": CGTotalVariation(WEIGHT)(job.y, job.A).image[0]}
        for name, follows in (("dip, weights of the preset", False), ("dip, weights that follow the noise", True)):
            images[name] = reconstruct(prepared, follows, 0).image[0]
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + len(images))
    window = {"vmin": 0.0, "vmax": 0.6 * float(target.max())}
    axes[0].imshow(target.T, cmap="gray", **window)
    axes[0].set_title("what was scanned", fontsize=9)
    for axis, (name, image) in zip(axes[1:], images.items(), strict=True):
        scores = score(image, target, support)
        axis.imshow(match_scale(image.cpu().numpy(), target).T, cmap="gray", **window)
        axis.set_title(f"{name}\n{scores.psnr:.2f} dB, {scores.ssim:.3f}", fontsize=9)
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
