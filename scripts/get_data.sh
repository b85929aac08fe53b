#!/usr/bin/env bash
# Fetches a data set of the paper. usage: bash scripts/get_data.sh ptb|yahoo|yelp [DIR]
#
# Writes train.txt, valid.txt and test.txt to DIR (data/ptb, data/yahoo, data/yelp of the checkout): the command
# `mindspore-cvae data get`, whose --help says more. Needs a Python from 3.10 on, and nothing else.
set -euo pipefail
# shellcheck source=scripts/any_python.sh
. "$(dirname "${BASH_SOURCE[0]}")/any_python.sh"

folder=()
if [ $# -eq 1 ] && [ "${1#-}" = "$1" ]; then
    folder=("$root/data/$1")
fi
exec "$python" -m mindspore_cvae data get "$@" ${folder[@]+"${folder[@]}"}
