/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 1 on the cuda device: as tests/train/bits.c, with what is its own: device slots that
 * are filled from pinned host memory or through staging buffers as the host budget says, and grains
 * of 2048 tokens. Runs on whatever TAILRACE_CUDA_MODULE names; on the fake runtime in the suite,
 * which delays every stream at random.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/train/placement.h"

static const struct tiny shapes[] = {
    {"llama", 32, 48, 3, 2, 1, 16, 300, 512, ""},
    {"llama-tied", 32, 48, 2, 2, 1, 16, 200, 512, ""},
    {"qwen3", 32, 48, 2, 2, 1, 16, 200, 512, ""},
};

#define LITTLE (24u << 20) /* host memory for the data and small staging buffers */

/* The first few say most, and of them the models take one each in turn; one model takes every
 * second of all. With --all every model takes all that it can. */
#define FEW 5
#define ALL (sizeof(variants) / sizeof(variants[0]))

static const struct variant variants[] = {
    {"smallest budget, streamed from disk", .smallest = 1, .host_memory = LITTLE},
    {"streamed from disk, threads engine", .host_memory = LITTLE, .io = TR_ENGINE_THREADS},
    {"micro-batches of one grain, all kept", .micro_batch = 1, .recompute = TR_RECOMPUTE_NONE},
    {"interrupted and resumed", .interrupted = 1, .smallest = 1},
    {"matrices, streamed from disk", .smallest = 1, .host_memory = LITTLE,
     .streaming = TR_STREAMING_MATRICES, .micro_batch = 1},
    {"matrices, smallest budget, all kept", .smallest = 1, .streaming = TR_STREAMING_MATRICES,
     .recompute = TR_RECOMPUTE_NONE},
    {"matrices, all recomputed", .streaming = TR_STREAMING_MATRICES, .recompute = TR_RECOMPUTE_ALL},
    {"smallest budget", .smallest = 1},
    {"smallest budget, prefetch 1", .smallest = 1, .prefetch = 1, .host_memory = LITTLE},
    {"micro-batches of one grain", .micro_batch = 1},
    {"all recomputed", .recompute = TR_RECOMPUTE_ALL},
    {"durability checkpoint", .durability = TR_KEEP_CHECKPOINT, .smallest = 1},
    {"durability none", .durability = TR_KEEP_NONE, .smallest = 1, .host_memory = LITTLE},
    {"nothing overlaps", .serial = 1, .smallest = 1, .host_memory = LITTLE},
};

static void test_f32_sgd(void **state)
{
    (void)state;
    check_placements(
        &(struct placements){&shapes[0], TR_TYPE_F32, TR_OPT_SGD, variants, FEW, .share = FEW});
}

static void test_bf16_lomo(void **state)
{
    (void)state;
    check_placements(
        &(struct placements){&shapes[0], TR_TYPE_BF16, TR_OPT_LOMO, variants, ALL, .share = 2});
}

static void test_bf16_adamw_tied(void **state)
{
    (void)state;
    check_placements(
        &(struct placements){&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW, variants, FEW, .share = FEW});
}

static void test_bf16_adamw_in_8bit(void **state)
{
    (void)state;
    check_placements(&(struct placements){&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW, variants, FEW,
                                          .share = FEW, .state_dtype = TR_TYPE_8BIT});
}

static void test_bf16_adam_mini_tied(void **state)
{
    (void)state;
    check_placements(&(struct placements){&shapes[1], TR_TYPE_BF16, TR_OPT_ADAM_MINI, variants, FEW,
                                          .share = FEW});
}

static void test_bf16_adalomo(void **state)
{
    (void)state;
    check_placements(&(struct placements){&shapes[0], TR_TYPE_BF16, TR_OPT_ADALOMO, variants, FEW,
                                          .share = FEW});
}

static void test_bf16_adalomo_master(void **state)
{
    (void)state;
    check_placements(&(struct placements){&shapes[1], TR_TYPE_BF16, TR_OPT_ADALOMO, variants, 1,
                                          .master = TR_MASTERS_SPLIT});
}

static void test_f16_lomo_qwen3(void **state)
{
    (void)state;
    check_placements(
        &(struct placements){&shapes[2], TR_TYPE_F16, TR_OPT_LOMO, variants, FEW, .share = FEW});
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_sgd),
        cmocka_unit_test(test_bf16_lomo),
        cmocka_unit_test(test_bf16_adamw_tied),
        cmocka_unit_test(test_bf16_adam_mini_tied),
        cmocka_unit_test(test_bf16_adamw_in_8bit),
        cmocka_unit_test(test_bf16_adalomo),
        cmocka_unit_test(test_f16_lomo_qwen3),
        cmocka_unit_test(test_bf16_adalomo_master),
    };
    const char *module = getenv("TAILRACE_CUDA_MODULE");

    if (!module || !*module) {
        puts("skipped: no CUDA module is named");
        return 77;
    }
    placements_options(argc, argv);
    return cmocka_run_group_tests_name("invariant 1, cuda", tests, NULL, NULL);
}
