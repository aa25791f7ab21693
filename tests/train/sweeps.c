/* SPDX-License-Identifier: Apache-2.0
 *
 * A table that comes in three slices is updated as one tensor. One step of plain SGD with a large
 * rate tells the gradient; one step of AdaLomo from the same start must then be what its formula in
 * double makes of the whole table, whether the second sweep makes the gradient again or has it
 * kept. The judgement is shown to see what a slice by slice update would be. (That slices leave the
 * bits of the ops alone is tests/kernelcheck/adalomo.c's to say.)
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"

#define VOCAB  700
#define HIDDEN 64
#define SLICE  256
#define LR     0.01

struct table {
    const float *w, *g;
    int64_t rows;
};

static double square(double x)
{
    return x * x;
}

/* The second moments' factors of the first step: r of rows, c of columns; the mean of r. */
static double moments(const struct table *t, double *r, double *c)
{
    double sum = 0;

    memset(c, 0, HIDDEN * sizeof(*c));
    for (int64_t i = 0; i < t->rows; i++) {
        r[i] = 1e-30;
        for (int64_t j = 0; j < HIDDEN; j++) {
            r[i] += square(t->g[i * HIDDEN + j]) / HIDDEN;
            c[j] += square(t->g[i * HIDDEN + j]) / (double)t->rows;
        }
        sum += r[i];
    }
    return sum / (double)t->rows;
}

/* change[i] = what the first step adds to w[i]. */
static void first_step(const struct table *t, double *change)
{
    double r[VOCAB], c[HIDDEN], mean = moments(t, r, c), u2 = 0, w2 = 0, rate;
    int64_t n = t->rows * HIDDEN;

    for (int64_t i = 0; i < n; i++) {
        change[i] = t->g[i] / sqrt(r[i / HIDDEN] / mean) / sqrt(c[i % HIDDEN]);
        u2 += square(change[i]);
        w2 += square(t->w[i]);
    }
    rate = LR * fmax(1e-3, sqrt(w2 / (double)n)) / fmax(1, sqrt(u2 / (double)n));
    for (int64_t i = 0; i < n; i++)
        change[i] *= -rate;
}

static void slice_by_slice(const struct table *t, double *change)
{
    for (int64_t row = 0; row < t->rows; row += SLICE) {
        struct table part = {t->w + row * HIDDEN, t->g + row * HIDDEN, t->rows - row};

        part.rows = part.rows < SLICE ? part.rows : SLICE;
        first_step(&part, change + row * HIDDEN);
    }
}

static struct tr_train_params params(enum tr_optimizer optimizer, double lr)
{
    static char model[4352], data[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .steps = 1,
                                    .batch_size = 13,
                                    .seq_len = 128,
                                    .optimizer = optimizer,
                                    .schedule = TR_LR_CONSTANT,
                                    .warmup = -1,
                                    .lr = lr,
                                    .threads = 2,
                                    .durability = TR_KEEP_NONE};
}

/* A tensor after one step. */
static float *stepped(struct tr_train_params p, int smallest, const char *tensor)
{
    char out[4352];
    float *x;
    size_t n;

    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    p.device_memory = smallest ? smallest_budget(p) : test_budget(NULL, 256 << 20);
    p.out = out;
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    x = read_tensor(scratch_path("run/model"), tensor, &n);
    assert_int_equal(n, VOCAB * HIDDEN);
    assert_int_equal(tr_remove_tree(out), 0);
    return x;
}

/* |got - want| / |want| of the change. */
static double distance(const struct table *t, const float *after, const double *change)
{
    double off = 0, all = 0;

    for (int64_t i = 0; i < t->rows * HIDDEN; i++) {
        off += square((double)after[i] - t->w[i] - change[i]);
        all += square(change[i]);
    }
    return sqrt(off / all);
}

static void check_table(const char *tensor, int smallest)
{
    static double whole[VOCAB * HIDDEN], sliced[VOCAB * HIDDEN];
    const double large = 1e4;
    size_t n;
    float *w = read_tensor(scratch_path("model"), tensor, &n);
    float *g = stepped(params(TR_OPT_SGD, large), smallest, tensor);
    float *after = stepped(params(TR_OPT_ADALOMO, LR), smallest, tensor);
    struct table t = {w, g, VOCAB};

    for (size_t i = 0; i < n; i++)
        g[i] = (float)(((double)w[i] - (double)g[i]) / large);
    first_step(&t, whole);
    slice_by_slice(&t, sliced);
    print_message("%s, %s: %.1e from the whole table's, %.1e from its slices'\n", tensor,
                  smallest ? "made again" : "kept", distance(&t, after, whole),
                  distance(&t, after, sliced));
    assert_true(distance(&t, after, whole) < 2e-5);
    assert_true(distance(&t, after, sliced) > 1e-2);
    free(w);
    free(g);
    free(after);
}

static void make_model(const char *family)
{
    struct tiny t = {family, HIDDEN, 96, 2, 4, 2, 16, VOCAB, 512, ""};

    tiny_model(scratch_path("model"), &t, TR_TYPE_F32, 4);
    token_data(scratch_path("data.jsonl"), 20, 60, 128, VOCAB);
}

static void remove_model(void)
{
    assert_int_equal(tr_remove_tree(scratch_path("model")), 0);
}

static void test_untied(void **state)
{
    (void)state;
    make_model("llama");
    for (int smallest = 0; smallest < 2; smallest++) {
        check_table("lm_head.weight", smallest);
        check_table("model.embed_tokens.weight", smallest);
    }
    remove_model();
}

static void test_tied(void **state)
{
    (void)state;
    make_model("llama-tied");
    for (int smallest = 0; smallest < 2; smallest++)
        check_table("model.embed_tokens.weight", smallest);
    remove_model();
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_untied), cmocka_unit_test(test_tied)};

    return cmocka_run_group_tests_name("tables in sweeps", tests, NULL, NULL);
}
