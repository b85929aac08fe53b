#!/usr/bin/env bash
# Trains and evaluates a queue of runs, one after the other; goes on where it was stopped.
#
# usage: bash scripts/long_runs.sh FOLDER [QUEUE]
#
# QUEUE (scripts/long_runs.txt) has a run a line: its name, its system, options of train.py. Every
# run lies in FOLDER/NAME; its evaluations, by the paper's best checkpoint and by the best of the
# valid bound, in metrics-best.json and metrics-best_valid.json there, forward and reverse
# perplexity of its samples by KenLM in ngram.json. A run whose files are there is not touched
# again. Numbers name the commit: call this from a clean clone at one commit.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ $# -ge 1 ] || {
    printf 'usage: bash scripts/long_runs.sh FOLDER [QUEUE]\n' >&2
    exit 2
}
folder=$1
queue=${2:-$root/scripts/long_runs.txt}
python=${PYTHON:-$root/.venv/bin/python}
mkdir -p "$folder"

while read -r name system options; do
    case $name in '' | '#'*) continue ;; esac
    run=$folder/$name
    # shellcheck disable=SC2086 # The options of a line are words.
    if ! [ -e "$run/trained" ]; then
        git -C "$root" rev-parse HEAD >"$folder/$name.commit.new"
        [ -e "$folder/$name.commit" ] || mv "$folder/$name.commit.new" "$folder/$name.commit"
        rm -f "$folder/$name.commit.new"
        "$python" "$root/train.py" --system "$system" --output_dir "$run" --resume $options \
            2>>"$folder/$name.log"
        touch "$run/trained"
    fi
    for checkpoint in best_valid best; do
        # Where both marks are on the same weights, one evaluation serves both.
        if [ "$checkpoint" = best ] && [ -e "$run/metrics-best_valid.json" ] &&
            ! [ -e "$run/metrics-best.json" ] &&
            cmp -s "$run/checkpoints/best.json" "$run/checkpoints/best_valid.json"; then
            cp "$run/sentences-best_valid.tsv" "$run/sentences-best.tsv"
            sed 's/"checkpoint": "best_valid"/"checkpoint": "best"/' \
                "$run/metrics-best_valid.json" >"$run/metrics-best.json.new"
            mv "$run/metrics-best.json.new" "$run/metrics-best.json"
        fi
        # Of the best by the paper's -ELBO its own columns are all that is shown: the bound, the
        # longest part of an evaluation, is left out.
        draws=
        [ "$checkpoint" = best ] || draws="--iw_samples 128"
        # shellcheck disable=SC2086 # An option and its value, or nothing.
        [ -e "$run/metrics-$checkpoint.json" ] ||
            "$python" "$root/eval.py" --run "$run" --checkpoint "$checkpoint" $draws \
                --set eval.max_sentences=500 eval.grammatical_samples=5000 \
                --per_sentence "$run/sentences-$checkpoint.tsv" \
                --output "$run/metrics-$checkpoint.json" 2>>"$folder/$name.log" || true
    done
    # Without KenLM's programs (scripts/build_kenlm.sh) the log says so, and this is left out.
    [ -e "$run/ngram.json" ] ||
        PYTHONPATH=$root "$python" -m mindspore_cvae ngram --run "$run" --protocol sampled \
            --checkpoint best_valid 2>>"$folder/$name.log" || true
done <"$queue"
