# shellcheck shell=bash
# To be sourced by get_data.sh and build_kenlm.sh, which need no more than the standard library: sets `root`,
# the checkout, and `python`: ${PYTHON}, else the checkout's own .venv, else what the system has.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

python=${PYTHON:-}
for name in python "$root/.venv/bin/python" python3; do
    if [ -z "$python" ] && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
        python=$name
    fi
done
if [ -z "$python" ] || ! command -v "$python" >/dev/null; then
    printf 'error: %s was not found: install Python 3.10 or newer, or name it with PYTHON\n' "${python:-python}" >&2
    exit 1
fi
