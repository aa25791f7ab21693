/* SPDX-License-Identifier: Apache-2.0
 *
 * Updates on the cpu beside a GPU (src/apart.h), on the fake runtime, which delays every stream at
 * random: every optimizer and every way to clip gives the bytes of updates on the device
 * (invariant 1), whole blocks and matrices, from the disk and beside it, interrupted and resumed;
 * and the peaks are within their budgets (invariant 6).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

#define LITTLE (24u << 20) /* host memory for the data, small staging buffers, few slots of state */

static const struct tiny shapes[] = {
    {"llama", 32, 48, 3, 2, 1, 16, 300, 512, ""},
    {"llama-tied", 32, 48, 2, 2, 1, 16, 200, 512, ""},
    {"qwen3", 32, 48, 2, 2, 1, 16, 200, 512, ""},
    {"llama", 16, 32, 2, 1, 1, 16, 4500, 512, ""}, /* two table slices */
};

struct job {
    const struct tiny *shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer;
    double clip, momentum;
    enum tr_clip method;
    enum tr_type state_dtype, parked_dtype;
    const char *freeze;
};

struct way {
    int smallest, interrupted;
    enum tr_streaming streaming;
    int micro_batch;
    uint64_t host_memory;
};

static const struct way ways[] = {
    {.host_memory = LITTLE},
    {.smallest = 1, .host_memory = LITTLE},
    {.smallest = 1, .host_memory = LITTLE, .streaming = TR_STREAMING_MATRICES, .micro_batch = 1},
    {.smallest = 1, .interrupted = 1, .micro_batch = 1},
};

static double rate(enum tr_optimizer o)
{
    int adam = o == TR_OPT_ADAMW || o == TR_OPT_ADAM_MINI;

    return adam ? 1e-3 : o == TR_OPT_ADALOMO ? 1e-2 : 0.05;
}

static uint64_t train_so(struct tr_train_params p, const struct way *w, enum tr_update_on on)
{
    struct tr_step_report last;
    uint64_t hash;
    int r = 0;

    p.update_on = on;
    p.streaming = w->streaming;
    p.micro_batch = w->micro_batch;
    p.host_memory = w->host_memory;
    p.device_memory = w->smallest ? smallest_budget(p) : test_budget(NULL, 1ull << 30);
    if (w->interrupted)
        r = train_part(&p, 2);
    if (r == 0)
        r = train(&p, &last);
    if (r < 0)
        fail_msg("%s", tr_message());
    assert_true(last.device_peak_bytes <= p.device_memory);
    assert_true(!w->host_memory || last.host_peak_bytes <= w->host_memory);
    hash = file_hash(scratch_path("run/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    return hash;
}

static void check(const struct job *j)
{
    char model[4352], data[4352], out[4352];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = out,
                                .steps = 3,
                                .batch_size = 13,
                                .seq_len = 180,
                                .optimizer = j->optimizer,
                                .lr = rate(j->optimizer),
                                .momentum = j->momentum,
                                .clip_norm = j->clip,
                                .clip_method = j->method,
                                .state_dtype = j->state_dtype,
                                .parked_dtype = j->parked_dtype,
                                .freeze = j->freeze,
                                .weight_decay = 0.01,
                                .threads = 2,
                                .seed = 11};
    uint64_t expected;

    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    tiny_model(model, j->shape, j->dtype, 3);
    token_data(data, 40, 30, 180, j->shape->vocab);
    expected = train_so(p, &ways[0], TR_UPDATE_DEVICE);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        if (train_so(p, &ways[i], TR_UPDATE_CPU) != expected)
            fail_msg("way %zu: other bits than on the device", i);
    p.seed = 12; /* the comparison sees a difference where there is one */
    assert_true(train_so(p, &ways[0], TR_UPDATE_CPU) != expected);
    remove(data);
    tr_remove_tree(model);
}

static void test_adamw(void **state)
{
    (void)state;
    check(&(struct job){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, -1});
}

static void test_lomo(void **state)
{
    (void)state;
    check(&(struct job){&shapes[3], TR_TYPE_F32, TR_OPT_LOMO, -1});
}

static void test_two_pass(void **state)
{
    (void)state;
    check(&(struct job){&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW, 1, .method = TR_CLIP_TWO_PASS,
                        .state_dtype = TR_TYPE_BF16});
}

static void test_deferred(void **state)
{
    (void)state;
    check(&(struct job){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAM_MINI, 1, .method = TR_CLIP_DEFERRED});
}

static void test_deferred_bf16(void **state)
{
    (void)state;
    check(&(struct job){&shapes[1], TR_TYPE_F32, TR_OPT_ADALOMO, 1, .method = TR_CLIP_DEFERRED,
                        .parked_dtype = TR_TYPE_BF16});
}

static void test_group(void **state)
{
    (void)state;
    check(&(struct job){&shapes[0], TR_TYPE_F32, TR_OPT_ADAMW, 0.1,
                        .method = (enum tr_clip)(TR_CLIP_GROUP + 2)});
}

static void test_adalomo(void **state)
{
    (void)state;
    check(&(struct job){&shapes[3], TR_TYPE_BF16, TR_OPT_ADALOMO, -1});
}

static void test_adalomo_tied(void **state)
{
    (void)state;
    check(&(struct job){&shapes[1], TR_TYPE_F32, TR_OPT_ADALOMO, -1});
}

static void test_f16(void **state)
{
    (void)state;
    check(&(struct job){&shapes[2], TR_TYPE_F16, TR_OPT_ADAM_MINI, 1, .method = TR_CLIP_TWO_PASS});
}

static void test_frozen(void **state)
{
    (void)state;
    check(&(struct job){&shapes[2], TR_TYPE_BF16, TR_OPT_SGD, -1, .momentum = 0.9,
                        .freeze = "*embed*,*.0.self_attn*,*.1.*norm*"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),    cmocka_unit_test(test_lomo),
        cmocka_unit_test(test_two_pass), cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_group),    cmocka_unit_test(test_deferred_bf16),
        cmocka_unit_test(test_adalomo),  cmocka_unit_test(test_adalomo_tied),
        cmocka_unit_test(test_f16),      cmocka_unit_test(test_frozen),
    };

    if (getenv("FILTER"))
        cmocka_set_test_filter(getenv("FILTER"));
    if (!test_budget(NULL, 0)) {
        puts("skipped: no GPU, nor a fake one");
        return 77;
    }
    return cmocka_run_group_tests_name("updates apart", tests, NULL, NULL);
}
