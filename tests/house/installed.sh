#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What is installed serves a program: the example is built with what pkg-config says, with the
# shared library and then with the static one, and trains; the static one shows no name but its own.
# Usage: installed.sh ROOT BUILD CC...
set -eu
root=$1 build=$2
shift 2
for program in meson pkg-config; do
    if ! command -v $program > /dev/null; then
        echo "skipped: $program is not installed"
        exit 77
    fi
done
work=$(mktemp -d)
stage=$work/stage log=$build/meson-logs/install-log.txt
# The log of the last true installation, which `ninja uninstall` reads, stays.
keep_log() {
    rm -f "$log"
    [ ! -f "$work/log" ] || cp -p "$work/log" "$log"
    rm -rf "$work"
}
[ ! -f "$log" ] || cp -p "$log" "$work/log"
trap keep_log EXIT

DESTDIR=$stage meson install -C "$build" --no-rebuild --quiet
found=$(find "$stage" -name tailrace.pc)
sed -i -E "s,^(prefix|libdir|includedir)=/,\1=$stage/," "$found"
export PKG_CONFIG_PATH=${found%/*}${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH}
libdir=$(pkg-config --variable=libdir tailrace)
tailrace=$(find "$stage" -path '*/bin/tailrace')

ask=(--cflags --libs)
# build_example FOLDER CC...
build_example() {
    local folder=$1 flags
    shift
    read -r -a flags <<< "$(pkg-config "${ask[@]}" tailrace)"
    mkdir "$folder"
    "$@" "$root/tests/example.c" -o "$folder/example" "${flags[@]}"
    readelf -d "$folder/example" > "$folder/needs"
}

# A module is looked for beside the program, wherever it was found and whatever lies where it was
# called.
mkdir -p "$work/unpacked/bin" "$work/unpacked/lib/tailrace" "$work/here/tailrace"
cp "$tailrace" "$work/unpacked/bin"
for file in unpacked/lib/tailrace here here/tailrace; do
    echo 'no module' > "$work/$file/tailrace-cuda.so"
done
(cd "$work/here" && touch tailrace/tailrace &&
    env -u TAILRACE_CUDA_MODULE PATH="$work/unpacked/bin:$PATH" \
        tailrace plan --arch llama-7b --device cuda) > "$work/said" 2>&1 && exit 1
if ! grep -q "$work/unpacked/bin/../lib/tailrace/tailrace-cuda.so" "$work/said"; then
    echo 'not the module beside the program:'
    cat "$work/said"
    exit 1
fi

build_example "$work/shared" "$@"
grep -q 'NEEDED.*libtailrace' "$work/shared/needs"
LD_LIBRARY_PATH=$libdir "$root/tests/house/example.sh" "$work/shared/example" "$tailrace"

"$root/tests/house/symbols.sh" "$root" "$libdir/libtailrace.a"
rm "$libdir"/libtailrace.so*
ask+=(--static)
build_example "$work/static" "$@"
if grep 'NEEDED.*libtailrace' "$work/static/needs"; then
    echo 'the static example wants a shared libtailrace'
    exit 1
fi
"$root/tests/house/example.sh" "$work/static/example" "$tailrace"
