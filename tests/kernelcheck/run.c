/* SPDX-License-Identifier: Apache-2.0
 *
 * What runs the ops: the functions of a cpu tier, or a device; and in which variants.
 */
#include "cpu/run.h"

#include <string.h>

#include "tests/kernelcheck/fields.h"
#include "tests/kernelcheck/state.h"
#include "tests/kernelcheck/variant.h"

#define SHIFT 64 /* what the plan aligns buffers to at least */

const struct tr_cpu *check_cpu(struct check *c, int threads)
{
    return &c->state->cpus[threads];
}

const char *check_where(const struct check *c)
{
    return c->device ? c->device->name : tr_cpu_tier_name(c->tier);
}

enum tr_dtype check_compute(const struct check *c, enum tr_dtype storage)
{
    return c->device ? c->device->info.compute[storage] : TR_F32;
}

int check_computes(const struct check *c, enum tr_dtype dtype)
{
    for (enum tr_dtype storage = TR_F32; storage < TR_DTYPES; storage++)
        if (check_compute(c, storage) == dtype)
            return 1;
    return 0;
}

int check_small(const struct check *c)
{
    return c->device && !c->state->options.large && !c->state->options.bench;
}

int check_variant(struct check *c)
{
    int variants = check_bench_on(c) ? 0 : c->device ? 1 : 3;

    c->variant = c->variant < variants ? c->variant + 1 : 0;
    return c->variant;
}

/* One thread, three threads, tier C. */
static int run_on_cpu(struct check *c, const struct tr_op *op)
{
    static struct tr_cpu_kernels definition;
    struct tr_cpu cpu = *c->cpu;

    if (c->variant == 1 || c->variant == 2)
        cpu = *check_cpu(c, c->variant == 1 ? 1 : 3);
    if (c->variant == 3) {
        tr_cpu_kernels_init(&definition, TR_TIER_C);
        cpu.kernels = &definition;
    }
    return tr_cpu_run(&cpu, op);
}

/* A changed input is put right at once: references read it. */
static void judge_inputs(struct check *c, const char *kind)
{
    for (struct check_buffer *b = c->state->buffers; b; b = check_next(b)) {
        if (!b->kept || !memcmp(b->kept, b->memory.data, b->memory.bytes))
            continue;
        check_fail(c, "op %s changed an input of %zu bytes", kind, b->memory.bytes);
        memcpy(b->memory.data, b->kept, b->memory.bytes);
    }
}

static int run_on_device(struct check *c, const struct tr_op *op)
{
    int error;

    if (!c->device->resident)
        c->device->shift = c->variant ? SHIFT : 0;
    error = mirror_run(c->device, &c->state->buffers->memory, op);
    if (!c->device->resident)
        judge_inputs(c, field_list(op->kind)->kind);
    return error;
}

void check_run(struct check *c, enum tr_op_kind kind, const void *op)
{
    struct tr_op whole = {.kind = kind};

    memcpy(&whole.embed, op, field_list(kind)->bytes);
    check_ok(c, c->device ? run_on_device(c, &whole) : run_on_cpu(c, &whole));
}
