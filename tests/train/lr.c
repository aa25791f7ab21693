/* SPDX-License-Identifier: Apache-2.0
 *
 * The rate of each step, by numbers worked out by hand from the formulas (linear and constant are
 * LOMO's trainer's), and the default peaks at the ends of their range and in its middle.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "src/train/lr.h"

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 + 1e-9 * fabs(want)))
        fail_msg("%.15g, not %.15g", got, want);
}

/* Of 100 steps, the peak 2, a tenth of warm-up; as a share and as a number of steps. */
static void schedules(void **state)
{
    static const struct {
        enum tr_lr_schedule schedule;
        int64_t step;
        double want;
    } cases[] = {
        {TR_LR_LINEAR, 1, 0.2},   {TR_LR_LINEAR, 5, 1},     {TR_LR_LINEAR, 10, 2},
        {TR_LR_LINEAR, 55, 1},    {TR_LR_LINEAR, 91, 0.2},  {TR_LR_LINEAR, 100, 0},
        {TR_LR_COSINE, 1, 0.2},   {TR_LR_COSINE, 10, 2},    {TR_LR_COSINE, 40, 1.5},
        {TR_LR_COSINE, 55, 1},    {TR_LR_COSINE, 70, 0.5},  {TR_LR_COSINE, 100, 0},
        {TR_LR_CONSTANT, 1, 0.2}, {TR_LR_CONSTANT, 9, 1.8}, {TR_LR_CONSTANT, 10, 2},
        {TR_LR_CONSTANT, 100, 2},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        near(tr_lr_at(cases[i].schedule, 2, 0.1, cases[i].step, 100), cases[i].want);
        near(tr_lr_at(cases[i].schedule, 2, 10, cases[i].step, 100), cases[i].want);
    }
    near(tr_lr_at(TR_LR_LINEAR, 2, 0, 1, 100), 1.98); /* without warm-up it falls from the start */
    near(tr_lr_at(TR_LR_COSINE, 2, 0, 50, 100), 1);
    near(tr_lr_at(TR_LR_LINEAR, 2, 0.1, 1, 1), 2 * 0.5 / 0.9); /* one step counts as of two */
}

static void defaults(void **state)
{
    static const struct {
        enum tr_optimizer optimizer;
        double small, large;
    } cases[] = {{TR_OPT_LOMO, 1, 0.03},
                 {TR_OPT_SGD, 1, 0.03},
                 {TR_OPT_ADALOMO, 3e-2, 1e-3},
                 {TR_OPT_ADAMW, 1e-3, 1e-5},
                 {TR_OPT_ADAM_MINI, 1e-3, 1e-5}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum tr_optimizer o = cases[i].optimizer;

        near(tr_lr_default(o, 10000000), cases[i].small);
        near(tr_lr_default(o, 1000), cases[i].small);
        near(tr_lr_default(o, 6700000000), cases[i].large);
        near(tr_lr_default(o, 400000000000), cases[i].large);
        /* Half way by the logarithm: the geometric mean. */
        near(tr_lr_default(o, (uint64_t)sqrt(1e7 * 6.7e9)),
             sqrt(cases[i].small * cases[i].large) * 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedules),
        cmocka_unit_test(defaults),
    };

    return cmocka_run_group_tests_name("lr", tests, NULL, NULL);
}
