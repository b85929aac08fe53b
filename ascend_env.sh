# shellcheck shell=bash
# To be sourced before training on Ascend: `. ascend_env.sh`.
#
# Finds CANN, takes over its variables and checks them. Prints one line for each thing that is missing and
# returns 1, or says what it found and returns 0. CANN is looked for in ASCEND_HOME_PATH, in
# ASCEND_TOOLKIT_HOME, then in the usual folders; the driver in ASCEND_DRIVER_PATH (/usr/local/Ascend/driver).

ascend_env_problems=0

ascend_env_missing() {
    printf 'Ascend: %s\n' "$1" >&2
    ascend_env_problems=$((ascend_env_problems + 1))
}

# Prints the first folder that holds a set_env.sh or a compiler's version, as CANN's do.
ascend_env_find() {
    local folder
    for folder in "${ASCEND_HOME_PATH:-}" "${ASCEND_TOOLKIT_HOME:-}" \
        /usr/local/Ascend/ascend-toolkit/latest /usr/local/Ascend/cann /usr/local/Ascend/latest \
        "$HOME/Ascend/ascend-toolkit/latest" "$HOME/Ascend/cann" /usr/local/Ascend/nnae/latest; do
        if [ -n "$folder" ] && { [ -f "$folder/set_env.sh" ] || [ -d "$folder/compiler" ]; }; then
            printf '%s\n' "$folder"
            return
        fi
    done
}

ascend_env_load() {
    local home driver setup options version node
    home=$(ascend_env_find)
    if [ -z "$home" ]; then
        ascend_env_missing "CANN was not found: install the toolkit, or set ASCEND_HOME_PATH to its folder"
    else
        for setup in "$home/set_env.sh" "$home/../set_env.sh"; do
            if [ -f "$setup" ]; then
                # CANN's script reads variables that may be unset.
                options=$-
                set +eu
                # shellcheck source=/dev/null
                . "$setup"
                case $options in *e*) set -e ;; esac
                case $options in *u*) set -u ;; esac
                break
            fi
        done
        export ASCEND_HOME_PATH=${ASCEND_HOME_PATH:-$home}
        export ASCEND_OPP_PATH=${ASCEND_OPP_PATH:-$home/opp}
        export TBE_IMPL_PATH=${TBE_IMPL_PATH:-$ASCEND_OPP_PATH/built-in/op_impl/ai_core/tbe}
        ascend_env_prepend LD_LIBRARY_PATH "$home/lib64"
        ascend_env_prepend PATH "$home/bin"
        # MindSpore warns unless PYTHONPATH names the operators' implementation.
        ascend_env_prepend PYTHONPATH "$TBE_IMPL_PATH"
        ascend_env_prepend PYTHONPATH "$home/python/site-packages"

        version=$(sed -n 's/^Version=//p' "$home/compiler/version.info" 2>/dev/null) || true
        [ -n "$version" ] || ascend_env_missing "CANN's version is not stated in $home/compiler/version.info"
        [ -e "$home/lib64/libascendcl.so" ] || ascend_env_missing "$home/lib64/libascendcl.so is not there: CANN is incomplete"
        [ -d "$ASCEND_OPP_PATH" ] || ascend_env_missing "the operator package is not in $ASCEND_OPP_PATH: install CANN's ops package, or set ASCEND_OPP_PATH"
        [ -d "$TBE_IMPL_PATH" ] || ascend_env_missing "the operators' implementation is not in $TBE_IMPL_PATH: set TBE_IMPL_PATH"
    fi

    driver=${ASCEND_DRIVER_PATH:-/usr/local/Ascend/driver}
    if [ -d "$driver/lib64" ]; then
        ascend_env_prepend LD_LIBRARY_PATH "$driver/lib64"
        ascend_env_prepend LD_LIBRARY_PATH "$driver/lib64/common"
        ascend_env_prepend LD_LIBRARY_PATH "$driver/lib64/driver"
    else
        ascend_env_missing "the driver was not found in $driver: install it, or set ASCEND_DRIVER_PATH"
    fi
    node=$(find "${ASCEND_DEVICE_FOLDER:-/dev}" -maxdepth 1 -name 'davinci[0-9]*' 2>/dev/null | head -n 1)
    [ -n "$node" ] || ascend_env_missing "no device ${ASCEND_DEVICE_FOLDER:-/dev}/davinci0 is visible: check npu-smi info, or the container's devices"

    if [ "$ascend_env_problems" -eq 0 ]; then
        printf 'Ascend: CANN %s in %s\n' "$version" "$home"
    fi
}

# ascend_env_prepend VARIABLE FOLDER: puts the folder first, once.
ascend_env_prepend() {
    local value=${!1:-}
    case ":$value:" in
        *":$2:"*) ;;
        *) export "$1=$2${value:+:$value}" ;;
    esac
}

ascend_env_load
unset -f ascend_env_load ascend_env_find ascend_env_missing ascend_env_prepend
[ "$ascend_env_problems" -eq 0 ]
