#!/usr/bin/env bash
# Build the site of docs/ into build/site; a warning is an error. The examples run on the way, in about a minute. Arguments go on to
# sphinx-build; -D plot_gallery=0 leaves the examples out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/venv.sh
python -c 'import furo, myst_parser, sphinx, sphinx_gallery' 2>/dev/null ||
    python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'

export OMP_NUM_THREADS=1
rm -rf build/site build/doctrees docs/gallery
python -m sphinx --fail-on-warning --keep-going --quiet -d build/doctrees "$@" docs build/site

# whoever reads the site may be offline, and nobody else needs to know who reads it
if grep -rEl --include='*.html' --include='*.css' \
    -e '<(script|img|iframe|source)[^>]*src="(https?:)?//' -e '<link[^>]*href="(https?:)?//' -e '(@import|url\()[^;]*https?://' build/site; then
    echo "these pages would fetch something from outside" >&2
    exit 1
fi
printf 'built %s pages: build/site/index.html\n' "$(find build/site -name '*.html' | wc -l)"
