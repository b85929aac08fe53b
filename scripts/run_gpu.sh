#!/usr/bin/env bash
# Trains on a GPU. usage: bash scripts/run_gpu.sh DATASET [SYSTEM] [options of train.py]
#
# Without a CUDA 11 toolkit under CUDA_HOME, MindSpore's GPU plugin is loaded from the CUDA 11 libraries that
# `pip install ".[gpu]"` brings (mindspore_cvae/devices/launcher.py).
set -euo pipefail
# shellcheck source=scripts/run_arguments.sh
. "$(dirname "${BASH_SOURCE[0]}")/run_arguments.sh"
run_arguments "$@"
run_data
exec "$python" -m mindspore_cvae launcher "$python" "$root/train.py" --device_target GPU "${arguments[@]}"
