"""Draws docs/img/report.png: the report of a simulated head, as the browser Chromium shows it.

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

OUT = Path(__file__).resolve().parent.parent / "docs" / "img" / "report.png"
FIT = "--watch windowed-variance,self-referenced --iterations 60 --set network.channels=16,16,16 --uncertainty jitter"
SIZE = "1300,1200"


def main() -> None:
    """Reconstruct three slices with a report, and take a picture of it."""
    browser = sys.argv[1] if len(sys.argv) > 1 else "chromium"
    with tempfile.TemporaryDirectory() as folder:
        scan_file, page = Path(folder) / "scan.h5", Path(folder) / "report.html"
        scans = [brain_phantom_scan((128, 128), noise=0.01, seed=seed)[0] for seed in range(3)]
        kspace = np.concatenate([scan.kspace for scan in scans], axis=1)
        mask = np.concatenate([scan.mask for scan in scans if scan.mask is not None], axis=1)
        save_ismrmrd(scans[0].replace(kspace=kspace, mask=mask, noise_covariance=None), scan_file)
        program = Path(sys.executable).with_name("dipmed")
        command = [program, "recon", scan_file, "-o", Path(folder) / "image.nii.gz", "--report", page]
        command += ["--undersample", "random:R=4,acs=16,seed=0", *FIT.split()]
        subprocess.run(command, check=True)
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={SIZE}"]
        command += ["--virtual-time-budget=5000", f"--screenshot={OUT}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    main()
