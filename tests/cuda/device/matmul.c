/* SPDX-License-Identifier: Apache-2.0
 *
 * The products of the cuda device: against double with every pair of dtypes and with shapes that no
 * vector load fits, and bit for bit against themselves over grains one at a time (invariant 1). The
 * mutant is one product over all grains, whose bits must be seen to differ.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "tests/device/which.h"

#define ROOM (12u << 20)

struct shape {
    int32_t grains[4]; /* tokens of each; -1 ends */
    int64_t m, k;
};

static const struct shape shapes[] = {
    {{7, 5, -1}, 16, 8},    {{1, -1}, 1, 1},         {{3, 4, 2, -1}, 33, 17},
    {{40, 24, -1}, 64, 40}, {{2, 0, 3, -1}, 19, 24}, {{16, -1}, 259, 64},
};

struct pair {
    enum tr_dtype in, out;
};

static const struct pair pairs[] = {
    {TR_F32, TR_F32}, {TR_BF16, TR_BF16}, {TR_BF16, TR_F32}, {TR_F16, TR_F16}, {TR_F16, TR_F32}};

struct bench {
    struct tr_device *d;
    char *arena;
    size_t used;
    uint32_t random;
};

static float draw(struct bench *b)
{
    b->random = b->random * 1664525u + 1013904223u;
    return (float)(int32_t)b->random / 2147483648.0f;
}

static float value_of(const void *p, int64_t i, enum tr_dtype t)
{
    return t == TR_F32    ? ((const float *)p)[i]
           : t == TR_BF16 ? tr_bf16_f32(((const uint16_t *)p)[i])
                          : tr_f16_f32(((const uint16_t *)p)[i]);
}

static void set(void *p, int64_t i, enum tr_dtype t, float x)
{
    if (t == TR_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = t == TR_BF16 ? tr_f32_bf16(x) : tr_f32_f16(x);
}

/* Host and device side of one matrix. */
struct matrix {
    void *host, *device;
    int64_t n;
    enum tr_dtype dtype;
};

static size_t bytes_of(const struct matrix *m)
{
    return (size_t)m->n * tr_dtype_size(m->dtype);
}

static struct matrix make(struct bench *b, int64_t n, enum tr_dtype t)
{
    struct matrix m = {.n = n, .dtype = t, .device = b->arena + b->used};

    m.host = malloc(bytes_of(&m) + 1);
    for (int64_t i = 0; i < n; i++)
        set(m.host, i, t, draw(b));
    b->used += (bytes_of(&m) + 255) / 256 * 256;
    assert_true(b->used <= ROOM);
    assert_int_equal(b->d->ops->copy_in(b->d, TR_STREAM_COMPUTE, m.device, m.host, bytes_of(&m)),
                     0);
    return m;
}

/* What the device has now; the caller frees it. */
static void *fetch(struct bench *b, const struct matrix *m)
{
    void *p = malloc(bytes_of(m) + 1);

    assert_int_equal(b->d->ops->copy_out(b->d, TR_STREAM_COMPUTE, p, m->device, bytes_of(m)), 0);
    if (b->d->ops->sync(b->d, TR_STREAM_COMPUTE))
        fail_msg("%s", tr_error_message());
    return p;
}

static void open_bench(struct bench *b)
{
    struct tr_device_params p = {0};

    *b = (struct bench){.random = 7};
    if (test_device_open(&b->d, &p, ROOM))
        fail_msg("%s", tr_error_message());
    b->arena = b->d->ops->arena(b->d);
}

static void run(struct bench *b, enum tr_op_kind kind, const struct tr_op_matmul *m)
{
    struct tr_op op = {kind, .matmul = *m};

    if (b->d->ops->run(b->d, TR_STREAM_COMPUTE, &op) || b->d->ops->error(b->d))
        fail_msg("%s", tr_error_message());
}

/* |got - want| within the rounding of the result and of a f32 sum of `depth` products. */
static void compare(float got, double want, double scale, enum tr_dtype t, int64_t depth)
{
    double unit = t == TR_F32 ? 0 : t == TR_BF16 ? 0x1p-8 : 0x1p-11;
    double slack = unit * fabs(want) + 0x1p-23 * (double)(depth + 2) * scale + 0x1p-24;

    if (!(fabs((double)got - want) <= slack))
        fail_msg("got %.9g, want %.9g, within %.3g (depth %lld)", (double)got, want, slack,
                 (long long)depth);
}

struct operands {
    struct tr_op_matmul op;
    struct matrix w, bias, x, dy, y, dx, dw;
    int32_t start[5];
};

static void open_operands(struct bench *b, struct operands *o, const struct shape *s,
                          const struct pair *p)
{
    struct tr_op_matmul *op = &o->op;

    b->used = 0;
    *o = (struct operands){
        .op = {.w_dtype = p->in, .in_dtype = p->in, .out_dtype = p->out, .m = s->m, .k = s->k}};
    for (int i = 0; i < 4 && s->grains[i] >= 0; i++) {
        o->start[i + 1] = o->start[i] + s->grains[i];
        op->grains.n = i + 1;
    }
    op->grains.start = o->start;
    op->n = o->start[op->grains.n];
    o->w = make(b, op->m * op->k, p->in);
    o->bias = make(b, op->m, p->in);
    o->x = make(b, op->n * op->k, p->in);
    o->dy = make(b, op->n * op->m, p->in);
    o->y = make(b, op->n * op->m, p->out);
    o->dx = make(b, op->n * op->k, p->out);
    o->dw = make(b, op->m * op->k, TR_F32);
    op->w = o->w.device;
    op->x = o->x.device;
    op->dy = o->dy.device;
    op->y = o->y.device;
    op->dx = o->dx.device;
    op->dw = o->dw.device;
}

static void close_operands(struct operands *o)
{
    void *all[] = {o->w.host, o->bias.host, o->x.host, o->dy.host,
                   o->y.host, o->dx.host,   o->dw.host};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

/* out (rows, columns) = start + sum over depth of a[.] b[.], with strides. */
struct sum {
    const struct matrix *a, *b;
    int64_t rows, columns, depth;
    int64_t a_row, a_depth, b_column, b_depth;
    const struct matrix *bias, *start;
};

static void check_sum(const void *got, enum tr_dtype t, const struct sum *s)
{
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t c = 0; c < s->columns; c++) {
            double want = 0, scale = 0;

            for (int64_t d = 0; d < s->depth; d++) {
                double v =
                    (double)value_of(s->a->host, r * s->a_row + d * s->a_depth, s->a->dtype) *
                    value_of(s->b->host, c * s->b_column + d * s->b_depth, s->b->dtype);

                want += v;
                scale += fabs(v);
            }
            if (s->bias)
                want += (double)value_of(s->bias->host, c, s->bias->dtype);
            if (s->start)
                want += (double)value_of(s->start->host, r * s->columns + c, s->start->dtype);
            compare(value_of(got, r * s->columns + c, t), want, scale + 2, t, s->depth);
        }
}

static void check_forward(struct bench *b, struct operands *o)
{
    struct sum s = {&o->x, &o->w, o->op.n, o->op.m, o->op.k, o->op.k, 1, o->op.k, 1, NULL, NULL};
    void *got;

    run(b, TR_OP_MATMUL, &o->op);
    got = fetch(b, &o->y);
    check_sum(got, o->op.out_dtype, &s);
    free(got);
    o->op.bias = o->bias.device;
    s.bias = &o->bias;
    run(b, TR_OP_MATMUL, &o->op);
    got = fetch(b, &o->y);
    check_sum(got, o->op.out_dtype, &s);
    free(got);
}

static void check_gradients(struct bench *b, struct operands *o)
{
    struct sum dx = {&o->dy, &o->w, o->op.n, o->op.k, o->op.m, o->op.m, 1, 1, o->op.k, NULL, NULL};
    struct sum dw = {&o->dy, &o->x, o->op.m, o->op.k, o->op.n, 1, o->op.m, 1, o->op.k, NULL, NULL};

    for (o->op.add = o->op.out_dtype == TR_F32; o->op.add >= 0; o->op.add--) {
        void *got;

        dx.start = o->op.add ? &o->dx : NULL;
        run(b, TR_OP_MATMUL_DX, &o->op);
        got = fetch(b, &o->dx);
        check_sum(got, o->op.out_dtype, &dx);
        free(got);
    }
    for (o->op.add = 1; o->op.add >= 0; o->op.add--) {
        void *got;

        dw.start = o->op.add ? &o->dw : NULL;
        run(b, TR_OP_MATMUL_DW, &o->op);
        got = fetch(b, &o->dw);
        check_sum(got, TR_F32, &dw);
        free(got);
    }
}

static void products_are_right(void **state)
{
    struct bench b;
    struct operands o;

    (void)state;
    open_bench(&b);
    for (size_t p = 0; p < sizeof(pairs) / sizeof(pairs[0]); p++)
        for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
            open_operands(&b, &o, &shapes[s], &pairs[p]);
            check_forward(&b, &o);
            check_gradients(&b, &o);
            close_operands(&o);
        }
    b.d->ops->close(b.d);
}

/* The three products in one call or, taken apart, one call per grain with moved pointers. */
static void run_three(struct bench *b, const struct operands *o, int apart)
{
    const struct tr_op_matmul *op = &o->op;
    size_t in = tr_dtype_size(op->in_dtype), out = tr_dtype_size(op->out_dtype);

    for (int32_t g = 0; g < (apart ? op->grains.n : 1); g++) {
        struct tr_op_matmul one = *op;
        int64_t first = op->grains.start[g];
        int32_t start[2] = {0, op->grains.start[g + 1] - op->grains.start[g]};

        if (apart) {
            one.n = start[1];
            one.grains = (struct tr_ranges){1, start};
            one.x = (const char *)op->x + (size_t)(first * op->k) * in;
            one.dy = (const char *)op->dy + (size_t)(first * op->m) * in;
            one.y = (char *)op->y + (size_t)(first * op->m) * out;
            one.dx = (char *)op->dx + (size_t)(first * op->k) * out;
            one.add = g > 0;
        }
        run(b, TR_OP_MATMUL, &one);
        run(b, TR_OP_MATMUL_DW, &one);
        one.add = 0;
        run(b, TR_OP_MATMUL_DX, &one);
    }
}

static void *all_results(struct bench *b, const struct operands *o)
{
    const struct matrix *m[] = {&o->y, &o->dx, &o->dw};
    char *all = malloc(bytes_of(m[0]) + bytes_of(m[1]) + bytes_of(m[2]));
    size_t at = 0;

    for (int i = 0; i < 3; i++) {
        void *one = fetch(b, m[i]);

        memcpy(all + at, one, bytes_of(m[i]));
        at += bytes_of(m[i]);
        free(one);
    }
    return all;
}

static size_t results_bytes(const struct operands *o)
{
    return bytes_of(&o->y) + bytes_of(&o->dx) + bytes_of(&o->dw);
}

/* Odd rows: the second grain starts where the first one's alignment does not hold. */
static const struct shape split = {{37, 20, 9, -1}, 131, 45};

static void grains_decide_the_bits(void **state)
{
    struct bench b;
    struct operands o;
    void *together, *apart;
    size_t choices;

    (void)state;
    open_bench(&b);
    for (size_t p = 0; p < sizeof(pairs) / sizeof(pairs[0]); p++) {
        open_operands(&b, &o, &split, &pairs[p]);
        run_three(&b, &o, 0);
        together = all_results(&b, &o);
        choices = b.d->ops->choices(b.d, NULL, 0);
        run_three(&b, &o, 1);
        apart = all_results(&b, &o);
        assert_memory_equal(together, apart, results_bytes(&o));
        /* Nothing new was asked for: also where a grain lies changed no alignment. */
        assert_int_equal(b.d->ops->choices(b.d, NULL, 0), choices);
        free(together);
        free(apart);
        close_operands(&o);
    }
    b.d->ops->close(b.d);
}

/* Two grains of one length, at an odd and at an even row: one shape, one choice. */
static void where_a_grain_lies_is_no_choice(void **state)
{
    static const struct shape twice = {{37, 21, 21, -1}, 131, 45};
    struct bench b;
    struct operands o;
    char text[2048];
    int lines = 0;

    (void)state;
    open_bench(&b);
    open_operands(&b, &o, &twice, &pairs[1]);
    run(&b, TR_OP_MATMUL, &o.op);
    assert_true(b.d->ops->choices(b.d, text, sizeof(text)) < sizeof(text));
    for (const char *at = text; (at = strchr(at, '\n')); at++)
        lines++;
    assert_int_equal(lines, 2);
    close_operands(&o);
    b.d->ops->close(b.d);
}

static void one_grain_for_all_has_other_bits(void **state)
{
    struct bench b;
    struct operands o;
    int32_t whole[2];
    void *grains, *mutant;

    (void)state;
    open_bench(&b);
    open_operands(&b, &o, &split, &pairs[0]);
    run_three(&b, &o, 0);
    grains = all_results(&b, &o);
    whole[0] = 0;
    whole[1] = (int32_t)o.op.n;
    o.op.grains = (struct tr_ranges){1, whole};
    run_three(&b, &o, 0);
    mutant = all_results(&b, &o);
    assert_memory_not_equal(grains, mutant, results_bytes(&o));
    free(grains);
    free(mutant);
    close_operands(&o);
    b.d->ops->close(b.d);
}

/* More shapes than are kept: the first one's answer is dropped, asked for again, and the same. */
static void dropped_choices_come_back(void **state)
{
    static const struct shape most = {{3000, -1}, 24, 16};
    struct bench b;
    struct operands o;
    void *first, *again;
    int32_t start[2] = {0, 3000};
    char text[256];

    (void)state;
    open_bench(&b);
    open_operands(&b, &o, &most, &pairs[1]);
    o.op.grains = (struct tr_ranges){1, start};
    run(&b, TR_OP_MATMUL, &o.op);
    first = fetch(&b, &o.y);
    assert_true(b.d->ops->choices(b.d, text, sizeof(text)) > 0);
    assert_non_null(strstr(text, "bf16 to bf16 tn 24x3000x16"));
    for (start[1] = 1; start[1] < 3000; start[1]++) {
        o.op.n = start[1];
        run(&b, TR_OP_MATMUL, &o.op);
    }
    b.d->ops->choices(b.d, text, sizeof(text));
    assert_null(strstr(text, "24x3000x16"));
    assert_true(b.d->ops->choices(b.d, NULL, 0) > 1000 * 20);
    o.op.n = 3000;
    run(&b, TR_OP_MATMUL, &o.op);
    again = fetch(&b, &o.y);
    assert_memory_equal(first, again, bytes_of(&o.y));
    free(first);
    free(again);
    close_operands(&o);
    b.d->ops->close(b.d);
}

static void refuse(struct bench *b, enum tr_op_kind kind, const struct tr_op_matmul *m,
                   const char *word)
{
    struct tr_op op = {kind, .matmul = *m};

    assert_int_equal(b->d->ops->run(b->d, TR_STREAM_COMPUTE, &op), 0);
    assert_true(b->d->ops->sync(b->d, TR_STREAM_COMPUTE) < 0);
    if (!strstr(tr_error_message(), word))
        fail_msg("no '%s' in: %s", word, tr_error_message());
    assert_int_equal(b->d->ops->sync(b->d, TR_STREAM_COMPUTE), 0);
}

static void what_cannot_be_done_is_refused(void **state)
{
    struct bench b;
    struct operands o;
    struct tr_op_matmul bad;

    (void)state;
    open_bench(&b);
    open_operands(&b, &o, &shapes[0], &pairs[1]);
    bad = o.op;
    bad.in_dtype = TR_F32;
    refuse(&b, TR_OP_MATMUL, &bad, "the weight's dtype");
    bad = o.op;
    bad.out_dtype = TR_F16;
    refuse(&b, TR_OP_MATMUL_DX, &bad, "or f32");
    bad = o.op;
    bad.add = 1;
    refuse(&b, TR_OP_MATMUL_DX, &bad, "sums of dx are f32");
    bad = o.op;
    bad.n++;
    refuse(&b, TR_OP_MATMUL_DW, &bad, "grains");
    bad = o.op;
    bad.k = 0;
    refuse(&b, TR_OP_MATMUL_DW, &bad, "op matmul_dw on the cuda device");
    close_operands(&o);
    b.d->ops->close(b.d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_right),
        cmocka_unit_test(grains_decide_the_bits),
        cmocka_unit_test(where_a_grain_lies_is_no_choice),
        cmocka_unit_test(one_grain_for_all_has_other_bits),
        cmocka_unit_test(dropped_choices_come_back),
        cmocka_unit_test(what_cannot_be_done_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
