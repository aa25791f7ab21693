#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every kernel for every architecture that the project names and this nvcc knows, and the portable
# code; none may spill more than spills.txt says. Usage: archs.sh NVCC SOURCE_ROOT NAME...
set -u
nvcc=$1 root=$2
shift 2
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

known=$("$nvcc" --list-gpu-code) || exit 1
code=compute_80
for arch in 80 86 89 90 100 120; do
    if grep -qx "sm_$arch" <<< "$known"; then
        code+=,sm_$arch
    else
        echo "this nvcc does not know sm_$arch"
    fi
done

# spilled LOG: what spills more than it may.
spilled() {
    awk -F "'" '/Compiling entry/ { gpu = $4; name = $2 }
        /bytes spill/ { split($0, w, " "); if (w[5] + w[9]) print gpu, w[5] + w[9], name }' "$1" |
        c++filt -p | sed 's/ void / /' |
        awk '{ bytes = $2; $2 = "" } NR == FNR { kept[$0] = bytes; next }
            bytes > kept[$0] + 0 { print $0 ": " bytes " bytes spilled"; more = 1 }
            END { exit !more }' "$root/tests/cuda/device/spills.txt" -
}

failed=0
for name in "$@"; do
    if "$nvcc" -std=c++17 -O3 -I"$root" -Xptxas -v -c -o "$work/$name.o" \
        -gencode "arch=compute_80,code=[$code]" \
        "$root/kernels/$name.cu" > "$work/$name.log" 2>&1 &&
        ! spilled "$work/$name.log"; then
        echo "$name: $(grep -c 'Compiling entry' "$work/$name.log") kernels and architectures"
    else
        grep -vE '^ptxas info|bytes (stack|spill)' "$work/$name.log"
        echo "FAILED: $name"
        failed=1
    fi
done
exit $failed
