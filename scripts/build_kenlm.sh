#!/usr/bin/env bash
# Builds KenLM's lmplz and query without root: the source, cmake and ninja come from the package index.
# usage: bash scripts/build_kenlm.sh [FOLDER]
#
# The programs come to FOLDER/bin, by default .kenlm/bin of the checkout, where mindspore_cvae.evaluation.ngram looks
# for them; for another folder set KENLM_BIN=FOLDER/bin. Needs a C++17 compiler and ${PYTHON:-python} with
# pip. Programs that are there already are kept: delete the folder to build anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# step TITLE COMMAND...: shows what the command printed only if it fails.
step() {
    local title=$1
    shift
    printf '%s\n' "$title"
    if ! "$@" >"$work/output" 2>&1; then
        tail -n 25 "$work/output" >&2
        fail "$title: failed; the end of its output stands above"
    fi
}

mkdir -p "${1:-.kenlm}" || fail "the folder ${1:-.kenlm} cannot be made"
folder=$(cd "${1:-.kenlm}" && pwd)
if [ -x "$folder/bin/lmplz" ] && [ -x "$folder/bin/query" ]; then
    printf 'lmplz and query are in %s\n' "$folder/bin"
    exit 0
fi
"$python" -m pip --version >/dev/null 2>&1 ||
    fail "$python -m pip does not work: set PYTHON to an interpreter that has pip"
command -v "${CXX:-c++}" >/dev/null || fail "no C++ compiler was found (Debian: apt install g++)"

# Below the folder rather than in /tmp, which may be small or mounted without exec.
work=$(mktemp -d "$folder/build.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The hash pins the source: these are programs that will be run here.
printf '%s --hash=sha256:%s\n' 'kenlm-ex==0.2.1' \
    6657c2fd8b3650e0c234d1309272041ae4fd712d7fe27b60e3c72f57d5cebb55 >"$work/requirements.txt"
step "fetching KenLM's source" \
    "$python" -m pip download --no-deps --no-binary kenlm-ex --dest "$work" -r "$work/requirements.txt"
step "unpacking it" tar -xzf "$work/kenlm_ex-0.2.1.tar.gz" -C "$work"
# As released, lmplz stops at once (its option -h clashes with CLI11's own), and options that are not given
# leave their variables without a value: it may collapse the backoff weights into the probabilities.
step "mending lmplz's options" sed -i \
    -e 's/^    CLI::App app{.*};$/&\n    app.set_help_flag();/' \
    -e 's/^    lm::builder::PipelineConfig pipeline;$/    lm::builder::PipelineConfig pipeline{};/' \
    -e 's/^    bool verbose_header;$/    bool verbose_header = false;/' \
    "$work/kenlm_ex-0.2.1/lm/builder/lmplz_main.cc"
step "fetching cmake and ninja" \
    "$python" -m pip install --target "$work/tools" 'cmake>=3.28,<5' ninja

# cmake's command is a Python script that imports its package.
export PYTHONPATH="$work/tools${PYTHONPATH:+:$PYTHONPATH}"
cmake=("$python" "$work/tools/bin/cmake")
step "configuring" "${cmake[@]}" -S "$work/kenlm_ex-0.2.1" -B "$work/build" -G Ninja \
    -DCMAKE_BUILD_TYPE=Release -DCMAKE_MAKE_PROGRAM="$work/tools/bin/ninja"
step "compiling lmplz and query" "${cmake[@]}" --build "$work/build" --target lmplz query

# Only programs that run replace anything.
printf 'a b\nb a\n' >"$work/text"
step "trying lmplz" "$work/build/bin/lmplz" -o 2 --discount_fallback 0.5 1 1.5 -S 64M -T "$work" \
    --text "$work/text" --arpa "$work/model"
step "trying query" "$work/build/bin/query" "$work/model" <"$work/text"
mkdir -p "$folder/bin"
mv -f "$work/build/bin/lmplz" "$work/build/bin/query" "$folder/bin/"
printf 'lmplz and query are in %s\n' "$folder/bin"
