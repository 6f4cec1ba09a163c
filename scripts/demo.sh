#!/usr/bin/env bash
# From nothing to an image: simulate a multi-coil scan, reconstruct it from a quarter of its samples, compare methods.
# Everything lands in demo-output/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
dipmed_extras=
source scripts/venv.sh

out=demo-output
undersampling=random:R=4,acs=16,seed=0
mkdir -p "$out"

step() { printf '\n$ %s\n' "$*"; "$@"; }

step python scripts/make_demo_scan.py "$out/scan.h5"
step dipmed info "$out/scan.h5"
step dipmed recon "$out/scan.h5" --undersample "$undersampling" --preset mri-2d-fast \
    -o "$out/image.nii.gz" -o "$out/image.png" --json "$out/recon.json" --force
step dipmed compare "$out/scan.h5" --undersample "$undersampling" \
    --plot "$out/compare.png" --json "$out/compare.json" --force
printf '\nThe results are in %s/:\n' "$out"
ls -1 "$out"
