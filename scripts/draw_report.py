"""Draws docs/img/report.png and report-compare.png: reports of a simulated head, as the browser Chromium shows them.

Run as ``python scripts/draw_report.py [BROWSER]``; with a small network and few iterations it takes a minute.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from dipmed.io import save_ismrmrd
from dipmed.phantom import brain_phantom_scan

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "img"
SAMPLING = "--undersample random:R=4,acs=16,seed=0"
FIT = "--watch windowed-variance,self-referenced --set network.channels=16,16,16"
SIZES = {"report": "1300,1200", "report-compare": "1300,1200"}


def main() -> None:
    """Reconstruct three slices, compare methods on one of them, and take pictures of the reports."""
    browser = sys.argv[1] if len(sys.argv) > 1 else "chromium"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scan_file = folder / "scan.h5"
        scans = [brain_phantom_scan((128, 128), noise=0.01, seed=seed)[0] for seed in range(3)]
        kspace = np.concatenate([scan.kspace for scan in scans], axis=1)
        mask = np.concatenate([scan.mask for scan in scans if scan.mask is not None], axis=1)
        save_ismrmrd(scans[0].replace(kspace=kspace, mask=mask, noise_covariance=None), scan_file)
        image = f"-o {folder / 'image.nii.gz'} --iterations 60 --uncertainty jitter"
        for command in (f"recon {image}", "compare --iterations 300"):
            page = folder / ("report.html" if command.startswith("recon") else "report-compare.html")
            options = f"{command} {scan_file} --report {page} {SAMPLING} {FIT}".split()
            subprocess.run([Path(sys.executable).with_name("dipmed"), *options], check=True)
            take_picture(browser, page)


def take_picture(browser: str, page: Path) -> None:
    """Draw the upper part of a page as the browser shows it."""
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={SIZES[page.stem]}"]
    command += ["--virtual-time-budget=5000", f"--screenshot={IMAGES / (page.stem + '.png')}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
