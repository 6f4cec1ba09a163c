"""Send every measured k-space file through ``dipmed info`` and ``dipmed recon``.

Run as ``DIPMED_DATA=DIR python scripts/recon_all.py -o FOLDER [--preset mri-2d-fast]``. Fully sampled scans are
undersampled in retrospect. Writes an image, a picture and a record for each case, and prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

R4 = "random:R=4,acs=16,seed=0"
CASES: dict[str, tuple[str, str | None]] = {
    "bart_brain8": ("bart_brain8/full.cfl", R4),
    "bart_brain8, 2 x 2": ("bart_brain8/und2x2.cfl", None),
    "fastmri_vfa13": ("fastmri_vfa13/vfa13_fa11.h5", R4),
    "dyn_vfa_cart4": ("dyn_vfa_cart4/vfa_cart4.cfl", R4),
    "mat73_brain16": ("mat73_brain16/raw_data.mat", R4),
    "twix_cimax_phantom16": ("twix_cimax_phantom16/20240206160052_flash16.dat", R4),
    "twix_skyra_gre2": ("twix_skyra_gre2/gre.dat", "random:R=2,acs=24,seed=0"),
    "ismrmrd_bottles14_r3": ("ismrmrd_bottles14_r3/meas_MID00349_FID09273_SNR_R3.h5", None),
    "sim3d_mc6": ("sim3d_mc6/ksp.cfl", "poisson:R=4,acs=16,seed=0"),
    "radial_cardiac12": ("radial_cardiac12/radial_cardiac_25_projections.mat", None),
    "dyn_vfa_radial5": ("dyn_vfa_radial5/vfa_radial5.h5", None),
}


def main() -> None:
    """Parse the options, run the cases, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for images, pictures and records")
    parser.add_argument("--preset", help="of the fits of 2-D scans; by default the full one")
    parser.add_argument("--cases", nargs="+", default=list(CASES), metavar="NAME", help=f"of {', '.join(CASES)}")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    print("| case | frames x slices | coils | matrix | undersampling | seconds of fit | iterations | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in chosen.cases:
        print(run_case(name, chosen.out, chosen.preset), flush=True)


def run_case(name: str, out: Path, preset: str | None) -> str:
    """Run one case; return its line of the table."""
    path, spec = CASES[name]
    file = str(Path(os.environ["DIPMED_DATA"]) / path)
    info = dipmed("info", file)
    matrix = " x ".join(map(str, info["matrix"])) if info["cartesian"] else f"{info['samples']} samples"
    line = f"| {name} | {info['frames']} x {info['slices']} | {info['coils']} | {matrix} "
    stem = out / Path(path).stem
    options = ["-o", f"{stem}.nii.gz", "-o", f"{stem}.png", "--force"]
    options += ["--undersample", spec] if spec else []
    options += [] if info["cartesian"] else ["--join-frames"]
    options += ["--preset", preset] if preset and info["dimensions"] == 2 else []
    record = dipmed("recon", file, *options)
    seconds = sum(image["seconds"] for image in record["images"])
    iterations = sorted({image["iterations"] for image in record["images"]})
    measured = "as measured" if info["sampled_fraction"] is None else f"as measured, {info['sampled_fraction']:.0%}"
    shown = f"`{spec}`" if spec else measured
    return line + f"| {shown} | {seconds:.0f} | {', '.join(map(str, iterations))} | {record['peak_memory_mib']:.0f} |"


def dipmed(command: str, *arguments: str) -> dict[str, Any]:
    """Run the command that is installed beside this Python; return its record."""
    program = Path(sys.executable).with_name("dipmed")
    done = subprocess.run([program, command, *arguments, "--json", "-"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"dipmed {command} {arguments[0]} failed: {done.stderr.strip()[-500:]}")
    record: dict[str, Any] = json.loads(done.stdout)
    return record


if __name__ == "__main__":
    main()
