#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The library, shared or static, exports tr_ symbols alone, and all that src/tailrace.h declares.
# Usage: symbols.sh ROOT LIBRARY
set -u
case $2 in
*.a) table=-g ;;
*) table=-D ;;
esac
exported=$(nm $table --defined-only "$2" | awk 'NF == 3 {print $3}' | sed 's/@.*//' | sort -u)
declared=$(grep -o '^TR_API[^;]*' "$1/src/tailrace.h" | grep -o '\btr_[a-z_]*(' | tr -d '(' |
    sort -u)
failed=0

if foreign=$(grep -v '^tr_' <<< "$exported"); then
    printf 'exported without tr_:\n%s\n' "$foreign"
    failed=1
fi
if [ "$exported" != "$declared" ]; then
    printf 'exported (<) and declared (>) differ:\n'
    diff <(echo "$exported") <(echo "$declared")
    failed=1
fi
echo "$(wc -l <<< "$exported") symbols"
exit $failed
