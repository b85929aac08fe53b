#!/usr/bin/env bash
# From a fresh clone to sentences: installs, trains on the embedded corpus, evaluates, samples, interpolates.
# usage: bash scripts/quickstart.sh [RUN]      called again, it goes on where it was interrupted
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run=${1:-runs/quickstart}

# shellcheck source=scripts/environment.sh
. scripts/environment.sh

resume=()
if [ -e "$run" ]; then
    resume=(--resume)
fi
# Epoch 0 of the validation is the untrained model: what the later lines are to be compared with.
"$PYTHON" train.py --output_dir "$run" --set eval.before_training=true ${resume[@]+"${resume[@]}"}
printf '\n'
printf 'Evaluating the first 500 test sentences with 16 draws each (eval.py --run %s takes all, with 128):\n' "$run"
"$PYTHON" eval.py --run "$run" --samples 16 --set eval.max_sentences=500

printf '\nTen samples from the prior:\n'
"$PYTHON" generate.py sample --run "$run" --n 10

first='most insurers raise a dividend today'
last='in october , the bridge was closed by this farmer in chicago'
printf '\nFrom "%s"\nto "%s":\n' "$first" "$last"
"$PYTHON" generate.py interpolate --run "$run" "$first" "$last" --steps 7

printf '\nEverything lies in %s:\n' "$run"
for file in log.jsonl metrics-test.json report.html checkpoints; do
    if [ -e "$run/$file" ]; then
        printf '    %s\n' "$run/$file"
    fi
done
