"""Draws docs/img/noise.png: a chest by a ninth of the photons, with weights of one dose and with those that follow it.

Run as ``DIPMED_DATA=DIR python scripts/draw_noise.py``; it takes a few minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from draw_restore import draw_row
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
    scored = {}
    for name, image in images.items():
        scores = score(image, target, support)
        scored[f"{name}\n{scores.psnr:.2f} dB, {scores.ssim:.3f}"] = match_scale(image.cpu().numpy(), target)
    window = {"vmin": 0.0, "vmax": 0.6 * float(target.max())}
    draw_row({"what was scanned": target, **scored}, window, OUT)


if __name__ == "__main__":
    main()
