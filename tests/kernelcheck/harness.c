/* SPDX-License-Identifier: Apache-2.0
 *
 * The checker checked: ops that are wrong in one way each. A case of this file passes when the
 * harness finds its fault. And the table of pointers that an op on a device is moved by.
 */
#include <math.h>
#include <string.h>

#include "tests/kernelcheck/fields.h"
#include "tests/kernelcheck/state.h"

#define N 37

struct faulty {
    const float *in;
    float *out;
    double *want;
};

static void write_past(struct check *c, struct faulty *f)
{
    (void)c;
    memset((char *)f->out + N * sizeof(float), 0, 1);
}

static void write_before(struct check *c, struct faulty *f)
{
    (void)c;
    f->out[-1] = 0;
}

static void change_input(struct check *c, struct faulty *f)
{
    uintptr_t in = (uintptr_t)f->in;

    (void)c;
    *(float *)in = 3;
}

static void leave_poison(struct check *c, struct faulty *f)
{
    memset(&f->out[N - 1], 0xff, sizeof(float));
    check_close(c, "out", TR_F32, f->out, f->want, N);
}

static void flip_a_bit(struct check *c, struct faulty *f)
{
    float twice[N];

    memcpy(twice, f->out, sizeof(twice));
    twice[N / 2] = tr_bits_f32(tr_f32_bits(twice[N / 2]) ^ 1);
    check_equal(c, "out", TR_F32, f->out, twice, N);
}

static void miss_by_ulps(struct check *c, struct faulty *f)
{
    f->out[3] = tr_bits_f32(tr_f32_bits(f->out[3]) + 3);
    check_close(c, "ulp", TR_F32, f->out, f->want, N);
}

static void miss_exactness(struct check *c, struct faulty *f)
{
    f->out[3] = tr_bits_f32(tr_f32_bits(f->out[3]) + 1);
    check_close(c, "exact", TR_F32, f->out, f->want, N);
}

static void miss_one_element(struct check *c, struct faulty *f)
{
    f->out[5] += 1e-3f;
    check_close(c, "nmse", TR_F32, f->out, f->want, N);
}

static void miss_all_a_little(struct check *c, struct faulty *f)
{
    for (int i = 0; i < N; i++)
        f->out[i] += 1e-5f;
    check_close(c, "nmse", TR_F32, f->out, f->want, N);
}

static void lose_infinity(struct check *c, struct faulty *f)
{
    f->want[0] = INFINITY;
    check_close(c, "out", TR_F32, f->out, f->want, N);
}

static void return_an_error(struct check *c, struct faulty *f)
{
    (void)f;
    check_ok(c, -5);
}

static void lack_a_row(struct check *c, struct faulty *f)
{
    const char *op = c->op;

    c->op = "nothing";
    check_close(c, "out", TR_F32, f->out, f->want, N);
    c->op = op;
}

/* The same call sites with a right result must pass. */
static void control(struct check *c, struct faulty *f)
{
    check_equal(c, "out", TR_F32, f->out, f->in, N);
    check_close(c, "out", TR_F32, f->out, f->want, N);
    check_close(c, "ulp", TR_F32, f->out, f->want, N);
    check_close(c, "exact", TR_F32, f->out, f->want, N);
    check_close(c, "nmse", TR_F32, f->out, f->want, N);
}

/* Every pointer of every op has its place in the table; one that is taken out is missed. */
static void fields_are_complete(struct check *c)
{
    struct field some[32];

    for (enum tr_op_kind kind = 0; kind < TR_OP_KINDS; kind++) {
        while (check_case(c, "fields of op %d", (int)kind)) {
            const struct field_list *list = field_list(kind);
            struct field_list fewer = {some, list->n - 1, list->bytes, list->kind};
            const char *fault = field_list_fault(list);

            check_true(c, !fault, "%s: %s", list->kind, fault ? fault : "");
            for (size_t out = 0; out < list->n; out++) {
                memcpy(some, list->fields, out * sizeof(*some));
                memcpy(some + out, list->fields + out + 1, (fewer.n - out) * sizeof(*some));
                check_true(c, !list->fields[out].pointer || field_list_fault(&fewer),
                           "%s without %s passes for complete", list->kind, list->fields[out].name);
            }
        }
    }
}

static void run_case(struct check *c, const char *name,
                     void (*fn)(struct check *c, struct faulty *f))
{
    while (check_case(c, "%s", name)) {
        struct faulty f = {.in = check_input(c, TR_F32, N, CHECK_UNIFORM),
                           .out = check_output(c, TR_F32, N),
                           .want = check_scratch(c, N * sizeof(double))};

        memcpy(f.out, f.in, N * sizeof(float));
        for (int i = 0; i < N; i++)
            f.want[i] = f.in[i];
        fn(c, &f);
    }
}

void check_harness(struct check *c)
{
    static const struct {
        const char *name;
        void (*fn)(struct check *c, struct faulty *f);
    } mutants[] = {
        {"writes past its buffer", write_past},
        {"writes before its buffer", write_before},
        {"changes an input", change_input},
        {"leaves an element unwritten", leave_poison},
        {"differs in one bit", flip_a_bit},
        {"is off by three ULPs", miss_by_ulps},
        {"is not exact", miss_exactness},
        {"is wrong in one element", miss_one_element},
        {"is a little wrong everywhere", miss_all_a_little},
        {"loses an infinity", lose_infinity},
        {"returns an error", return_an_error},
        {"has no tolerance", lack_a_row},
    };

    run_case(c, "control", control);
    c->state->mutant = 1;
    for (size_t i = 0; i < sizeof(mutants) / sizeof(mutants[0]); i++)
        run_case(c, mutants[i].name, mutants[i].fn);
    c->state->mutant = 0;
    fields_are_complete(c);
    if (c->device)
        check_planted(c);
}
