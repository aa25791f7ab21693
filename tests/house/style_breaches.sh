#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# tools/style must see every kind of breach: a small tree is broken in one way at a time.
# Usage: style_breaches.sh STYLE
set -u
style=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# A fresh tree that breaks no rule.
plant() {
    rm -rf "$work/t"
    mkdir -p "$work/t/src/base" "$work/t/cpu" "$work/t/offload" "$work/t/tools" "$work/t/tests"
    local essay='/* SPDX-License-Identifier: Apache-2.0 */'
    printf '%s\n#include "src/base/b.h"\n\nint a(void)\n{\n    return 0;\n}\n' "$essay" \
        > "$work/t/src/a.c"
    printf '%s\nint b(void);\n' "$essay" > "$work/t/src/base/b.h"
}

# expect WHAT FILE TEXT: FILE gets TEXT behind its SPDX line, and the report must say WHAT.
expect() {
    plant
    mkdir -p "$(dirname "$work/t/$2")"
    printf '/* SPDX-License-Identifier: Apache-2.0 */\n%b' "$3" > "$work/t/$2"
    judge "$1" "$2"
}

judge() {
    local out
    if out=$("$style" "$work/t") || ! grep -qF -- "$1" <<< "$out"; then
        printf 'not seen: %s in %s\n%s\n' "$1" "$2" "$out"
        failed=1
    fi
}

repeat() {
    for ((i = 0; i < $1; i++)); do printf '%s' "$2"; done
}

# accept WHAT: the tree as it stands breaks no rule.
accept() {
    if ! "$style" "$work/t" > "$work/out"; then
        printf '%s is refused:\n' "$1"
        cat "$work/out"
        failed=1
    fi
}

plant
accept 'the clean tree'

expect 'may not include "src/a.h"' src/base/c.c '#include "src/a.h"\n'
expect 'may not include "src/model/model.h"' offload/c.c '#include "src/model/model.h"\n'
expect 'may not include "cpu/c.h"' offload/c.c '#include "cpu/c.h"\n'
expect 'may not include "offload/c.h"' cpu/c.c '#include "offload/c.h"\n'
expect 'may not include "src/a.h"' cpu/c.c '#include "src/a.h"\n'
expect 'may not include "tools/c.h"' src/c.c '#include "tools/c.h"\n'
expect 'may not include "c.h"' src/c.c '#include "c.h"\n'
expect 'may not include "src/plan/plan.h"' tools/cmd_x.c '#include "src/plan/plan.h"\n'
expect '7 own includes' src/c.c "$(repeat 7 '#include "src/c.h"\n')"
expect 'function of 124 lines' src/c.c "int c(void)\n{\n$(repeat 121 '    c();\n')}\n"
expect 'function of 125 lines' src/c.c \
    "static int\nc(int a,\n  int b)\n{\n$(repeat 121 '    c();\n')}\n"
expect 'function median' src/c.c "$(repeat 3 "int c(void)\n{\n$(repeat 13 '    c();\n')}\n")"
expect 'function p95' src/c.c "int c(void)\n{\n$(repeat 70 '    c();\n')}\n"
expect '801 lines' src/c.c "$(repeat 800 ';\n')"
plant
for f in c d e; do
    { echo '/* SPDX-License-Identifier: Apache-2.0 */'; repeat 260 $';\n'; } > "$work/t/src/$f.c"
done
judge 'file median 261' src
expect '7 parameters' src/c.c \
    'int c(int a, int b, int (*c)(int, int), int d, int e, int f, int g)\n{\n    return 0;\n}\n'
expect '#if per kLOC' src/c.c '#if A\n#endif\n'
expect '101 columns' src/c.c "int $(repeat 96 x);\n"
expect 'tab' src/c.c 'int\tc;\n'
expect 'trailing blank' src/c.c 'int c; \n'
expect 'trailing blank' src/c.c 'int c;\r\n'
expect 'no newline at the end' src/c.c 'int c;'
expect 'invisible character' src/c.c '/* \u200b */\n'
expect 'a note to oneself' src/c.c '/* TO''DO: later */\n'
expect 'printf (' src/c.c 'int c(void)\n{\n    return printf ("");\n}\n'
expect 'exit(' offload/c.c 'int c(void)\n{\n    exit(1);\n}\n'
expect 'stderr' src/base/c.c 'int c(void)\n{\n    return fputs("", stderr);\n}\n'
expect 'dprintf(' src/base/c.c 'int c(void)\n{\n    return dprintf(2, "");\n}\n'
expect 'STDERR_FILENO' src/base/c.c 'int c(void)\n{\n    return !write(STDERR_FILENO, 0, 0);\n}\n'
expect 'sigaction(' src/c.c 'int c(void)\n{\n    return sigaction(1, 0, 0);\n}\n'
expect 'knows no disk' cpu/c.c 'int c(void)\n{\n    return open("", 0);\n}\n'
# CUDA and C++ are read as C is.
expect 'kernels/c.cu: may not include "cpu/c.h"' kernels/c.cu '#include "cpu/c.h"\n'
expect 'kernels/c.cuh: may not include "src/a.h"' kernels/c.cuh '#include "src/a.h"\n'
expect 'kernels/c.cu: may not include "tests/c.h"' kernels/c.cu '#include "tests/c.h"\n'
expect 'tests/cuda/c.cc: may not include "c.h"' tests/cuda/c.cc '#include "c.h"\n'
expect 'tests/cuda/c.h: may not include "c.h"' tests/cuda/c.h '#include "c.h"\n'
expect 'kernels/c.cc.in: may not include "src/a.h"' kernels/c.cc.in '#include "src/a.h"\n'
expect '7 own includes' kernels/c.cu "$(repeat 7 '#include "kernels/c.h"\n')"
expect 'kernels/c.cu:3: function of 124 lines' kernels/c.cu \
    "template <int A>\nstatic __global__ void c(int a)\n{\n$(repeat 121 '    c();\n')}\n"
expect 'tests/cuda/c.cc:3: function of 125 lines' tests/cuda/c.cc \
    "struct c {\n    void c(int a,\n           int b) const\n    {\n$(repeat 121 'c;\n')    }\n};\n"
expect 'kernels/c.cuh: 801 lines' kernels/c.cuh "$(repeat 800 ';\n')"
seven='x<A, B> *a, int b, int c, int d, int e, int f, int g'
expect 'kernels/c.cu:2: 7 parameters' kernels/c.cu \
    "static __global__ void __launch_bounds__(A, B) c($seven)\n{\n    return;\n}\n"
expect 'tests/cuda/c.cc:2: 7 parameters' tests/cuda/c.cc "int c($seven)\n{\n    return 0;\n}\n"
expect 'kernels/c.cu:2: 7 parameters' kernels/c.cu "int cudaMalloc($seven)\n{\n    return 0;\n}\n"
expect 'printf(' kernels/c.cu 'int c(void)\n{\n    return printf("");\n}\n'
expect 'knows no disk' kernels/c.cu 'int c(void)\n{\n    return open("", 0);\n}\n'
for f in kernels/c.cu kernels/c.cuh tests/cuda/c.cc; do
    plant; mkdir -p "$work/t/${f%/*}"; echo 'int c;' > "$work/t/$f"; judge 'no SPDX line' "$f"
done
# Six parameters with commas inside, and NVIDIA's own lists in its twins, are no breach.
plant; mkdir -p "$work/t/kernels" "$work/t/tests/cuda"
printf '/* SPDX-License-Identifier: Apache-2.0 */\n%s\n{\n    return;\n}\n' \
    "static __global__ void __launch_bounds__(A, B) c(${seven%,*})" > "$work/t/kernels/c.cu"
printf '/* SPDX-License-Identifier: Apache-2.0 */\n%s\n{\n    return 0;\n}\n' \
    "int cublasLtMatmul($seven)" > "$work/t/tests/cuda/c.cc"
accept 'CUDA that breaks no rule'
expect 'has no cpu/c_avx2.c' cpu/kernels.h '#define TR_CPU_KERNELS(X) \\\n    X(c)\n'
expect 'has no tests/kernelcheck/c.c' tests/kernelcheck/check.h '#define CHECK_OPS(X) X(c)\n'
expect 'op c is not in CHECK_OPS' cpu/cpu.h 'int tr_cpu_c(const struct tr_cpu *cpu);\n'
plant; echo 'int c;' > "$work/t/src/c.c"; judge 'no SPDX line' src/c.c
plant; printf '\xff\n' > "$work/t/src/c.c"; judge 'not UTF-8' src/c.c
plant; mkdir "$work/t/doc"; : > "$work/t/doc/x"; judge 'doc: not in the agreed top level' doc
plant; echo "See \`src/gone.c\`." > "$work/t/README.md"; judge 'src/gone.c is not there' README.md
exit $failed
