#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Every header compiles alone; the public one also as strict C11 and as C++.
# Usage: headers.sh ROOT BUILD CC CXX
set -u
root=$1 build=$2 cc=$3 cxx=$4
failed=0

try() {
    local out
    if ! out=$("$@" 2>&1); then
        printf '%s\n%s\n' "$*" "$out"
        failed=1
    fi
}

cd "$root" || exit 1
count=0
for header in $(find src offload cpu kernels tools tests -name '*.h' | sort); do
    flags=()
    case $header in
    *avx512*) flags=(-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c) ;;
    *avx2*) flags=(-mavx2 -mfma -mf16c) ;;
    *_simd.h | */v16.h) continue ;; # templates: a tier's vector type comes before them
    esac
    compiler=("$cc" -std=gnu17 -x c)
    case $header in # the execution model of CUDA is C++
    kernels/cublas.h | kernels/matmul.h | tests/cuda/*)
        compiler=("$cxx" -std=c++17 -DTR_SHIM_TSAN=0 -DTR_SHIM_ASAN=0 -Itests/cuda/include -x c++)
        ;;
    esac
    try "${compiler[@]}" -D_GNU_SOURCE -Wall -Wno-unused -Werror "${flags[@]}" -I. -I"$build" \
        -fsyntax-only "$header"
    count=$((count + 1))
done
try "$cc" -std=c11 -pedantic -Wall -Wextra -Werror -fsyntax-only -x c src/tailrace.h
try "$cxx" -std=c++11 -Wall -Wextra -Werror -fsyntax-only -x c++ src/tailrace.h
lines=$(wc -l < src/tailrace.h)
if [ "$lines" -gt 240 ]; then
    echo "src/tailrace.h: $lines lines; the public header stays narrow (240)"
    failed=1
fi
[ $count -gt 10 ] || failed=1
echo "$count headers"
exit $failed
