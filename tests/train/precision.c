/* SPDX-License-Identifier: Apache-2.0
 *
 * What becomes of updates that are smaller than half a unit of a bf16 weight. With a master they
 * are those of f32 training whose passes see bf16 weights, bit for bit. The realised share,
 * <dW_real, dW_wanted> / |dW_wanted|^2, says what rounding makes of them: one in the mean where it
 * is stochastic, far less to nearest.
 *
 * With arguments it measures the share over a training in each way: options of `train`, as
 * model=DIR data=FILE optimizer=lomo lr=1 steps=100.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/options/options.h"
#include "tests/train/common.h"
#include "tests/train/spy.h"

static const struct tiny shape = {"llama-tied", 64, 96, 2, 4, 2, 16, 700, 512, ""};

static void make_inputs(void)
{
    tr_remove_tree(scratch_path("model"));
    tiny_model(scratch_path("model"), &shape, TR_TYPE_BF16, 3);
    token_data(scratch_path("data.jsonl"), 60, 30, 96, shape.vocab);
}

/* All of a run in SCRATCH/run, looked at; *s is open after it. */
static int spied(struct spy *s, struct tr_train_params p, enum spy_task task, int forget)
{
    struct tr_step_report report;
    char out[4352];
    tr_run *run;
    int r;

    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    tr_remove_tree(out);
    p.out = out;
    p.device = "cpu";
    if (p.dtype == TR_TYPE_SOURCE)
        p.dtype = TR_TYPE_BF16;
    p.export_model = TR_NO;
    p.durability = TR_KEEP_NONE;
    if ((r = tr_train_open(&run, &p)) < 0)
        return r;
    spy_open(s, run, task, (uint64_t)run->steps);
    s->forget = forget;
    while ((r = tr_train_step(run, &report)) == 1)
        s->loss = report.loss;
    if (r == 0)
        r = tr_train_finish(run);
    run->pass.device = run->device;
    tr_train_close(run);
    return r;
}

static struct tr_train_params job(enum tr_optimizer optimizer, double lr)
{
    static char model[4352], data[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .steps = 20,
                                    .batch_size = 3,
                                    .seq_len = 96,
                                    .seed = 5,
                                    .threads = 2,
                                    .lr = lr,
                                    .optimizer = optimizer};
}

static int64_t count_wrong(struct tr_train_params p, enum tr_master_choice master, int forget)
{
    struct spy s;
    int64_t wrong, steps = p.dtype == TR_TYPE_F16 ? 10 : 20; /* some overflow at first */

    p.master = master;
    if (spied(&s, p, SPY_TWINS, forget) < 0)
        fail_msg("%s", tr_message());
    assert_true(s.compared >= steps * 50000);
    wrong = s.wrong;
    spy_close(&s);
    return wrong;
}

static void test_twins(void **state)
{
    static const enum tr_optimizer optimizers[] = {TR_OPT_LOMO, TR_OPT_SGD, TR_OPT_ADALOMO,
                                                   TR_OPT_ADAM_MINI, TR_OPT_ADAMW};

    (void)state;
    make_inputs();
    for (size_t i = 0; i < sizeof(optimizers) / sizeof(optimizers[0]); i++)
        for (enum tr_master_choice m = TR_MASTERS_SPLIT; m <= TR_MASTERS_F32; m++) {
            struct tr_train_params p = job(optimizers[i], 0.003);

            p.momentum = optimizers[i] == TR_OPT_SGD ? 0.9 : 0;
            p.weight_decay = 0.1;
            assert_int_equal(count_wrong(p, m, 0), 0);
            if (i % 2 == 0) /* what a master keeps is looked at */
                assert_true(count_wrong(p, m, 1) > 0);
        }
    for (size_t i = 0; i < 3; i += 2) { /* f16, its norm known before the update */
        struct tr_train_params p = job(optimizers[i], 0.003);

        p.dtype = TR_TYPE_F16;
        assert_int_equal(count_wrong(p, TR_MASTERS_F32, 0), 0);
    }
}

static struct spy_means {
    double stored, seen, error, loss; /* loss: of the last step */
} means(struct tr_train_params p, int forget)
{
    struct spy_means m;
    struct spy s;

    if (spied(&s, p, SPY_SHARES, forget) < 0)
        fail_msg("%s", tr_message());
    m.stored = spy_mean(&s, 0);
    m.seen = spy_mean(&s, 1);
    m.error = spy_error(&s);
    m.loss = s.loss;
    spy_close(&s);
    return m;
}

/* Within five standard errors of what chance makes of one. */
static int is_unbiased(double share, double error)
{
    return fabs(share - 1) <= 5 * error;
}

static void test_shares(void **state)
{
    static const enum tr_optimizer optimizers[] = {TR_OPT_LOMO, TR_OPT_ADAMW};
    static const double rates[] = {0.01, 1e-5};

    (void)state;
    make_inputs();
    for (int i = 0; i < 2; i++) {
        struct tr_train_params p = job(optimizers[i], rates[i]);
        double nearest, split, forgotten;
        struct spy_means stochastic;

        p.rounding = TR_ROUNDING_NEAREST;
        nearest = means(p, 0).stored;
        p.rounding = TR_ROUNDING_STOCHASTIC;
        stochastic = means(p, 0);
        p.rounding = TR_ROUNDING_AUTO;
        p.master = TR_MASTERS_SPLIT;
        split = means(p, 0).stored;
        forgotten = means(p, 1).stored;
        printf("nearest %.4f, stochastic %.4f +- %.4f, split %.4f, forgotten remainders %.4f\n",
               nearest, stochastic.stored, stochastic.error, split, forgotten);
        assert_true(is_unbiased(stochastic.stored, stochastic.error));
        assert_true(stochastic.error < 0.05);
        assert_true(split == 1);
        assert_true(!is_unbiased(nearest, stochastic.error) && nearest < 0.8);
        assert_true(!is_unbiased(forgotten, stochastic.error) && forgotten < 0.8);
    }
}

static int measure(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum tr_rounding_choice rounding;
        enum tr_master_choice master;
    } ways[] = {{"nearest", TR_ROUNDING_NEAREST, TR_MASTERS_NONE},
                {"stochastic", TR_ROUNDING_STOCHASTIC, TR_MASTERS_NONE},
                {"split master", TR_ROUNDING_NEAREST, TR_MASTERS_SPLIT},
                {"f32 master", TR_ROUNDING_NEAREST, TR_MASTERS_F32}};
    struct tr_train_params p = {0};

    for (int i = 1; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        const struct tr_option *o;

        if (value)
            *value++ = 0;
        o = tr_option_find(tr_train_options, argv[i]);
        if (!value || !o || tr_option_set(tr_train_options, o, &p, value) < 0) {
            fprintf(stderr, "%s: no option of train, or not its value\n", argv[i]);
            return 2;
        }
    }
    printf("realised share       stored      seen  loss\n");
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        struct spy_means m;

        p.rounding = ways[i].rounding;
        p.master = ways[i].master;
        m = means(p, 0);
        printf("%-16s %10.4f %9.4f  %.4f\n", ways[i].name, m.stored, m.seen, m.loss);
    }
    tr_options_free(&p);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twins),
        cmocka_unit_test(test_shares),
    };

    if (argc > 1)
        return measure(argc, argv);
    return cmocka_run_group_tests_name("precision", tests, NULL, NULL);
}
