#!/usr/bin/env bash
# Trains on the CPU. usage: bash scripts/run_cpu.sh DATASET [SYSTEM] [options of train.py]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/run_arguments.sh
. scripts/run_arguments.sh
run_arguments "$@"
exec "$python" train.py --device_target CPU "${arguments[@]}"
