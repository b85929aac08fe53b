#!/usr/bin/env bash
# Trains on an Ascend device. usage: bash scripts/run_ascend.sh DATASET [SYSTEM] [options of train.py]
set -euo pipefail
# shellcheck source=scripts/run_arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/run_arguments.sh"
run_arguments "$@"

problems=$(mktemp)
trap 'rm -f "$problems"' EXIT
# shellcheck source=ascend_env.sh
if ! . "$root/ascend_env.sh" 2>"$problems"; then
    told=$(sed 's/^Ascend: //' "$problems" | paste -s -d '|' | sed 's/|/; /g')
    run_fail "no Ascend device can be used here: $told"
fi
rm -f "$problems"
run_data
exec "$python" "$root/train.py" --device_target Ascend "${arguments[@]}"
