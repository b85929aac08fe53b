# shellcheck shell=bash
# To be sourced by run_cpu.sh, run_gpu.sh, run_ascend.sh and run_distributed.sh: what they have in common.
#
# run_arguments DATASET [SYSTEM] [options of train.py] sets the array `arguments` for train.py. Nothing is
# installed: ${PYTHON:-python} must have the package's requirements.

run_fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

run_arguments() {
    local names config
    names=$(for config in configs/*.yaml; do basename "$config" .yaml; done | paste -s -d ' ')
    [ $# -ge 1 ] || run_fail "give a data set ($names), then perhaps a system, then options of train.py" 2
    case " $names " in
        *" $1 "*) ;;
        *) run_fail "there is no data set '$1': take one of $names" 2 ;;
    esac
    arguments=(--config "configs/$1.yaml")
    shift
    if [ $# -ge 1 ] && [ "${1#-}" = "$1" ]; then
        arguments+=(--system "$1")
        shift
    fi
    arguments+=("$@")
}

python=${PYTHON:-python}
command -v "$python" >/dev/null || run_fail "$python was not found: activate the environment, or set PYTHON"
