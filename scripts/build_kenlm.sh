#!/usr/bin/env bash
# Builds KenLM's lmplz and query without root: the source, cmake and ninja come from the package index.
# usage: bash scripts/build_kenlm.sh [FOLDER]
#
# The programs come to FOLDER/bin, by default .kenlm/bin of the checkout: the command `mindspore-cvae ngram build`,
# whose --help says more. Needs a C++17 compiler and a Python from 3.10 on with pip.
set -euo pipefail
# shellcheck source=scripts/any_python.sh
. "$(dirname "${BASH_SOURCE[0]}")/any_python.sh"
exec "$python" -m mindspore_cvae ngram build "$@"
