#!/usr/bin/env bash
# Fetches a data set of the paper. usage: bash scripts/get_data.sh ptb|yahoo|yelp [DIR]
#
# Writes train.txt, valid.txt and test.txt to DIR (data/ptb, data/yahoo, data/yelp), as the repository of Fang
# et al. (2019) holds them at one commit, each verified by its git blob id. A transfer that was interrupted
# goes on where it stopped. DATA_URL names another copy of that repository's files. The texts belong to
# their owners; they are no part of this project.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

source_url=${DATA_URL:-https://raw.githubusercontent.com/fangleai/Implicit-LVM/ac2d587eb93cb61478b4d25b4f4b4c1f4d0c690d}

fail() {
    printf 'error: %s\n' "$1" >&2
    exit "${2:-1}"
}

# name here, path there, git blob id
case ${1:-} in
    ptb) files='
        train.txt lang_model_ptb/data/train.txt 958d9f34eb941702de0dc4a9657a881d15ae8391
        valid.txt lang_model_ptb/data/val.txt 7b3d9d9fd705825715695328b2de872ffbc14a84
        test.txt lang_model_ptb/data/test.txt 8079cdf342f8d103e5647e1160a8fe3b58a213d5' ;;
    yahoo) files='
        train.txt lang_model_yahoo/data/train.txt ae7d4fc4d07e520dffdbd835868a1d7c7a6eb471
        valid.txt lang_model_yahoo/data/val.txt 074bdf4265860d777d6e582c1a9baba17a317587
        test.txt lang_model_yahoo/data/test.txt bd40e278badf65dbaf248977098ec8bc6ad59a2f' ;;
    yelp) files='
        train.txt lang_model_yelp/data/yelp.train.txt 2c4c802349fd14b932d2dead17846ca6b4e1b870
        valid.txt lang_model_yelp/data/yelp.valid.txt 5280a264fbc11a7795cef76bb79541d67e65c568
        test.txt lang_model_yelp/data/yelp.test.txt 8c61afcb9c034eb53cc390c315c276fbdbed5a19' ;;
    *) fail "give a data set: ptb, yahoo or yelp" 2 ;;
esac
folder=${2:-$root/data/$1}
mkdir -p "$folder" || fail "the folder $folder cannot be made"
command -v sha1sum >/dev/null || fail "sha1sum was not found, which verifies the files"

# is_whole FILE ID: whether `git hash-object FILE` would print ID; git itself is not needed.
is_whole() {
    [ -f "$1" ] &&
        [ "$({ printf 'blob %s\0' "$(wc -c <"$1" | tr -d ' ')" && cat "$1"; } | sha1sum)" = "$2  -" ]
}

# fetch URL FILE: goes on at FILE's end; status 22 if the server refuses.
fetch() {
    local status=0
    if command -v curl >/dev/null; then
        curl --fail --location --silent --show-error --retry 2 --connect-timeout 20 \
            --continue-at - --output "$2" "$1" || status=$?
        # 33 and 36: it cannot go on in the middle.
        case $status in 33 | 36) return 22 ;; esac
    elif command -v wget >/dev/null; then
        wget --quiet --tries=3 --connect-timeout=20 --continue --output-document="$2" "$1" || status=$?
        [ "$status" -ne 8 ] || return 22
    else
        fail "neither curl nor wget was found"
    fi
    return "$status"
}

while read -r name path id; do
    [ -n "$name" ] || continue
    file=$folder/$name
    if [ -e "$file" ]; then
        is_whole "$file" "$id" ||
            fail "$file is not the published file (git blob id $id): move it away and call again"
        printf '%s is there\n' "$file"
        continue
    fi
    # Named by what it is to become, so that no other file's beginning is ever continued.
    part=$folder/.$name.$id.part
    url=$source_url/$path
    was_begun=$([ -s "$part" ] && echo yes || echo no)
    if ! is_whole "$part" "$id"; then
        printf 'fetching %s\n' "$url"
        status=0
        fetch "$url" "$part" || status=$?
        # 22: the server refuses. Is what was there no beginning of what it has?
        if [ "$was_begun" = yes ] && { [ "$status" -eq 22 ] || { [ "$status" -eq 0 ] && ! is_whole "$part" "$id"; }; }; then
            rm -f "$part"
            status=0
            fetch "$url" "$part" || status=$?
        fi
        [ "$status" -eq 0 ] ||
            fail "$url could not be fetched: call again when there is a network (what has come is kept), put the file itself into $file, or name another copy with DATA_URL"
    fi
    if ! is_whole "$part" "$id"; then
        rm -f "$part"
        fail "what came from $url is not the published file (git blob id $id): it was removed; call again, or name another copy with DATA_URL"
    fi
    mv "$part" "$file"
done <<<"$files"
printf 'train with: python train.py --config configs/%s.yaml --data_dir %s\n' "$1" "$folder"
