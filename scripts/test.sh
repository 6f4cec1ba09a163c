#!/usr/bin/env bash
# Set up the environment and run the tests, a process on every core; arguments go on to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
# the tests are many and small: threads inside of one would only get in the way of the others
export OMP_NUM_THREADS=1
exec python -m pytest --numprocesses auto "$@"
