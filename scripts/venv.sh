# Sourced by the other scripts: makes the virtual environment when it is missing or out of date, and activates it.
#
# Environment variables:
#   PYTHON       the interpreter that makes the environment (default: python3)
#   DIPMED_VENV  where the environment lies (default: .venv in the repository)

dipmed_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dipmed_venv="${DIPMED_VENV:-$dipmed_root/.venv}"

dipmed_setup() {
    local python="${PYTHON:-python3}" stamp="$dipmed_venv/.dipmed-installed" wanted
    if [ ! -x "$dipmed_venv/bin/python" ]; then
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "dipmed needs Python 3.11 or newer; '$python' is not. Set PYTHON to a newer interpreter." >&2
            return 1
        fi
        if ! "$python" -m venv "$dipmed_venv"; then
            echo "could not make $dipmed_venv: on Debian and Ubuntu 'apt-get install python3-venv' brings what is missing." >&2
            return 1
        fi
    fi
    # the location counts as well: an editable install of another clone must not be taken for this one
    wanted="$({ echo "$dipmed_root"; cat "$dipmed_root/pyproject.toml" "$dipmed_root/constraints.txt"; } | cksum)"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        echo "installing dipmed and its tested dependencies into $dipmed_venv" >&2
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$dipmed_venv/bin/python" -m pip install --quiet \
            -c "$dipmed_root/constraints.txt" -e "$dipmed_root[dev]" || return 1
        echo "$wanted" >"$stamp"
    fi
    export PATH="$dipmed_venv/bin:$PATH" VIRTUAL_ENV="$dipmed_venv"
}

dipmed_setup || return 1
