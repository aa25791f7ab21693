/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/kernelcheck/mirror.h"

#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"
#include "tests/device/which.h"
#include "tests/kernelcheck/fields.h"

#define ALIGNMENT 256 /* of blocks: that of the plan's buffers is 4096 */

/* ---- the device ---- */

static int open_cuda(struct mirror *m, const struct mirror_params *p)
{
    struct tr_device_params params = {.ordinal = p->device[4] == ':' ? atoi(p->device + 5) : 0};
    const char *module = getenv("TAILRACE_CUDA_MODULE");
    int error = test_device_open_cuda(&m->device, &params, p->bytes);

    m->name = "cuda";
    /* A module that was asked for by name must be there. */
    return error == -ENOENT && !(module && *module) ? -ENODEV : error;
}

static int open_cpu(struct mirror *m, const struct mirror_params *p)
{
    struct tr_device_params params = {.threads = 2, .tier = p->tier};

    params.memory_bytes = tr_device_cpu_workspace(&params) + p->bytes;
    m->name = "cpu";
    return tr_device_open_cpu(&m->device, &params);
}

int mirror_open(struct mirror *m, const struct mirror_params *p)
{
    int error;

    if (strcmp(p->device, "cpu") && strcmp(p->device, "cuda") && strncmp(p->device, "cuda:", 5))
        return tr_error(-EINVAL, "there is no device %s", p->device);
    error = p->device[1] == 'p' ? open_cpu(m, p) : open_cuda(m, p);
    if (!error)
        m->device->ops->info(m->device, &m->info);
    return error;
}

void mirror_close(struct mirror *m)
{
    if (m->device)
        m->device->ops->close(m->device);
    m->device = NULL;
}

/* ---- buffers ---- */

static char *place_of(const struct mirror *m, const struct mirror_buffer *b)
{
    return (char *)m->device->ops->arena(m->device) + m->shift + b->place;
}

static struct mirror_buffer *find(struct mirror_buffer *b, const char *p)
{
    while (b && (p < b->data || p > b->data + b->bytes)) /* an empty array points to the end */
        b = b->next;
    return b;
}

/* Marks the buffers that the op points into. */
static int mark_used(struct mirror *m, struct mirror_buffer *buffers, const struct tr_op *op)
{
    const struct field_list *list = field_list(op->kind);

    for (struct mirror_buffer *b = buffers; b; b = b->next)
        b->used = m->all;
    for (const struct field *f = list->fields; f < list->fields + list->n; f++) {
        char *p = f->pointer && field_use(f, op->kind) ? field_get(op, f) : NULL;
        struct mirror_buffer *b = p ? find(buffers, p) : NULL;

        if (p && !b)
            return tr_error(-EFAULT, "op %s: %s points into no buffer", list->kind, f->name);
        if (b)
            b->used = 1;
    }
    return 0;
}

static int place_used(const struct mirror *m, struct mirror_buffer *buffers)
{
    uint64_t placed = m->shift;

    for (struct mirror_buffer *b = buffers; b; b = b->next) {
        if (!b->used)
            continue;
        b->place = placed - m->shift;
        placed += tr_round_up(b->block_bytes, ALIGNMENT);
    }
    if (placed <= m->info.arena_bytes)
        return 0;
    return tr_error(-ENOMEM, "the buffers exceed the device's arena of %llu bytes",
                    (unsigned long long)m->info.arena_bytes);
}

static void move_pointers(const struct mirror *m, struct mirror_buffer *buffers, struct tr_op *op)
{
    const struct field_list *list = field_list(op->kind);

    for (const struct field *f = list->fields; f < list->fields + list->n; f++) {
        char *p = f->pointer && field_use(f, op->kind) ? field_get(op, f) : NULL;
        struct mirror_buffer *b = p ? find(buffers, p) : NULL;

        if (f->pointer)
            field_set(op, f, b ? place_of(m, b) + (p - b->block) : NULL);
    }
}

static int copy_used(const struct mirror *m, struct mirror_buffer *buffers, int out)
{
    const struct tr_device_ops *ops = m->device->ops;
    int error = 0;

    for (struct mirror_buffer *b = buffers; b && !error; b = b->next)
        if (b->used)
            error = out ? ops->copy_out(m->device, TR_STREAM_COMPUTE, b->block, place_of(m, b),
                                        b->block_bytes)
                        : ops->copy_in(m->device, TR_STREAM_COMPUTE, place_of(m, b), b->block,
                                       b->block_bytes);
    return error;
}

static int sync_after(const struct mirror *m, int error)
{
    int late = m->device->ops->sync(m->device, TR_STREAM_COMPUTE);

    return error ? error : late;
}

int mirror_fill(struct mirror *m, struct mirror_buffer *buffers)
{
    int error;

    for (struct mirror_buffer *b = buffers; b; b = b->next)
        b->used = 1;
    error = place_used(m, buffers);
    return error ? error : sync_after(m, copy_used(m, buffers, 0));
}

/* ---- ops ---- */

/* Changes a byte in the device's memory: a bit of the field's first element, or, again and again to
 * the same value, what lies before it. */
static int touch(const struct mirror *m, enum fault_kind fault, char *at)
{
    const struct tr_device_ops *ops = m->device->ops;
    char byte = 0;
    int error;

    at -= fault == FAULT_UNDER;
    error = sync_after(m, ops->copy_out(m->device, TR_STREAM_COMPUTE, &byte, at, 1));
    byte = fault == FAULT_UNDER ? 0 : byte ^ 1;
    if (error)
        return error;
    return sync_after(m, ops->copy_in(m->device, TR_STREAM_COMPUTE, at, &byte, 1));
}

static struct tr_ranges *grains_of(struct tr_op *op)
{
    return op->kind == TR_OP_RMSNORM_GRAD ? &op->rmsnorm.grains
           : op->kind == TR_OP_BIAS_GRAD  ? &op->bias_grad.grains
                                          : &op->matmul.grains;
}

static void note(struct mirror *m, const struct tr_op *op)
{
    const struct field_list *list = field_list(op->kind);
    uint64_t *met = &m->met[op->kind][field_dtype(op)];

    *met |= 1;
    for (size_t i = 0; i < list->n; i++)
        *met |= (uint64_t)(list->fields[i].pointer && field_get(op, &list->fields[i])) << (1 + i);
}

int mirror_has_met(const struct mirror *m, const struct mirror_fault *fault)
{
    size_t bit = fault->field ? 1 + (size_t)(fault->field - field_list(fault->kind)->fields) : 0;

    return (int)(m->met[fault->kind][fault->dtype] >> bit & 1);
}

/* The planted fault where it is one of this op. */
static struct mirror_fault fault_of(struct mirror *m, struct tr_op *op)
{
    struct mirror_fault fault = m->fault;

    if (fault.kind != op->kind || fault.dtype != field_dtype(op) ||
        (fault.field && !field_get(op, fault.field)) ||
        (fault.fault == FAULT_MERGE && grains_of(op)->n < 2))
        fault.fault = FAULT_NONE;
    m->faults += fault.fault != FAULT_NONE;
    return fault;
}

static int queue(struct mirror *m, struct tr_op *op)
{
    struct mirror_fault fault = fault_of(m, op);
    int32_t merged[2] = {0};
    int error;

    note(m, op);
    if (fault.fault == FAULT_SKIP)
        return 0;
    if (fault.fault == FAULT_MERGE) {
        struct tr_ranges *grains = grains_of(op);

        merged[1] = grains->start[grains->n];
        *grains = (struct tr_ranges){1, merged};
    }
    error = m->device->ops->run(m->device, TR_STREAM_COMPUTE, op);
    if (fault.fault != FAULT_NONE)
        error = sync_after(m, error);
    if (!error && (fault.fault == FAULT_FLIP || fault.fault == FAULT_UNDER))
        error = touch(m, fault.fault, field_get(op, fault.field));
    return error;
}

int mirror_run(struct mirror *m, struct mirror_buffer *buffers, const struct tr_op *op)
{
    struct tr_op moved = *op;
    int error = 0;

    if (m->resident) {
        move_pointers(m, buffers, &moved);
        return queue(m, &moved);
    }
    error = mark_used(m, buffers, op);
    if (!error)
        error = place_used(m, buffers);
    if (error)
        return error;
    move_pointers(m, buffers, &moved);
    error = copy_used(m, buffers, 0);
    if (!error)
        error = queue(m, &moved);
    if (!error)
        error = copy_used(m, buffers, 1);
    return sync_after(m, error);
}
