#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Every function and constant of our CUDA headers stands in signatures.h, where it is compared with
# NVIDIA's. Usage: signatures.sh RUNTIME_FOLDER INCLUDE_FOLDER
set -eu
list=$1/signatures.h
headers="$2/cuda_runtime_api.h $2/cublasLt.h"
missing=0 count=0

names() {
    # functions; enumerators; macros with a value of flags
    sed -n -E 's/^[^ #].*[ *]((cuda|cublasLt)[A-Z][A-Za-z]*)\(.*/\1/p' $headers
    sed -n -E 's/^ +((cuda|CU)[A-Za-z0-9_]*) = .*/\1/p' $headers
    sed -n -E 's/^typedef enum \{(.*)\}.*/\1/p' $headers | tr ',' '\n' | sed 's/ *=.*//; s/^ *//'
    sed -n -E 's/^#define (cuda[A-Za-z]+) +0x.*/\1/p' $headers
}

for name in $(names); do
    count=$((count + 1))
    grep -qE "X\(([^,(]*, )?$name, " "$list" || {
        echo "signatures.h does not have $name"
        missing=1
    }
done
echo "$count names"
[ "$count" -gt 100 ] || {
    echo "the headers were not read"
    missing=1
}
exit $missing
