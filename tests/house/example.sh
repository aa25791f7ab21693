#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The example of README.md trains: a small random model, four steps, and a model folder at the end.
# Usage: example.sh EXAMPLE TAILRACE
set -eu
example=$1 tailrace=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$(dirname "$0")/tiny.sh"

make_tiny_model "$tailrace" "$work"
"$example" "$work/model" "$work/text.txt" "$work/run" > "$work/out"
cat "$work/out"
grep -q '^step 4 of 4: loss [0-9]' "$work/out"
test -s "$work/run/model/config.json"
if "$example" "$work/none" "$work/text.txt" "$work/run2" 2> "$work/err"; then
    echo 'a missing model was accepted'
    exit 1
fi
grep -q '^example: .*none' "$work/err"
