"""Draws the pictures of the reports and of the site of the docs in docs/img, as the browser Chromium shows them.

Run as ``python scripts/draw_screenshots.py [report] [report-compare] [site]``, by default all of them; for the site run
``bash scripts/build_docs.sh`` first. The reports are of a simulated head and take a minute or two.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dipmed.io import save_ismrmrd
from dipmed.phantom import brain_phantom_scan

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "img"
SITE = ROOT / "build" / "site"
BROWSER = "chromium"
DIPMED = Path(sys.executable).with_name("dipmed")

SAMPLING = "--undersample random:R=4,acs=16,seed=0"
FIT = "--watch windowed-variance,self-referenced --set network.channels=16,16,16"
REPORTS = {
    "report": "recon {scan} -o {folder}/image.nii.gz --iterations 60 --uncertainty jitter",
    "report-compare": "compare {scan} --iterations 300",
}
SITE_PAGES = ("index", "gallery/index", "scanners", "reference/operators")


def main() -> None:
    """Draw what the arguments name."""
    wanted = sys.argv[1:] or [*REPORTS, "site"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if set(REPORTS) & set(wanted):
            write_scan(folder / "scan.h5")
        for report in [report for report in REPORTS if report in wanted]:
            page = folder / f"{report}.html"
            command = REPORTS[report].format(scan=folder / "scan.h5", folder=folder)
            subprocess.run([DIPMED, *f"{command} --report {page} {SAMPLING} {FIT}".split()], check=True)
            save(photograph(page, folder, (1300, 1200 if report == "report" else 1320)), report)
        if "site" in wanted:
            save(side_by_side([photograph(SITE / f"{page}.html", folder, (1240, 900)) for page in SITE_PAGES]), "site")


def write_scan(path: Path) -> None:
    """Write three slices of a simulated head without a measurement of the noise."""
    scans = [brain_phantom_scan((128, 128), noise=0.01, seed=seed)[0] for seed in range(3)]
    kspace = np.concatenate([scan.kspace for scan in scans], axis=1)
    mask = np.concatenate([scan.mask for scan in scans if scan.mask is not None], axis=1)
    save_ismrmrd(scans[0].replace(kspace=kspace, mask=mask, noise_covariance=None), path)


def photograph(page: Path, folder: Path, size: tuple[int, int]) -> Image.Image:
    """Return the upper part of a page as the browser shows it."""
    target = folder / "page.png"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--screenshot={target}"]
    command += [f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=5000", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    with Image.open(target) as image:
        return image.convert("RGB")


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Return pictures of one size in two columns, at half their size."""
    width, height = (length // 2 for length in images[0].size)
    gap = 12
    sheet = Image.new("RGB", (2 * width + gap, (len(images) + 1) // 2 * (height + gap) - gap), "#c4cad0")
    for number, image in enumerate(images):
        place = (number % 2 * (width + gap), number // 2 * (height + gap))
        sheet.paste(image.resize((width, height), Image.Resampling.LANCZOS), place)
    return sheet


def save(image: Image.Image, name: str) -> None:
    """Write a picture to the docs, in 256 colours, with which it has less than 200 kB."""
    # this way keeps rare colours: links, warnings, marks in curves
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        IMAGES / f"{name}.png", optimize=True
    )


if __name__ == "__main__":
    main()
