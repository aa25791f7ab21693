/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu-bench [--quick]: the figures of the device that TR_TEST_DEVICE names, as a Markdown table.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/bench/bench.h"
#include "tests/device/which.h"

/* Values between -1 and 1 whichever of bf16 and f32 they are read as. */
static void fill_arena(const struct bench *b)
{
    size_t piece = b->arena_bytes < (4u << 20) ? (size_t)b->arena_bytes : 4u << 20;
    uint16_t *values = malloc(piece);
    uint32_t random = 1;

    bench_must(values ? 0 : -1);
    for (size_t i = 0; i < piece / 2; i++) {
        random = random * 1664525u + 1013904223u;
        values[i] = tr_f32_bf16((float)(int32_t)random / 2147483648.0f);
    }
    for (uint64_t at = 0; at < b->arena_bytes; at += piece) {
        uint64_t left = b->arena_bytes - at;

        bench_must(b->d->ops->copy_in(b->d, TR_STREAM_COMPUTE, b->arena + at, values,
                                      left < piece ? (size_t)left : piece));
    }
    bench_must(b->d->ops->sync(b->d, TR_STREAM_COMPUTE));
    free(values);
}

int main(int argc, char **argv)
{
    struct bench b = {.quick = argc > 1 && !strcmp(argv[1], "--quick")};
    struct tr_device_params p = {0};
    struct tr_device_info info;
    double opening;
    uint64_t room = b.quick ? 4u << 20 : (uint64_t)3 << 29;

    opening = bench_now();
    bench_must(test_device_open(&b.d, &p, room));
    opening = bench_now() - opening;
    b.d->ops->info(b.d, &info);
    b.arena = b.d->ops->arena(b.d);
    b.arena_bytes = room;
    fill_arena(&b);
    printf("%s; bits: %s\n\nDevice memory of its own: %.0f MiB; opened in %.1f s\n\n", info.name,
           info.bits, (double)info.workspace_bytes / (1 << 20), opening);
    printf("| what | figure | ratio |\n|---|---|---|\n");
    bench_copies(&b);
    /* The peaks come before what might fail; and products of zeros, or of what kernels left there,
     * NaN among it, take another time. */
    fill_arena(&b);
    bench_gemm(&b);
    fill_arena(&b);
    bench_memory(&b);
    fill_arena(&b);
    bench_attentions(&b);
    b.d->ops->info(b.d, &info);
    if (info.remark[0])
        printf("\nRemark: %s\n", info.remark);
    b.d->ops->close(b.d);
    return 0;
}
