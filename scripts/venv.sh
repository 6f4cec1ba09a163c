# Sourced by the other scripts: makes the virtual environment when it is missing or out of date, and activates it.
#
# Environment variables:
#   PYTHON       the interpreter that makes the environment (default: python3)
#   DIPMED_VENV  where the environment lies (default: .venv in the repository)
#
# A script that needs dipmed alone, and none of the tools for tests, sets dipmed_extras to nothing before: installing
# those takes longer than the rest.

dipmed_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
dipmed_venv="${DIPMED_VENV:-$dipmed_root/.venv}"
dipmed_extras="${dipmed_extras-dev}"

dipmed_setup() {
    local python="${PYTHON:-python3}" stamp="$dipmed_venv/.dipmed-installed" wanted found
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
    found="$(cat "$stamp" 2>/dev/null)"
    if [ "$found" != "$wanted dev" ] && [ "$found" != "$wanted $dipmed_extras" ]; then
        echo "installing dipmed and its tested dependencies into $dipmed_venv" >&2
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$dipmed_venv/bin/python" -m pip install --quiet \
            -c "$dipmed_root/constraints.txt" -e "$dipmed_root${dipmed_extras:+[$dipmed_extras]}" || return 1
        echo "$wanted $dipmed_extras" >"$stamp"
    fi
    export PATH="$dipmed_venv/bin:$PATH" VIRTUAL_ENV="$dipmed_venv"
}

dipmed_setup || return 1
