/* SPDX-License-Identifier: Apache-2.0
 *
 * Block inputs, and activations that blocks keep, that leave the device. The same training is run
 * with all of them in place, and with budgets so small that two or three slots must do for them: on
 * the cpu device they go to the scratch file, on the cuda device to pinned host memory, and where
 * that is small, to both. The exported bytes are the same (invariant 1), budgets hold (invariant
 * 6), what leaves the device is what the slots have no room for, once a step and to the byte, and
 * nothing of it is left behind.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

static const struct tiny shapes[] = {
    {"llama", 1024, 48, 6, 2, 1, 16, 300, 512, ""},
    {"llama-tied", 1024, 48, 5, 2, 1, 16, 300, 512, ""},
};

/* Of host memory, on the fake device: data and tables, some staging buffers, room for two or three
 * block inputs of half that width, since all takes long there. */
#define LITTLE (23ull << 19)

struct way {
    const char *name;
    uint32_t room;   /* slots for block inputs beside those that the smallest budget has */
    int little_host; /* pinned memory for some of them only */
    struct tr_train_params with; /* what else is different: only its zeros are defaults */
};

static const struct way ways[] = {
    {"one slot, or two", 0, 0, {0}},
    {"all kept, little host memory", 0, 1, {.recompute = TR_RECOMPUTE_NONE}},
    {"threads engine, little host memory", 0, 1, {.io = TR_ENGINE_THREADS}},
    {"one more", 1, 0, {0}},
    {"pauses, little host memory", 0, 1, {.delay_seed = 4}},
    {"one more, one load ahead", 1, 1, {.prefetch = 1}},
    {"nothing overlaps", 0, 1, {.serial = 1}},
    {"small micro-batches, all kept", 0, 0, {.micro_batch = 1, .recompute = TR_RECOMPUTE_NONE}},
    {"durability none", 0, 1, {.durability = TR_KEEP_NONE}},
};

static int take_all; /* "--all" */

static const char *device(void)
{
    return getenv("TAILRACE_CUDA_MODULE") ? "cuda" : "cpu";
}

/* On the fake device attention takes the longest, and goes with the square of a row. */
static int row(void)
{
    return strcmp(device(), "cuda") ? 130 : 65;
}

static struct tr_train_params add(struct tr_train_params p, const struct tr_train_params *with)
{
    p.io = with->io;
    p.delay_seed = with->delay_seed;
    p.prefetch = with->prefetch;
    p.serial = with->serial;
    p.micro_batch = with->micro_batch;
    p.recompute = with->recompute;
    p.durability = with->durability;
    return p;
}

static uint64_t boundary_bytes(const struct tiny *t, const struct tr_train_params *p)
{
    uint64_t bytes = (uint64_t)(p->batch_size * p->seq_len * t->hidden) * 2;

    return (bytes + 4095) / 4096 * 4096;
}

/* The store's files, and no scratch file. */
static int count_files(const char *folder)
{
    static const char *const names[] = {"gen0", "gen1", "commit0", "commit1", "store.json"};
    int n = 0;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        n += tr_folder_has(folder, names[i]);
    return n - tr_folder_has(folder, "scratch") * 100;
}

/* What a step has to save of so many, by the plan alone: what has no slot at the turn, and with two
 * backward passes, one more that makes way for the others until the second; where a tied head reads
 * the last block input again at the end, that too if there is but one slot. */
static uint64_t expected_of(const struct tr_run *run, enum tr_slots pool, uint32_t all)
{
    uint32_t slots = run->plan.slots[pool];
    uint32_t twice = slots < all && run->plan.in.norm && !run->plan.parked;

    if (slots == 1 && pool == TR_SLOTS_BOUNDARY)
        twice |= run->model->config.tied;
    return (all - slots + twice) * run->plan.slot_bytes[pool];
}

static uint64_t expected_spill(const struct tr_run *run)
{
    return expected_of(run, TR_SLOTS_BOUNDARY, tr_plan_boundaries(&run->plan)) +
           expected_of(run, TR_SLOTS_FRAME, (uint32_t)run->plan.keep);
}

static void check_run(const struct tr_run *run, const struct tr_step_report *last,
                      const struct way *way)
{
    uint64_t each = run->plan.slot_bytes[TR_SLOTS_BOUNDARY], spill = expected_spill(run);
    int cuda = !strcmp(device(), "cuda");

    assert_int_equal(last->spilled_bytes, spill);
    assert_int_equal(run->spill_bytes + run->spill_host_bytes, spill);
    assert_true(last->device_peak_bytes <= run->params.device_memory);
    assert_true(tr_offload_host_bytes(run->offload) <= run->params.host_memory);
    assert_true(isfinite(last->eval_loss));
    if (!way) {
        assert_int_equal(spill, 0);
        return;
    }
    assert_true(spill >= 2 * each);
    if (way->with.recompute == TR_RECOMPUTE_NONE) /* and these for the most part */
        assert_true(run->plan.keep == run->model->config.layers &&
                    2 * run->plan.slots[TR_SLOTS_FRAME] <= (uint32_t)run->plan.keep);
    if (!way->room) /* a block that is visited as a whole reads one and makes one */
        assert_int_equal(run->plan.slots[TR_SLOTS_BOUNDARY], run->plan.by_parts ? 1 : 2);
    if (!cuda)
        assert_int_equal(run->spill_host_bytes, 0);
    else if (!way->little_host)
        assert_int_equal(run->spill_host_bytes, spill);
    else if (!way->with.durability) /* else host memory is worth more to parameters */
        assert_true(run->spill_host_bytes >= each && run->spill_bytes >= each);
}

/* Hash of the exported model. */
static uint64_t run_way(struct tr_train_params p, const struct tiny *t, const struct way *way)
{
    struct tr_step_report last;
    uint64_t each = boundary_bytes(t, &p), hash;
    tr_run *run;
    int r;

    if (way) {
        p = add(p, &way->with);
        p.device_memory = smallest_budget(p) + way->room * each;
        if (way->little_host && !strcmp(device(), "cuda"))
            p.host_memory = LITTLE;
    }
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s: %s", way ? way->name : "resident", tr_message());
    while ((r = tr_train_step(run, &last)) == 1)
        check_run(run, &last, way);
    if (r < 0 || tr_train_finish(run) < 0)
        fail_msg("%s: %s", way ? way->name : "resident", tr_message());
    tr_train_close(run);
    assert_true(count_files(scratch_path("run/store")) >= 4);
    hash = file_hash(scratch_path("run/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    return hash;
}

static void check(const struct tiny *shape, enum tr_optimizer optimizer, size_t n_ways)
{
    struct tiny narrow = *shape, *t = &narrow;
    char model[4352], data[4352], valid[4352], out[4352];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .valid = valid,
                                .out = out,
                                .device = device(),
                                .steps = 2,
                                .batch_size = 650 / row(),
                                .seq_len = row(),
                                .eval_every = 1,
                                .optimizer = optimizer,
                                .clip_method =
                                    optimizer == TR_OPT_LOMO ? TR_CLIP_TWO_PASS : TR_CLIP_AUTO,
                                .seed = 11,
                                .lr = optimizer == TR_OPT_ADAMW ? 1e-3 : 0.1,
                                .threads = 2,
                                .device_memory = test_budget(device(), 1ull << 30)};
    uint64_t expected;

    if (!strcmp(device(), "cuda"))
        narrow.hidden /= 2;
    snprintf(model, sizeof(model), "%s", scratch_path("model-%s-%d", t->family, optimizer));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(valid, sizeof(valid), "%s", scratch_path("valid.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    tiny_model(model, t, TR_TYPE_BF16, 3);
    token_data(data, 1300 / row(), row() - 10, row(), t->vocab);
    token_data(valid, 390 / row(), row() - 10, row(), t->vocab);
    expected = run_way(p, t, NULL);
    for (size_t i = 0; i < n_ways; i++)
        if (run_way(p, t, &ways[i]) != expected)
            fail_msg("%s: other bits than with everything resident", ways[i].name);
    assert_int_equal(tr_remove_tree(model), 0);
}

/* On the fake device, which takes long, so few of n. */
static size_t some_of(size_t n, size_t few)
{
    return take_all || strcmp(device(), "cuda") ? n : few;
}

static void test_one_backward(void **state)
{
    (void)state;
    check(&shapes[0], TR_OPT_SGD, some_of(sizeof(ways) / sizeof(ways[0]), 5));
}

/* The norm is measured first, so that what has been saved is read twice. */
static void test_two_backwards(void **state)
{
    (void)state;
    check(&shapes[0], TR_OPT_LOMO, some_of(5, 2));
}

/* The last hidden states are needed again at the very end. */
static void test_tied(void **state)
{
    (void)state;
    check(&shapes[1], TR_OPT_SGD, some_of(3, 1));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_backward),
        cmocka_unit_test(test_two_backwards),
        cmocka_unit_test(test_tied),
    };

    take_all = argc > 1 && !strcmp(argv[1], "--all");
    return cmocka_run_group_tests_name("block inputs that leave the device", tests, NULL, NULL);
}
