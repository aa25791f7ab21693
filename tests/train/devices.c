/* SPDX-License-Identifier: Apache-2.0
 *
 * The cuda device against the cpu device, by training: the same model, data and options on both.
 *
 * f32 on both sides differs only by the order of sums, so losses and norms of twenty steps stay
 * within 1e-4 of each other. With bf16 and f16 storage the cuda device computes in that type, the
 * cpu device in f32. At the first step, with equal weights, every activation is then off by up to
 * half an ulp, 2^-9 or 2^-12 of it, and loss and norm by no more. Later the weights themselves
 * round apart; there the measure is the path of the same model in f32: the cuda device may be three
 * times as far from it as the cpu device is, whose only error is the storage (the rule by which
 * tests/parity compares with PyTorch). In f16, whose storage is so fine that the rounding of the
 * gradients themselves is the larger part of what a norm is off by, losses alone are judged so. A
 * learning rate that is off by a fifth must be seen, in every type.
 *
 * Runs on whatever TAILRACE_CUDA_MODULE names: the fake runtime in the suite, a GPU elsewhere.
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

#define STEPS 20

static const struct tiny shapes[] = {
    {"llama", 64, 96, 2, 4, 2, 16, 300, 512, ""},
    {"qwen3", 48, 80, 2, 4, 2, 24, 200, 512, ""},
    {"mistral", 64, 96, 2, 4, 1, 16, 200, 512, "\"sliding_window\": 40"},
};

#define MUTANT_SHAPE (&shapes[0])

struct path {
    double loss[STEPS], norm[STEPS];
};

static struct path follow(const struct tr_train_params *params, const char *device)
{
    struct tr_train_params p = *params;
    struct tr_step_report report;
    struct path path;
    tr_run *run;
    int r;

    p.device = device;
    p.device_memory = test_budget(device, 256 << 20);
    p.out = scratch_path("run-%s", device);
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s: %s", device, tr_message());
    while ((r = tr_train_step(run, &report)) == 1) {
        path.loss[report.step - 1] = report.loss;
        path.norm[report.step - 1] = report.grad_norm;
        assert_true(report.device_peak_bytes <= p.device_memory);
    }
    if (r < 0 || tr_train_finish(run) < 0)
        fail_msg("%s: %s", device, tr_message());
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(p.out), 0);
    return path;
}

enum what { LOSSES, NORMS_TOO };

/* Of which NaN is worst of all. */
static double worse(double a, double b)
{
    return isnan(a) || a >= b ? a : b;
}

/* The largest relative difference of the first `steps` steps of two paths. */
static double apart(const struct path *a, const struct path *b, int steps, enum what what)
{
    double worst = 0;

    for (int i = 0; i < steps; i++) {
        double loss = fabs(a->loss[i] / b->loss[i] - 1), norm = fabs(a->norm[i] / b->norm[i] - 1);

        worst = worse(worst, loss);
        if (what == NORMS_TOO)
            worst = worse(worst, norm);
    }
    return worst;
}

struct paths {
    struct path cpu, cpu_f32, cuda;
    struct path other; /* with a learning rate that is off by a fifth; of MUTANT_SHAPE */
};

static struct paths follow_all(const struct tiny *t, enum tr_type dtype)
{
    char model[4352], data[4352];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .steps = STEPS,
                                .batch_size = 6,
                                .seq_len = 64,
                                .optimizer = TR_OPT_LOMO,
                                .lr = 0.3,
                                .dtype = dtype,
                                .rounding = TR_ROUNDING_NEAREST,
                                .threads = 1,
                                .durability = TR_KEEP_NONE,
                                .export_model = TR_NO};
    struct paths paths = {0};

    snprintf(model, sizeof(model), "%s", scratch_path("model-%s", t->family));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%s.jsonl", t->family));
    tiny_model(model, t, dtype, 3);
    token_data(data, 12, 20, 64, t->vocab);
    paths.cpu = follow(&p, "cpu");
    paths.cuda = follow(&p, "cuda");
    if (t == MUTANT_SHAPE) {
        p.lr *= 1.2;
        paths.other = follow(&p, "cuda");
        p.lr /= 1.2;
    }
    if (dtype != TR_TYPE_F32) {
        p.dtype = TR_TYPE_F32;
        paths.cpu_f32 = follow(&p, "cpu");
    }
    assert_int_equal(tr_remove_tree(model), 0);
    return paths;
}

static void compare(const struct tiny *t, enum tr_type dtype, double first)
{
    struct paths p = follow_all(t, dtype);
    const struct path *truth = dtype == TR_TYPE_F32 ? &p.cpu : &p.cpu_f32;
    enum what what = dtype == TR_TYPE_F16 ? LOSSES : NORMS_TOO;
    double cuda = apart(truth, &p.cuda, STEPS, what);
    double allowed = dtype == TR_TYPE_F32 ? 1e-4 : 3 * apart(truth, &p.cpu, STEPS, what);

    print_message("%s, type %d: %g apart at the first step (of %g), %g over all (of %g)\n",
                  t->family, dtype, apart(&p.cpu, &p.cuda, 1, NORMS_TOO), first, cuda, allowed);
    assert_true(p.cpu.loss[STEPS - 1] < p.cpu.loss[0] - 0.1);
    if (!(apart(&p.cpu, &p.cuda, 1, NORMS_TOO) <= first) || !(cuda <= allowed))
        fail_msg("%s: the devices are too far apart", t->family);
    if (t == MUTANT_SHAPE)
        assert_true(apart(truth, &p.other, STEPS, what) > allowed &&
                    apart(&p.cpu, &p.other, 2, NORMS_TOO) > first);
}

static void test_f32(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        compare(&shapes[i], TR_TYPE_F32, 1e-6);
}

static void test_bf16(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        compare(&shapes[i], TR_TYPE_BF16, 1.0 / 512);
}

static void test_f16(void **state)
{
    (void)state;
    compare(&shapes[0], TR_TYPE_F16, 1.0 / 4096);
}

static void count_notices(void *arg, const char *line)
{
    *(int *)arg += strstr(line, "another algorithm") != NULL;
}

/* One changed digit of a recorded choice; the file keeps its length. */
static void change_choice(const char *path)
{
    FILE *f = fopen(path, "r+");
    char line[512], *digit;

    assert_non_null(f);
    assert_non_null(fgets(line, sizeof(line), f));
    digit = strstr(line, "algorithm ");
    assert_non_null(digit);
    fseek(f, digit - line + (long)strlen("algorithm "), SEEK_SET);
    fputc(digit[strlen("algorithm ")] == '7' ? '8' : '7', f);
    fclose(f);
}

/* A run that goes on says where the library chooses otherwise than before, and only then. */
static void test_choices(void **state)
{
    char model[4352], data[4352], out[4352];
    int n_notices = 0;
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = out,
                                .device = "cuda",
                                .steps = 3,
                                .batch_size = 4,
                                .seq_len = 64,
                                .device_memory = test_budget("cuda", 256 << 20),
                                .export_model = TR_NO,
                                .log = count_notices,
                                .log_arg = &n_notices};

    (void)state;
    snprintf(model, sizeof(model), "%s", scratch_path("model-choices"));
    snprintf(data, sizeof(data), "%s", scratch_path("data-choices.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run-choices"));
    tiny_model(model, &shapes[0], TR_TYPE_BF16, 3);
    token_data(data, 12, 64, 64, shapes[0].vocab); /* every step has the same shapes */
    assert_int_equal(train_part(&p, 1), 0);
    assert_int_equal(train_part(&p, 1), 0);
    assert_int_equal(n_notices, 0);
    change_choice(scratch_path("run-choices/matmuls.txt"));
    assert_int_equal(train_part(&p, 1), 0);
    assert_int_equal(n_notices, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_choices),
    };
    const char *module = getenv("TAILRACE_CUDA_MODULE");

    if (!module || !*module) {
        puts("skipped: no CUDA module is named");
        return 77;
    }
    return cmocka_run_group_tests_name("devices", tests, NULL, NULL);
}
