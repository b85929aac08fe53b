# shellcheck shell=bash
# To be sourced: `. scripts/environment.sh [EXTRA]` makes the package installed and importable.
#
# Takes the active virtual environment if there is one, else the one in .venv, which it makes. PYTHON names
# the interpreter to make it with; one that lies in a virtual environment itself is used as it is. The
# package is installed in place, with the optional EXTRA (test, gpu, ...), once for every
# pyproject.toml and setup.py. MINDSPORE_CVAE_WITHOUT_KENLM=1 leaves KenLM out, which needs a compiler.
# Afterwards PYTHON is the environment's interpreter. Any failure ends the calling script with one line.

environment_fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

environment_is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null
}

environment_is_virtual() {
    "$1" -c 'import sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null
}

# The interpreter to start from: $PYTHON, else the newest supported one.
environment_find_python() {
    local name
    if [ -n "${PYTHON:-}" ]; then
        environment_is_supported "$PYTHON" ||
            environment_fail "PYTHON=$PYTHON is not a Python from 3.10 to 3.12, which MindSpore needs"
        printf '%s\n' "$PYTHON"
        return
    fi
    for name in python3 python python3.12 python3.11 python3.10; do
        if environment_is_supported "$name"; then
            printf '%s\n' "$name"
            return
        fi
    done
    environment_fail "no Python from 3.10 to 3.12 was found: install one, or name it with PYTHON=/path/to/python3"
}

environment_select() {
    local base
    # Asked before .venv is looked at: a PYTHON that cannot be used is refused even where .venv stands.
    if [ -n "${PYTHON:-}" ]; then
        environment_find_python >/dev/null
    fi
    if [ -n "${PYTHON:-}" ] && environment_is_virtual "$PYTHON"; then
        base=$PYTHON
    elif [ -z "${PYTHON:-}" ] && [ -n "${VIRTUAL_ENV:-}" ]; then
        base=$VIRTUAL_ENV/bin/python
    else
        if ! [ -x .venv/bin/python ]; then
            base=$(environment_find_python) || exit 1
            printf 'making the virtual environment .venv with %s\n' "$("$base" --version)"
            # A half-made environment must not look like a finished one to the next call.
            "$base" -m venv .venv || {
                rm -rf .venv
                environment_fail "$base cannot make a virtual environment (Debian: apt install python3-venv)"
            }
        fi
        base=$PWD/.venv/bin/python
    fi
    environment_is_supported "$base" ||
        environment_fail "$base is not a Python from 3.10 to 3.12, which MindSpore needs"
    PYTHON=$base
    export PYTHON
}

environment_install() {
    local extra=$1 without_kenlm=${MINDSPORE_CVAE_WITHOUT_KENLM:-0} prefix stamp key
    prefix=$("$PYTHON" -c 'import sys; print(sys.prefix)')
    stamp=$prefix/.mindspore_cvae-installed${extra:+-$extra}
    key="$PWD $("$PYTHON" -c 'import hashlib; print(hashlib.sha256(open("pyproject.toml", "rb").read() + open("setup.py", "rb").read()).hexdigest())')"
    if [ "$without_kenlm" != 0 ]; then
        key="$key without kenlm"
    fi
    if [ "$(cat "$stamp" 2>/dev/null)" = "$key" ]; then
        return
    fi
    [ "$without_kenlm" != 0 ] || command -v "${CXX:-c++}" >/dev/null ||
        environment_fail "no C++ compiler was found, which the package kenlm needs: install one (Debian: apt install g++), or go on without the command ngram by MINDSPORE_CVAE_WITHOUT_KENLM=1"
    printf 'installing the package into %s (MindSpore is a download of about 1 GB)\n' "$prefix"
    "$PYTHON" -m pip install --quiet --disable-pip-version-check --editable ".${extra:+[$extra]}" ||
        environment_fail "the installation failed; its message stands above (if it is about kenlm: MINDSPORE_CVAE_WITHOUT_KENLM=1 does without it, and without the command ngram)"
    printf '%s\n' "$key" >"$stamp"
}

environment_select
environment_install "${1:-}"
