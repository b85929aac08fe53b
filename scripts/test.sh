#!/usr/bin/env bash
# Style checks and tests. usage: bash scripts/test.sh [--slow] [pytest arguments]
#
# Without arguments the fast tests, with --slow all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/environment.sh
. scripts/environment.sh test

"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest "$@"
