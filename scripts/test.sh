#!/usr/bin/env bash
# Style checks and tests. usage: bash scripts/test.sh [--slow] [pytest arguments]
#
# Without arguments the fast tests, with --slow all of them. Two processes share them: most of a test
# is the compilation of a graph, which takes one core. A file stays in one process, for what its tests
# share.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh test

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
exec "$PYTHON" -m pytest --numprocesses 2 --dist loadfile "$@"
