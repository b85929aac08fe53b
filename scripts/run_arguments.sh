# shellcheck shell=bash
# To be sourced by run_cpu.sh, run_gpu.sh, run_ascend.sh and run_distributed.sh: what they have in common.
#
# run_arguments DATASET [SYSTEM] [options of train.py] sets the array `arguments` for train.py, which lies in
# `root`, the checkout. Relative paths of the caller are relative to the caller's folder; the data set's own
# folder, where scripts/get_data.sh puts it, to the checkout. Nothing is installed: ${PYTHON:-python} must
# have the package's requirements. run_data then fetches that data set where it is not there yet.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

run_fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

run_arguments() {
    local names config folder=
    names=$(for config in "$root"/configs/*.yaml; do basename "$config" .yaml; done | paste -s -d ' ')
    [ $# -ge 1 ] || run_fail "give a data set ($names), then perhaps a system, then options of train.py" 2
    case " $names " in
        *" $1 "*) ;;
        *) run_fail "there is no data set '$1': take one of $names" 2 ;;
    esac
    config=$root/configs/$1.yaml
    arguments=(--config "$config")
    shift
    if [ $# -ge 1 ] && [ "${1#-}" = "$1" ]; then
        arguments+=(--system "$1")
        shift
    fi
    folder=$(sed -n 's/^  dir: //p' "$config")
    case " $* " in
        *" --data_dir"* | *" data.dir="* | *" --data_url"*) folder= ;;
    esac
    [ -z "$folder" ] || arguments+=(--data_dir "$root/$folder")
    arguments+=("$@")
    data_folder=${folder:+$root/$folder}
}

run_data() {
    case ${data_folder##*/} in ptb | yahoo | yelp) ;; *) return ;; esac
    if { [ -f "$data_folder/train.txt" ] && [ -f "$data_folder/test.txt" ] &&
        { [ -f "$data_folder/valid.txt" ] || [ -f "$data_folder/val.txt" ]; }; }; then
        return
    fi
    # Its own error line says what to do.
    PYTHON=$python bash "$root/scripts/get_data.sh" "${data_folder##*/}" "$data_folder" || exit
}

python=${PYTHON:-python}
command -v "$python" >/dev/null || run_fail "$python was not found: activate the environment, or set PYTHON"
