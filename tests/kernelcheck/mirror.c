/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/mirror.h"

#include <string.h>

#include "src/base/err.h"
#include "tests/kernelcheck/fields.h"
#include "tests/kernelcheck/state.h"

#define SHIFT 64 /* what the plan aligns buffers to at least */

int mirror_open(struct mirror *m, const char *name, const char *tier, uint64_t bytes)
{
    struct tr_device_params p = {.memory_bytes = bytes, .threads = 2, .tier = tier};
    int error;

    p.memory_bytes += tr_device_cpu_workspace(&p);
    error = tr_device_open_cpu(&m->device, &p);
    if (error)
        return error;
    m->name = name;
    m->device->ops->info(m->device, &m->info);
    return 0;
}

void mirror_close(struct mirror *m)
{
    if (m->device)
        m->device->ops->close(m->device);
    m->device = NULL;
}

static char *place_of(const struct mirror *m, const struct check_buffer *b)
{
    return (char *)m->device->ops->arena(m->device) + m->shift + b->place;
}

/* Copies all buffers, in or out, whole blocks. */
static int move_all(struct check *c, int out)
{
    const struct mirror *m = c->device;
    const struct tr_device_ops *ops = m->device->ops;
    int error = 0;

    for (struct check_buffer *b = c->state->buffers; b && !error; b = b->next) {
        char *there = place_of(m, b);

        if (b->place + b->block_bytes + m->shift > m->info.arena_bytes)
            return tr_error(-ENOMEM, "the case's buffers exceed the device's arena of %llu bytes",
                            (unsigned long long)m->info.arena_bytes);
        error = out ? ops->copy_out(m->device, TR_STREAM_COMPUTE, b->block, there, b->block_bytes)
                    : ops->copy_in(m->device, TR_STREAM_COMPUTE, there, b->block, b->block_bytes);
    }
    return error;
}

int mirror_fill(struct check *c)
{
    struct mirror *m = c->device;
    int error, late;

    m->shift = 0;
    error = move_all(c, 0);
    late = m->device->ops->sync(m->device, TR_STREAM_COMPUTE);
    return error ? error : late;
}

/* The mirror of a pointer into any buffer of the case (its end included: arrays may be empty). */
static char *mirrored(const struct check *c, const char *p)
{
    for (const struct check_buffer *b = c->state->buffers; b; b = b->next)
        if (p >= b->data && p <= b->data + b->bytes)
            return place_of(c->device, b) + (p - b->block);
    return NULL;
}

static int move_pointers(struct check *c, struct tr_op *op)
{
    const struct field_list *list = field_list(op->kind);

    for (const struct field *f = list->fields; f < list->fields + list->n; f++) {
        char *p = f->pointer ? field_get(op, f) : NULL, *moved = NULL;

        if (p && field_use(f, op->kind) != FIELD_UNUSED && !(moved = mirrored(c, p)))
            return tr_error(-EFAULT, "op %s: %s points into no buffer of the case", list->kind,
                            f->name);
        if (f->pointer)
            field_set(op, f, moved);
    }
    return 0;
}

/* Changes a byte in the device's memory: a bit of the field's first element, or, again and again to
 * the same value, what lies before it. */
static int touch(const struct mirror *m, enum fault_kind fault, char *at)
{
    const struct tr_device_ops *ops = m->device->ops;
    char byte = 0;
    int error;

    at -= fault == FAULT_UNDER;
    error = ops->copy_out(m->device, TR_STREAM_COMPUTE, &byte, at, 1);

    if (!error)
        error = ops->sync(m->device, TR_STREAM_COMPUTE);
    byte = fault == FAULT_UNDER ? 0 : byte ^ 1;
    if (!error)
        error = ops->copy_in(m->device, TR_STREAM_COMPUTE, at, &byte, 1);
    return error ? error : ops->sync(m->device, TR_STREAM_COMPUTE);
}

/* Queues the op, with the planted fault where it is of that kind. */
static int queue(const struct mirror *m, struct tr_op *op)
{
    struct mirror_fault fault = m->fault;
    struct tr_ranges *grains = op->kind == TR_OP_RMSNORM_GRAD ? &op->rmsnorm.grains
                               : op->kind == TR_OP_BIAS_GRAD  ? &op->bias_grad.grains
                                                              : &op->matmul.grains;
    int32_t merged[2] = {0};
    int error;

    if (fault.kind != op->kind || (fault.field && !field_get(op, fault.field)))
        fault.fault = FAULT_NONE;
    if (fault.fault == FAULT_SKIP)
        return 0;
    if (fault.fault == FAULT_MERGE) {
        merged[1] = grains->start[grains->n];
        *grains = (struct tr_ranges){1, merged};
    }
    error = m->device->ops->run(m->device, TR_STREAM_COMPUTE, op);
    if (!error && fault.fault != FAULT_NONE)
        error = m->device->ops->sync(m->device, TR_STREAM_COMPUTE);
    if (!error && (fault.fault == FAULT_FLIP || fault.fault == FAULT_UNDER))
        error = touch(m, fault.fault, field_get(op, fault.field));
    return error;
}

/* A changed input is put right at once: references read it. */
static void judge_inputs(struct check *c, const char *kind)
{
    for (struct check_buffer *b = c->state->buffers; b; b = b->next) {
        if (!b->kept || !memcmp(b->kept, b->data, b->bytes))
            continue;
        check_fail(c, "op %s changed an input of %zu bytes", kind, b->bytes);
        memcpy(b->data, b->kept, b->bytes);
    }
}

int mirror_run(struct check *c, const struct tr_op *op)
{
    struct mirror *m = c->device;
    struct tr_op moved = *op;
    int error, late;

    if (!m->resident)
        m->shift = c->variant ? SHIFT : 0;
    error = move_pointers(c, &moved);
    if (!error && m->resident)
        return queue(m, &moved);
    if (!error)
        error = move_all(c, 0);
    if (!error)
        error = queue(m, &moved);
    if (!error)
        error = move_all(c, 1);
    late = m->device->ops->sync(m->device, TR_STREAM_COMPUTE);
    judge_inputs(c, field_list(op->kind)->kind);
    return error ? error : late;
}
