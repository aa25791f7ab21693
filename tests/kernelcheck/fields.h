/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the pointers of an op are: which fields of its struct point into device memory, and what
 * each kind of op does with them. The table lists every field of every struct, so that one that is
 * added to src/base/device.h and not here is a gap; which fields are pointers the compiler says.
 */
#ifndef TR_TESTS_KERNELCHECK_FIELDS_H
#define TR_TESTS_KERNELCHECK_FIELDS_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/device.h"

/* What an op does with the memory that a field points to. */
enum field_use {
    FIELD_UNUSED,
    FIELD_IN,      /* only read */
    FIELD_OUT,     /* a result of rows or elements, each by itself; may be read too */
    FIELD_SUM,     /* a sum over tokens, grain by grain */
    FIELD_SCRATCH, /* written, and nothing is promised of it */
};

struct field {
    const char *name;
    size_t at, size;
    int pointer;
    uint32_t in, out, sum, scratch; /* kinds of op, a bit each */
};

struct field_list {
    const struct field *fields; /* in the order of the struct */
    size_t n, bytes;            /* bytes: of the struct */
    const char *kind;
};

/* The fields of the struct of that kind. */
const struct field_list *field_list(enum tr_op_kind kind);

enum field_use field_use(const struct field *f, enum tr_op_kind kind);

/* NULL where the list has a place for every byte of the struct that could hold a pointer, and every
 * pointer has a use; else what is wrong. */
const char *field_list_fault(const struct field_list *list);

/* The dtype that an op's results go by; f32 where they have no choice. */
enum tr_dtype field_dtype(const struct tr_op *op);

/* The pointer of a field in an op. */
static inline void *field_get(const struct tr_op *op, const struct field *f)
{
    return *(void *const *)((const char *)&op->embed + f->at);
}

static inline void field_set(struct tr_op *op, const struct field *f, void *p)
{
    *(void **)((char *)&op->embed + f->at) = p;
}

#endif
