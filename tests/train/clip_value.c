/* SPDX-License-Identifier: Apache-2.0
 *
 * --clip-value, from the option to the weights: a step of SGD at a rate of 1 changes each of them
 * by its gradient, and with a bound by the gradient clamped to it; the norm is that of the gradient
 * before. Seen in the exported models, against a step without the bound.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/train/common.h"

static const char *const tensors[] = {"model.layers.0.self_attn.q_proj.weight",
                                      "model.layers.2.mlp.down_proj.weight",
                                      "model.embed_tokens.weight", "model.norm.weight"};

static char folder[2][4400];

static double step_with(struct tr_train_params p, int i, double bound)
{
    struct tr_step_report report;

    p.clip_value = bound;
    train_anew(p, i ? "bounded" : "free", &report);
    snprintf(folder[i], sizeof(folder[i]), "%s/model", scratch_path(i ? "bounded" : "free"));
    return report.grad_norm;
}

/* A difference of two f32 near w has half a unit of its own last place, and w's own. */
static void expect_clamped(float from, float free, float bounded, float bound)
{
    double g = (double)from - free, got = (double)from - bounded;
    double want = fmin(fmax(g, -bound), bound), slack = 2.4e-7 * (fabs(from) + bound);

    if (!(fabs(got - want) <= slack))
        fail_msg("%.9g: changed by %.9g, not by %.9g of %.9g", from, got, want, g);
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

/* A bound that about half of the elements of a matrix are above. */
static float middle(const char *model)
{
    size_t n, m;
    float *from = read_tensor(model, tensors[0], &n), *to = read_tensor(folder[0], tensors[0], &m);
    float bound;

    for (size_t i = 0; i < n; i++)
        to[i] = fabsf(from[i] - to[i]);
    qsort(to, n, sizeof(*to), by_size);
    bound = to[n / 2];
    free(from);
    free(to);
    return bound;
}

static void elements_are_clamped(void **state)
{
    struct tr_train_params p = own_job("clamp");
    double norm[2];
    float bound;
    int above = 0, below = 0;

    (void)state;
    p.optimizer = TR_OPT_SGD;
    p.schedule = TR_LR_CONSTANT;
    p.warmup = -1;
    p.lr = 1;
    p.steps = 1;
    p.clip_norm = 1e6; /* measured, and never reached */
    norm[0] = step_with(p, 0, 0);
    bound = middle(p.model);
    assert_true(bound > 0);
    norm[1] = step_with(p, 1, bound);
    assert_true(norm[0] > 0 && norm[0] == norm[1]);
    for (size_t t = 0; t < sizeof(tensors) / sizeof(tensors[0]); t++) {
        size_t n, m, k;
        float *from = read_tensor(p.model, tensors[t], &n);
        float *free_of = read_tensor(folder[0], tensors[t], &m);
        float *to = read_tensor(folder[1], tensors[t], &k);

        assert_true(n == m && n == k);
        for (size_t i = 0; i < n; i++) {
            expect_clamped(from[i], free_of[i], to[i], bound);
            above += fabsf(from[i] - free_of[i]) > 1.1f * bound;
            below += fabsf(from[i] - free_of[i]) < 0.9f * bound && from[i] != free_of[i];
        }
        free(from);
        free(free_of);
        free(to);
    }
    assert_true(above > 1000 && below > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(elements_are_clamped)};

    return cmocka_run_group_tests_name("clip_value", tests, NULL, NULL);
}
