/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs ops on a device through its table. The buffers of a case are the harness's own, in host
 * memory; each has a mirror in the device's arena, guard areas included. For every op the mirrors
 * are filled, the op runs with its pointers moved into them, and all come back, so that what is
 * checked of a buffer on the cpu (guards, poison, inputs that may not change) is checked of the
 * device as well. Arena memory is never touched but by the device's copies; pointers that an op of
 * this kind has no use for are NULL.
 */
#ifndef TR_TESTS_KERNELCHECK_MIRROR_H
#define TR_TESTS_KERNELCHECK_MIRROR_H

#include "src/base/device.h"

struct check;
struct field;

/* A fault planted behind every op of one kind: what the checks must find out. */
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
    const struct field *field;
};

struct mirror {
    struct tr_device *device;
    struct tr_device_info info;
    const char *name; /* "cuda": for messages and rows of tolerance.c */
    uint64_t shift;   /* added to all places in the arena */
    int resident;     /* the mirrors are filled already: only run the op (timing) */
    struct mirror_fault fault;
};

/* name: "cpu", or as --device of the program says it. tier: of the cpu device. -ENODEV with a
 * message where this machine lacks the device. */
int mirror_open(struct mirror *m, const char *name, const char *tier, uint64_t bytes);
void mirror_close(struct mirror *m);

/* Fills the mirrors of all buffers of the case. */
int mirror_fill(struct check *c);
int mirror_run(struct check *c, const struct tr_op *op);

#endif
