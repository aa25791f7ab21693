/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 1: placement never changes the bits. The same training is run with everything resident,
 * with the smallest budget that fits, on both I/O engines, with other prefetch depths, threads,
 * micro-batches, activation policies, durabilities, with random pauses in the device's streams, and
 * interrupted and resumed; the exported models must be the same bytes. Every variant is taken with
 * two of the four models, with --all by each. The suite runs this program again with
 * OPENBLAS_CORETYPE=Haswell, and few variants of each. That the comparison can fail is shown by a
 * change of one bit of arithmetic: another seed of stochastic rounding.
 *
 * Also invariant 6: the measured device peak never passes the budget.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "offload/store.h"
#include "src/checkpoint/safetensors.h"
#include "tests/train/placement.h"

static const struct tiny shapes[] = {
    {"llama", 96, 160, 5, 6, 2, 16, 9000, 512, ""}, /* three vocabulary slices */
    {"llama-tied", 64, 96, 3, 4, 2, 16, 300, 512, ""},
    {"qwen3", 48, 80, 3, 4, 2, 24, 300, 512, ""},
};

static const struct variant variants[] = {
    {"smallest budget", .smallest = 1},
    {"smallest budget, threads", .smallest = 1, .io = TR_ENGINE_THREADS},
    {"io_uring where it can be had, prefetch 1", .prefetch = 1},
    {"threads engine", .io = TR_ENGINE_THREADS},
    {"matrices, smallest budget", .smallest = 1, .streaming = TR_STREAMING_MATRICES},
    {"matrices, smallest budget, all kept, micro-batches of one grain", .smallest = 1,
     .streaming = TR_STREAMING_MATRICES, .recompute = TR_RECOMPUTE_NONE, .micro_batch = 1},
    {"matrices, all resident, all recomputed", .streaming = TR_STREAMING_MATRICES,
     .recompute = TR_RECOMPUTE_ALL},
    {"matrices, micro-batches of two grains, random pauses", .micro_batch = 7, .delay_seed = 7,
     .streaming = TR_STREAMING_MATRICES, .smallest = 1, .recompute = TR_RECOMPUTE_ALL},
    {"blocks, smallest budget", .smallest = 1, .streaming = TR_STREAMING_BLOCKS},
    {"blocks, smallest budget, all kept", .smallest = 1, .streaming = TR_STREAMING_BLOCKS,
     .recompute = TR_RECOMPUTE_NONE},
    {"one thread", .threads = 1},
    {"one thread, smallest budget", .threads = 1, .smallest = 1},
    {"three threads", .threads = 3},
    {"micro-batches of one grain", .micro_batch = 1},
    {"micro-batches of two grains", .micro_batch = 7},
    {"all recomputed", .recompute = TR_RECOMPUTE_ALL},
    {"all kept", .recompute = TR_RECOMPUTE_NONE},
    {"micro-batches of one grain, all kept", .micro_batch = 1, .recompute = TR_RECOMPUTE_NONE},
    {"durability checkpoint", .durability = TR_KEEP_CHECKPOINT, .smallest = 1},
    {"durability none", .durability = TR_KEEP_NONE, .smallest = 1},
    {"random pauses, smallest budget", .delay_seed = 5, .smallest = 1},
    {"random pauses", .delay_seed = 6},
    {"interrupted and resumed", .interrupted = 1},
    {"interrupted and resumed, smallest budget", .interrupted = 1, .smallest = 1},
    {"nothing overlaps", .serial = 1, .smallest = 1},
    {"two folders", .folders = 2},
    {"three folders, smallest budget, interrupted", .folders = 3, .smallest = 1, .interrupted = 1},
    {"two folders, threads engine, durability none", .folders = 2, .smallest = 1,
     .io = TR_ENGINE_THREADS, .durability = TR_KEEP_NONE},
};

static void check(const struct tiny *shape, enum tr_type dtype, enum tr_optimizer optimizer)
{
    check_placements(&(struct placements){shape, dtype, optimizer, variants,
                                          sizeof(variants) / sizeof(variants[0]), .share = 2});
}

static void test_f32_sgd(void **state)
{
    (void)state;
    check(&shapes[0], TR_TYPE_F32, TR_OPT_SGD);
}

static void test_bf16_lomo(void **state)
{
    (void)state;
    check(&shapes[0], TR_TYPE_BF16, TR_OPT_LOMO);
}

static void test_bf16_adamw_tied(void **state)
{
    (void)state;
    check(&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW);
}

static void test_f16_lomo_qwen3(void **state)
{
    (void)state;
    check(&shapes[2], TR_TYPE_F16, TR_OPT_LOMO);
}

/* Bytes of all weights of a model folder, and of the largest tensor. */
static uint64_t weight_bytes(const char *folder, uint64_t *largest)
{
    struct tr_safetensors *s;
    uint64_t sum = 0;

    assert_int_equal(tr_safetensors_open_folder(&s, folder), 0);
    *largest = 0;
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        sum += s->tensors[i].bytes;
        *largest = s->tensors[i].bytes > *largest ? s->tensors[i].bytes : *largest;
    }
    tr_safetensors_close(s);
    return sum;
}

/* Two short steps of a large model; the paths live until the next call. */
static struct tr_train_params large_job(const struct tiny *shape)
{
    static char model[4352], data[4352];

    if (placements_are_few())
        skip();
    snprintf(model, sizeof(model), "%s", scratch_path("model-%d", shape->hidden));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%d.jsonl", shape->hidden));
    tiny_model(model, shape, TR_TYPE_F32, 3);
    token_data(data, 4, 20, 24, shape->vocab);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .steps = 2,
                                    .batch_size = 2,
                                    .seq_len = 24,
                                    .optimizer = TR_OPT_LOMO,
                                    .seed = 11,
                                    .lr = 0.1};
}

static void check_large(struct tr_train_params p, const struct variant *v, size_t n,
                        uint64_t budget)
{
    uint64_t expected = run_variant(p, &(struct variant){"everything resident"}, 2ull << 30);

    remove_run();
    for (size_t i = 0; i < n; i++) {
        if (run_variant(p, &v[i], budget) != expected)
            fail_msg("%s: other bits than with everything resident", v[i].name);
        remove_run();
    }
}

/* 64 layers with a budget of an eighth of the weights: slots, slices and prefetch depth matter. */
static void test_60m(void **state)
{
    static const struct tiny shape = {"llama", 256, 768, 64, 8, 4, 32, 8192, 512, ""};
    static const struct variant eighth[] = {
        {"an eighth", .interrupted = 0},
        {"an eighth, threads engine", .io = TR_ENGINE_THREADS},
        {"an eighth, prefetch 1, one thread", .prefetch = 1, .threads = 1},
        {"an eighth, random pauses", .delay_seed = 9},
    };
    struct tr_train_params p = large_job(&shape);
    uint64_t largest, bytes = weight_bytes(p.model, &largest);

    (void)state;
    assert_int_equal(bytes, 54558976 * 4);
    check_large(p, eighth, sizeof(eighth) / sizeof(eighth[0]), bytes / 8);
}

/* Matrices that the store keeps as two pieces each, which slots and devices have as one. */
static void test_pieces(void **state)
{
    static const struct tiny shape = {"llama", 1024, 64, 1, 34, 1, 128, 300, 512, ""};
    static const struct variant cut[] = {
        {"two pieces, blocks", .smallest = 1, .streaming = TR_STREAMING_BLOCKS},
        {"two pieces, matrices, threads engine", .smallest = 1, .io = TR_ENGINE_THREADS,
         .streaming = TR_STREAMING_MATRICES},
    };
    struct tr_train_params p = large_job(&shape);
    uint64_t largest;

    (void)state;
    weight_bytes(p.model, &largest);
    assert_true(largest > TR_PIECE_BYTES);
    check_large(p, cut, sizeof(cut) / sizeof(cut[0]), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32_sgd),
        cmocka_unit_test(test_bf16_lomo),
        cmocka_unit_test(test_bf16_adamw_tied),
        cmocka_unit_test(test_f16_lomo_qwen3),
        cmocka_unit_test(test_60m),
        cmocka_unit_test(test_pieces),
    };

    placements_options(argc, argv);
    return cmocka_run_group_tests_name("invariant 1", tests, NULL, NULL);
}
