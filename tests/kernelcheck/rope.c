/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotate-half against double (each half of a head apart, so that swapped layouts fail), back again
 * with inverse; the same bits in every variant, and for a token wherever it lies in the call.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/variant.h"

#define POSITIONS 64

static void fill_angles(struct tr_op_rope *op, struct check *c)
{
    int64_t half = op->head_dim / 2, n = POSITIONS * half;
    float *table[2];

    for (int k = 0; k < 2; k++) {
        table[k] = check_bytes(c, (size_t)n * 4);
        for (int64_t i = 0; i < n; i++) {
            double angle = (double)(i / half) * pow(10000, -(double)(i % half) / (double)half);

            table[k][i] = (float)(k ? sin(angle) : cos(angle));
        }
        check_freeze(c);
    }
    op->cos = table[0];
    op->sin = table[1];
}

static void reference(double *want, const struct tr_op_rope *op, const void *x)
{
    int64_t half = op->head_dim / 2;

    for (int64_t i = 0; i < op->n * op->heads * op->head_dim; i++) {
        int64_t lane = i % op->head_dim, t = i / op->head_dim / op->heads;
        int64_t at = op->position[t] * half + lane % half;
        double own = tr_load_f32(x, op->dtype, (size_t)i), sign = (lane < half) ^ op->inverse;
        double other = tr_load_f32(x, op->dtype, (size_t)(lane < half ? i + half : i - half));

        want[i] = own * op->cos[at] + (sign ? -other : other) * op->sin[at];
    }
}

/* The first third of the tokens and the rest, each as a call of its own. */
static void in_parts(struct check *c, const struct tr_op_rope *op, const void *x, const void *want)
{
    size_t row = (size_t)(op->heads * op->head_dim), all = (size_t)op->n * row;
    size_t size = tr_dtype_size(op->dtype);
    struct tr_op_rope part = *op;
    char *got = memcpy(check_bytes(c, all * size), x, all * size);

    part.x = got;
    part.n = op->n / 3;
    check_run(c, TR_OP_ROPE, &part);
    part.x = got + (size_t)part.n * row * size;
    part.position = op->position + part.n;
    part.n = op->n - part.n;
    check_run(c, TR_OP_ROPE, &part);
    check_equal(c, "x in parts", op->dtype, got, want, all);
}

static const int32_t *draw_positions(struct check *c, int64_t n)
{
    int32_t *position = check_bytes(c, (size_t)n * 4);

    for (int64_t t = 0; t < n; t++)
        position[t] = (int32_t)check_random_below(c, POSITIONS);
    check_freeze(c);
    return position;
}

static void one(struct check *c, enum tr_dtype dtype, const int64_t shape[3])
{
    size_t all = (size_t)(shape[0] * shape[1] * shape[2]), bytes = all * tr_dtype_size(dtype);

    while (check_case(c, "%s n=%d heads=%d head_dim=%d", tr_dtype_name(dtype), (int)shape[0],
                      (int)shape[1], (int)shape[2])) {
        struct tr_op_rope op = {
            .dtype = dtype, .n = shape[0], .heads = shape[1], .head_dim = shape[2]};
        const void *x = check_input(c, dtype, all, CHECK_NORMAL);
        double *want = check_scratch(c, all * sizeof(double));

        op.position = draw_positions(c, op.n);
        fill_angles(&op, c);
        reference(want, &op, x);
        void *got = op.x = memcpy(check_bytes(c, bytes), x, bytes);
        check_run(c, TR_OP_ROPE, &op);
        check_close(c, "x", dtype, got, want, all);
        op.x = check_bytes(c, bytes);
        while (check_variant(c)) {
            memcpy(op.x, x, bytes);
            check_run(c, TR_OP_ROPE, &op);
            check_equal(c, "x", dtype, op.x, got, all);
        }
        in_parts(c, &op, x, got);
        memcpy(op.x, got, bytes);
        op.inverse = 1;
        reference(want, &op, got);
        check_run(c, TR_OP_ROPE, &op);
        check_close(c, "inverse", dtype, op.x, want, all);
        for (size_t i = 0; i < all; i++)
            want[i] = tr_load_f32(x, dtype, i);
        if (dtype == TR_F32)
            check_close(c, "back", dtype, op.x, want, all);
        CHECK_BENCH(c, (double)bytes * 2, 0) check_run(c, TR_OP_ROPE, &op);
    }
}

void check_rope(struct check *c)
{
    static const int64_t shapes[][3] = {{1, 1, 2},   {13, 3, 14},    {70, 5, 64},
                                        {9, 2, 144}, {1024, 32, 64}, {8192, 32, 128}};

    for (enum tr_dtype d = TR_F32; d < TR_DTYPES; d++)
        for (size_t i = 0; i < (check_bench_on(c) ? c->device ? 6 : 5 : 4); i++)
            if (check_computes(c, d))
                one(c, d, shapes[i]);
}
