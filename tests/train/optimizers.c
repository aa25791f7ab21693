/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 1 for every optimizer that keeps state: the same bits whatever the placement, with
 * state streamed or resident, interrupted and resumed. tests/train/bits.c says more of the variants
 * and has LOMO, plain SGD and AdamW. Every optimizer takes one variant in two, with --all each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/train/placement.h"

static const struct tiny shapes[] = {
    {"llama", 64, 96, 3, 4, 2, 16, 700, 512, ""}, /* three vocabulary slices */
    {"llama-tied", 64, 96, 3, 4, 2, 16, 700, 512, ""},
    {"qwen2", 48, 80, 3, 4, 2, 12, 300, 512, ""},
};

static const struct variant variants[] = {
    {"smallest budget", .smallest = 1},
    {"one thread, threads engine, smallest budget", .threads = 1, .io = TR_ENGINE_THREADS,
     .smallest = 1},
    {"three threads", .threads = 3},
    {"micro-batches of one grain", .micro_batch = 1},
    {"micro-batches of one grain, all kept", .micro_batch = 1, .recompute = TR_RECOMPUTE_NONE},
    {"durability checkpoint", .durability = TR_KEEP_CHECKPOINT, .smallest = 1},
    {"random pauses, smallest budget", .delay_seed = 5, .smallest = 1},
    {"random pauses", .delay_seed = 6},
    {"interrupted and resumed", .interrupted = 1},
    {"interrupted and resumed, smallest budget", .interrupted = 1, .smallest = 1},
};

static void check(struct placements p)
{
    p.variants = variants;
    p.n = sizeof(variants) / sizeof(variants[0]);
    p.share = 2;
    check_placements(&p);
}

static void test_bf16_momentum(void **state)
{
    (void)state;
    check((struct placements){&shapes[0], TR_TYPE_BF16, TR_OPT_SGD, .momentum = 0.9});
}

static void test_bf16_adam_mini_tied(void **state)
{
    (void)state;
    check((struct placements){&shapes[1], TR_TYPE_BF16, TR_OPT_ADAM_MINI});
}

static void test_bf16_adam_mini_qwen2(void **state)
{
    (void)state;
    check((struct placements){&shapes[2], TR_TYPE_BF16, TR_OPT_ADAM_MINI, .clip_norm = -1});
}

static void test_f32_momentum_in_bf16(void **state)
{
    (void)state;
    check((struct placements){&shapes[1], TR_TYPE_F32, TR_OPT_SGD, .momentum = 0.9,
                              .state_dtype = TR_TYPE_BF16});
}

static void test_bf16_adamw_in_bf16(void **state)
{
    (void)state;
    check((struct placements){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, .state_dtype = TR_TYPE_BF16});
}

static void test_bf16_adam_mini_in_bf16(void **state)
{
    (void)state;
    check((struct placements){&shapes[2], TR_TYPE_BF16, TR_OPT_ADAM_MINI,
                              .state_dtype = TR_TYPE_BF16});
}

static void test_bf16_adamw_in_8bit(void **state)
{
    (void)state;
    check((struct placements){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, .state_dtype = TR_TYPE_8BIT});
}

/* Vectors and matrices that are not whole blocks. */
static void test_f32_adamw_in_8bit_qwen2(void **state)
{
    (void)state;
    check((struct placements){&shapes[2], TR_TYPE_F32, TR_OPT_ADAMW, .state_dtype = TR_TYPE_8BIT});
}

static void test_bf16_adam_mini_in_8bit(void **state)
{
    (void)state;
    check((struct placements){&shapes[1], TR_TYPE_BF16, TR_OPT_ADAM_MINI,
                              .state_dtype = TR_TYPE_8BIT});
}

static void test_f32_adalomo(void **state)
{
    (void)state;
    check((struct placements){&shapes[0], TR_TYPE_F32, TR_OPT_ADALOMO});
}

static void test_bf16_adalomo_tied(void **state)
{
    (void)state;
    check((struct placements){&shapes[1], TR_TYPE_BF16, TR_OPT_ADALOMO});
}

static void test_bf16_adalomo_clipped(void **state)
{
    (void)state;
    check((struct placements){&shapes[2], TR_TYPE_BF16, TR_OPT_ADALOMO, .clip_norm = 0.5});
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16_momentum),
        cmocka_unit_test(test_f32_momentum_in_bf16),
        cmocka_unit_test(test_bf16_adamw_in_bf16),
        cmocka_unit_test(test_bf16_adam_mini_tied),
        cmocka_unit_test(test_bf16_adam_mini_qwen2),
        cmocka_unit_test(test_bf16_adam_mini_in_bf16),
        cmocka_unit_test(test_bf16_adamw_in_8bit),
        cmocka_unit_test(test_f32_adamw_in_8bit_qwen2),
        cmocka_unit_test(test_bf16_adam_mini_in_8bit),
        cmocka_unit_test(test_f32_adalomo),
        cmocka_unit_test(test_bf16_adalomo_tied),
        cmocka_unit_test(test_bf16_adalomo_clipped),
    };

    placements_options(argc, argv);
    return cmocka_run_group_tests_name("invariant 1, optimizers", tests, NULL, NULL);
}
