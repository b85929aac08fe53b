#!/usr/bin/env bash
# Trains data-parallel on N devices of this host.
# usage: bash scripts/run_distributed.sh CPU|GPU|Ascend N [options of msrun] DATASET [SYSTEM] [options of train.py]
#
# Options of msrun are --bind_core=True, --bind_numa=True and --cluster_time_out=SECONDS.
# data.batch_size counts the sentences of one process. MindSpore's msrun starts the processes; the output of
# each goes to LOG_DIR (logs/<data set>-<date>), that of the first also to the terminal.
#
# Several hosts: WORLD_SIZE (all processes), NODE_RANK, MASTER_ADDR and MASTER_PORT, as msrun wants them.
# Old Ascend clusters: with RANK_TABLE_FILE the processes are started with RANK_ID, from RANK_START (0) on.
set -euo pipefail
# shellcheck source=scripts/run_arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/run_arguments.sh"

device=${1:-}
count=${2:-}
case $device in
    CPU | GPU | Ascend) ;;
    *) run_fail "give a device first, CPU, GPU or Ascend, not '$device'" 2 ;;
esac
case $count in
    '' | 0* | *[!0-9]*) run_fail "give the number of processes after the device, not '$count'" 2 ;;
esac
shift 2
own=()
while [ $# -ge 1 ] && [ "${1#--}" != "$1" ]; do
    own+=("$1")
    shift
done
run_arguments "$@"
if [ "$device" = Ascend ]; then
    # shellcheck source=ascend_env.sh
    . "$root/ascend_env.sh" || run_fail "Ascend cannot be used here: see the lines above"
fi
run_data

start=("$python" -m mindspore_cvae ranks --processes "$count"
    --log_dir "${LOG_DIR:-logs/$1-$(date +%Y%m%d-%H%M%S)}" ${own[@]+"${own[@]}"} "$root/train.py" --device_target "$device")
if [ "$device" = GPU ]; then
    start=("$python" -m mindspore_cvae launcher "${start[@]}")
fi
exec "${start[@]}" "${arguments[@]}"
