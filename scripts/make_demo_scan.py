"""Write the simulated scan of the demo as an ISMRMRD file: ``python scripts/make_demo_scan.py scan.h5``."""

from __future__ import annotations

import argparse
from pathlib import Path

from dipmed.io import save_ismrmrd
from dipmed.phantom import brain_phantom_scan


def main() -> None:
    """Simulate a scan and write it."""
    parser = argparse.ArgumentParser(description="Simulate a brain-like multi-coil scan and write it as ISMRMRD.")
    parser.add_argument("output", type=Path, help="the file to write, .h5; one that exists is replaced")
    parser.add_argument("--size", type=int, default=128, help="samples along each axis (default: %(default)s)")
    parser.add_argument("--coils", type=int, default=8, help="number of coils (default: %(default)s)")
    parser.add_argument("--noise", type=float, default=0.01, help="noise of one sample (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of fine structure and noise (default: %(default)s)")
    wanted = parser.parse_args()

    scan, _ = brain_phantom_scan((wanted.size, wanted.size), wanted.coils, noise=wanted.noise, seed=wanted.seed)
    wanted.output.parent.mkdir(parents=True, exist_ok=True)
    save_ismrmrd(scan, wanted.output, force=True)
    print(f"wrote {wanted.output}: {wanted.coils} coils, {wanted.size} x {wanted.size} samples, simulated")


if __name__ == "__main__":
    main()
