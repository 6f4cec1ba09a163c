#!/usr/bin/env bash
# Run the tests of all that uses MONAI with the oldest one that pyproject.toml allows; the other tests run with the
# newest. Only MONAI is exchanged, so the oldest one is seen to work with the tested versions of torch and numpy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
export OMP_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

oldest="$(sed -n 's/^ *"monai>=\([0-9.]*\)",$/\1/p' pyproject.toml)"
folder="$PWD/build/monai-$oldest"
if [ ! -d "$folder/monai" ]; then
    python -m pip install --quiet --no-deps --target "$folder" "monai==$oldest"
    rm -rf "$folder/tests"  # which some versions of MONAI bring along, and which would be taken for ours
fi
export PYTHONPATH="$folder${PYTHONPATH:+:$PYTHONPATH}"
found="$(python -c 'import monai; print(monai.__version__)')"
if [ "$found" != "$oldest" ]; then
    echo "MONAI $found was imported in place of $oldest" >&2
    exit 1
fi
# an old MONAI does what a new torch warns of
python -m pytest -q -W default --numprocesses auto tests/transforms tests/e2e/test_bundle.py "$@"
