/* SPDX-License-Identifier: Apache-2.0
 *
 * LOMO's update of bf16 weights beside what lomo-optim itself made of them, bit for bit, in every
 * tier and for any number of threads. The recorded pairs tell a fused multiply-add from two
 * roundings: a copy of the update with two must be caught.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "src/base/err.h"
#include "tests/parity/recorded.h"
#include "tests/tiers.h"

struct tuple {
    const char *name;
    int64_t n;
    uint16_t *weight, *result;
    float *gradient;
    struct tr_op_update op;
};

static struct tr_safetensors *tensors;
static json_t *cases;

static int open_cases(void **state)
{
    char path[PATH_MAX];

    (void)state;
    cases = recorded_json(recorded_path(path, "lomo-bf16/cases.json"));
    if (tr_safetensors_open_file(&tensors, recorded_path(path, "lomo-bf16/cases.safetensors")))
        fail_msg("%s", tr_error_message());
    return 0;
}

static int close_cases(void **state)
{
    (void)state;
    tr_safetensors_close(tensors);
    json_decref(cases);
    return 0;
}

static struct tuple open_tuple(size_t i)
{
    const json_t *c = json_array_get(json_object_get(cases, "cases"), i);
    const json_t *coefficient = json_object_get(c, "coefficient");
    struct tuple t = {.name = json_string_value(json_object_get(c, "name"))};
    char name[96];
    int64_t n;

    snprintf(name, sizeof(name), "%s.weight", t.name);
    t.weight = recorded_bits(tensors, name, &t.n);
    snprintf(name, sizeof(name), "%s.result", t.name);
    t.result = recorded_bits(tensors, name, &n);
    assert_int_equal(n, t.n);
    snprintf(name, sizeof(name), "%s.gradient", t.name);
    t.gradient = recorded_tensor(tensors, name, &n);
    assert_int_equal(n, t.n);
    t.op = (struct tr_op_update){.w = t.weight, .dtype = TR_BF16, .g = t.gradient, .n = t.n};
    t.op.unscale = 1;
    t.op.coefficient = json_is_null(coefficient) ? 1 : (float)json_number_value(coefficient);
    t.op.lr = (float)recorded_number(c, "lr");
    t.op.weight_decay = (float)recorded_number(c, "weight_decay");
    t.op.clip_value = (float)recorded_number(c, "clip_value");
    return t;
}

static void close_tuple(struct tuple *t)
{
    free(t->weight);
    free(t->result);
    free(t->gradient);
}

/* Elements that the update with these kernels got wrong, of all tuples. */
static int64_t wrong_elements(const struct tr_cpu_kernels *kernels, int threads, int64_t *total)
{
    struct tr_cpu cpu = {.kernels = kernels};
    int64_t wrong = 0;

    assert_int_equal(tr_pool_open(&cpu.pool, threads), 0);
    *total = 0;
    for (size_t i = 0; i < json_array_size(json_object_get(cases, "cases")); i++) {
        struct tuple t = open_tuple(i);
        int64_t before = wrong;

        assert_int_equal(tr_cpu_sgd(&cpu, &t.op), 0);
        for (int64_t e = 0; e < t.n; e++)
            wrong += t.weight[e] != t.result[e];
        if (wrong > before)
            print_message("%s: %lld of %lld elements differ\n", t.name, (long long)(wrong - before),
                          (long long)t.n);
        *total += t.n;
        close_tuple(&t);
    }
    tr_pool_close(cpu.pool);
    return wrong;
}

static void equals_lomo_optim(void **state)
{
    int64_t total = 0;

    (void)state;
    for (int tier = TR_TIER_C; tier <= (int)tr_cpu_tier_best(); tier++)
        for (int threads = 1; threads <= 3; threads++) {
            struct tr_cpu_kernels kernels;

            tr_cpu_kernels_init(&kernels, (enum tr_cpu_tier)tier);
            assert_int_equal(wrong_elements(&kernels, threads, &total), 0);
        }
    say_missing_tiers();
    assert_true(total > 15000);
}

/* The definition but for the last operation, which rounds the product first. */
static void update_rounded_twice(const struct tr_update_values *values,
                                 const struct tr_op_update *op, int64_t begin, int64_t end)
{
    float *x = values->x;

    for (int64_t i = begin; i < end; i++, x++) {
        float g = op->g[i] * op->unscale, product;

        if (op->clip_value > 0)
            g = g > op->clip_value ? op->clip_value : g < -op->clip_value ? -op->clip_value : g;
        if (op->weight_decay != 0)
            *x = *x * (1.0f - op->lr * op->weight_decay);
        product = op->lr * (g * op->coefficient);
        *x = *x - product;
    }
}

static void catches_two_roundings(void **state)
{
    struct tr_cpu_kernels kernels;
    int64_t total;

    (void)state;
    tr_cpu_kernels_init(&kernels, TR_TIER_C);
    kernels.sgd = update_rounded_twice;
    assert_true(wrong_elements(&kernels, 1, &total) > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_lomo_optim),
        cmocka_unit_test(catches_two_roundings),
    };

    return cmocka_run_group_tests_name("parity: lomo-optim in bf16", tests, open_cases,
                                       close_cases);
}
