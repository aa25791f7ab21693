/* SPDX-License-Identifier: Apache-2.0
 *
 * What `bench` times is what a run does. Updates with state in 8 bits have something to encode: a
 * block of nothing but zeros is stored without that, in two thirds of the time. Every update that
 * the probe makes is looked at, on the device and beside it; nothing here depends on how long
 * anything takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/code8.h"
#include "src/base/err.h"
#include "src/plan/probe.h"

#define ARENA_BYTES (24u << 20)

static struct tr_device_ops spied;
static const struct tr_device_ops *real;
/* Updates by optimizer and width of the weights, and the blocks that they left without a scale. */
static int seen[TR_OP_KINDS][TR_DTYPES], empty[TR_OP_KINDS][TR_DTYPES];

int __real_tr_device_open_cpu(struct tr_device **out, const struct tr_device_params *params);
int __wrap_tr_device_open_cpu(struct tr_device **out, const struct tr_device_params *params);

static int count_empty(const void *state, int64_t n)
{
    int count = 0;

    for (int64_t i = 0; i < n; i += TR_CODE8_BLOCK) {
        float scale;

        memcpy(&scale, (const char *)state + tr_state_bytes(TR_8BIT, (uint64_t)i), sizeof(scale));
        count += !(scale > 0);
    }
    return count;
}

static int run(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    int r = real->run(d, s, op);

    if (op->kind < TR_OP_SGD || op->update.state_dtype != TR_8BIT)
        return r;
    assert_int_equal(real->sync(d, s), 0);
    seen[op->kind][op->update.dtype]++;
    empty[op->kind][op->update.dtype] += count_empty(op->update.m, op->update.n);
    if (op->kind == TR_OP_ADAMW)
        empty[op->kind][op->update.dtype] += count_empty(op->update.v, op->update.n);
    return r;
}

int __wrap_tr_device_open_cpu(struct tr_device **out, const struct tr_device_params *params)
{
    int r = __real_tr_device_open_cpu(out, params);

    if (r < 0)
        return r;
    real = (*out)->ops;
    spied = *real;
    spied.run = run;
    (*out)->ops = &spied;
    return 0;
}

static void forget(void)
{
    memset(seen, 0, sizeof(seen));
    memset(empty, 0, sizeof(empty));
}

static void open_probe(struct probe *p, const struct tr_bench_params *params)
{
    struct tr_device_params device = {.threads = 1};

    *p = (struct probe){.params = params};
    device.memory_bytes = tr_device_cpu_workspace(&device) + ARENA_BYTES;
    if (tr_device_open_cpu(&p->device, &device) < 0)
        fail_msg("%s", tr_error_message());
    p->device->ops->info(p->device, &p->info);
    p->arena = p->device->ops->arena(p->device);
}

static void test_on_the_device(void **state)
{
    struct tr_bench_params params = {.quick = 1, .threads = 1};
    static struct probe p;

    (void)state;
    forget();
    open_probe(&p, &params);
    if (probe_ops(&p) < 0)
        fail_msg("%s", tr_error_message());
    p.device->ops->close(p.device);
    for (int kind = TR_OP_ADAMW; kind <= TR_OP_ADAM_MINI; kind++)
        for (int wide = 0; wide < 2; wide++) {
            enum tr_dtype dtype = wide ? TR_F32 : TR_BF16;

            assert_true(seen[kind][dtype] > 0);
            assert_int_equal(empty[kind][dtype], 0);
        }
}

static void test_beside_the_device(void **state)
{
    struct tr_bench_params params = {.quick = 1, .threads = 1};
    static struct probe p;

    (void)state;
    forget();
    p = (struct probe){.params = &params};
    if (probe_update(&p) < 0)
        fail_msg("%s", tr_error_message());
    assert_true(seen[TR_OP_ADAMW][TR_BF16] > 0);
    assert_int_equal(empty[TR_OP_ADAMW][TR_BF16], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_on_the_device),
                                       cmocka_unit_test(test_beside_the_device)};

    return cmocka_run_group_tests_name("what bench times", tests, NULL, NULL);
}
