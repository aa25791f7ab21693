/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs ops on a device through its table. The buffers are the caller's own, in host memory; each
 * has a mirror in the device's arena. For every op the mirrors are filled, the op runs with its
 * pointers moved into them, and all come back, guard areas included, so that what is checked of a
 * buffer on the cpu (guards, poison, inputs that may not change) is checked of the device as well.
 * Arena memory is never touched but by the device's copies; pointers that an op of this kind has no
 * use for are NULL.
 */
#ifndef TR_TESTS_KERNELCHECK_MIRROR_H
#define TR_TESTS_KERNELCHECK_MIRROR_H

#include "src/base/device.h"

struct field;

struct mirror_buffer {
    struct mirror_buffer *next;
    char *block; /* what is copied: guard, data, guard */
    char *data;
    size_t bytes, block_bytes;
    /* mirror.c's own: */
    int used;
    uint64_t place; /* of the block, from the start of the arena */
};

/* A fault planted behind every op of one kind and dtype: what the checks must find out. */
enum fault_kind {
    FAULT_NONE,
    FAULT_SKIP,  /* the op does not run */
    FAULT_MERGE, /* all grains as one */
    FAULT_FLIP,  /* the lowest bit of the first element that `field` points to is another one */
    FAULT_UNDER, /* the byte before what `field` points to is written */
};

struct mirror_fault {
    enum fault_kind fault;
    enum tr_op_kind kind;
    enum tr_dtype dtype; /* field_dtype */
    const struct field *field;
};

struct mirror {
    struct tr_device *device;
    struct tr_device_info info;
    const char *name; /* "cpu", "cuda": for messages and rows of tolerance.c */
    uint64_t shift;   /* added to all places in the arena */
    int all;          /* every buffer is mirrored for every op, not only those it points to */
    int resident;     /* the mirrors are filled already: the op is only queued (timing) */
    struct mirror_fault fault;
    uint64_t faults;                      /* how often it happened */
    uint64_t met[TR_OP_KINDS][TR_DTYPES]; /* bit 0: such an op has run; bit 1 + i: with field i */
};

struct mirror_params {
    const char *device; /* "cpu", "cuda", "cuda:N" */
    const char *tier;   /* of the cpu device; NULL: the best */
    uint64_t bytes;     /* of the arena */
};

/* -ENODEV with a message where this machine has no such device, or the build no module for it. */
int mirror_open(struct mirror *m, const struct mirror_params *p);
void mirror_close(struct mirror *m);

/* Fills the mirrors of all buffers, for ops that find them resident. */
int mirror_fill(struct mirror *m, struct mirror_buffer *buffers);
/* Runs one op to its end, whose pointers (but ranges) lead into buffers. */
int mirror_run(struct mirror *m, struct mirror_buffer *buffers, const struct tr_op *op);
/* Whether an op has run so far in which this fault could have been. */
int mirror_has_met(const struct mirror *m, const struct mirror_fault *fault);

#endif
