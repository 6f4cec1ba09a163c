#!/usr/bin/env bash
# Set up the environment and run the tests; arguments go on to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
exec python -m pytest "$@"
