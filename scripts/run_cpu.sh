#!/usr/bin/env bash
# Trains on the CPU. usage: bash scripts/run_cpu.sh DATASET [SYSTEM] [options of train.py]
set -euo pipefail
# shellcheck source=scripts/run_arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/run_arguments.sh"
run_arguments "$@"
run_data
exec "$python" "$root/train.py" --device_target CPU "${arguments[@]}"
