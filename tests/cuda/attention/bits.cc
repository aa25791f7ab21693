/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 1: a document's bits are its own. It is computed alone and between others, of odd
 * lengths, whose values are NaN: what is masked contributes exactly nothing. The same comparison
 * must catch the mutants, which are right but for the place where tiles begin; for them the
 * document before holds keys whose probability is exactly 0.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/cuda/attention/case.h"

#define BEFORE 37
#define OWN    150

static size_t input_width(const struct attention_case *c, int i)
{
    return case_width(c, i == INPUT_K || i == INPUT_V ? RESULT_DK : RESULT_O);
}

/* Every query has a 1 where the keys of the document before have a large negative number. */
static void make_weightless(struct attention_case *c)
{
    size_t d = (size_t)c->op.head_dim;

    for (size_t row = 0; row < case_elements(c, RESULT_O); row += d)
        case_set(c, INPUT_Q, row, {1});
    for (size_t row = 0; row < case_elements(c, RESULT_DK); row += d) {
        size_t token = row / case_width(c, RESULT_DK);

        if (token < BEFORE)
            case_set(c, INPUT_K, row, {-30000});
    }
}

static void make_nan(struct attention_case *c)
{
    for (int i = 0; i < INPUTS; i++) {
        size_t width = input_width(c, i), n = (size_t)c->op.n - BEFORE - OWN;

        case_set(c, (enum input)i, 0, std::vector<double>(BEFORE * width, NAN));
        case_set(c, (enum input)i, (BEFORE + OWN) * width, std::vector<double>(n * width, NAN));
    }
}

/* The middle document of `inside` on its own. */
static void open_alone(struct attention_case *alone, const struct attention_case *inside)
{
    struct shape s = inside->shape;

    s.docs = 1;
    s.length[0] = OWN;
    case_open(alone, &s, inside->op.dtype, 1);
    for (int i = 0; i < INPUTS; i++) {
        size_t width = input_width(inside, i);
        const double *from = inside->input[i].data() + BEFORE * width;

        case_set(alone, (enum input)i, 0, std::vector<double>(from, from + OWN * width));
    }
}

/* Bit r for each result that differs. */
static int compare(const struct attention_case *alone, const struct attention_case *inside)
{
    int different = 0;

    for (int i = 0; i < RESULTS; i++) {
        enum result r = (enum result)i;
        size_t width = case_width(alone, r), size = tr_dtype_size(case_dtype(alone, r));

        if (memcmp(case_bytes(alone, r, 0), case_bytes(inside, r, BEFORE * width),
                   OWN * width * size))
            different |= 1 << i;
    }
    return different;
}

static int check_kernels(const struct shape *s, enum tr_dtype dtype, int sm)
{
    struct attention_case inside, alone;
    int different;

    case_open(&inside, s, dtype, 7);
    make_nan(&inside);
    open_alone(&alone, &inside);
    if (case_run(&inside, sm) || case_run(&alone, sm))
        return 1;
    different = compare(&alone, &inside);
    for (int r = 0; r < RESULTS; r++)
        if (different & 1 << r)
            fprintf(stderr, "%s head_dim %d window %d sm %d: %s depends on other documents\n",
                    dtype_name[dtype], s->head_dim, s->window, sm, result_name[r]);
    return different != 0;
}

/* Whether all results of the document are right. */
static bool right(const struct attention_case *inside, const struct attention_case *alone)
{
    struct reference wanted;

    reference_run(&wanted, alone);
    for (int i = 0; i < RESULTS; i++) {
        enum result r = (enum result)i;
        size_t skip = BEFORE * case_width(inside, r);

        for (size_t j = 0; j < wanted.value[i].size(); j++)
            if (!(fabs(case_value(inside, r, skip + j) - wanted.value[i][j]) <=
                  wanted.allowed[i][j]))
                return false;
    }
    return true;
}

static int complain(enum tr_dtype dtype, const char *what)
{
    fprintf(stderr, "%s: %s\n", dtype_name[dtype], what);
    return 1;
}

/* A mutant passes for right and is found by its bits alone. */
static int check_mutants(const struct shape *of, enum tr_dtype dtype)
{
    struct shape s = *of;
    const int gradients = 1 << RESULT_DQ | 1 << RESULT_DK | 1 << RESULT_DV;
    const int outputs = 1 << RESULT_O | 1 << RESULT_LSE;
    struct attention_case inside, alone;
    struct tr_cuda cuda = {};
    int failed = 0;

    cuda.sm = 80;
    s.docs = 2; /* a mutant's third would take the end of the second for its own */
    case_open(&inside, &s, dtype, 7);
    make_weightless(&inside);
    open_alone(&alone, &inside);
    if (case_run(&alone, 80) || case_run(&inside, 80) || compare(&alone, &inside))
        failed = complain(dtype, "a document before changes the bits");
    if (mutant_attention_grad(&cuda, &inside.op) || !right(&inside, &alone))
        failed = complain(dtype, "the backward mutant is wrong");
    /* Plain sums go element by element, however they are cut. */
    if (compare(&alone, &inside) != (dtype == TR_F32 ? 0 : gradients))
        failed = complain(dtype, "the backward mutant is not caught");
    if (case_run(&inside, 80) || mutant_attention(&cuda, &inside.op) || !right(&inside, &alone))
        failed = complain(dtype, "the forward mutant is wrong");
    if (compare(&alone, &inside) != outputs)
        failed = complain(dtype, "the forward mutant is not caught");
    return failed;
}

/* A kept frame's rows begin where its micro-batch does: heads of 40 bytes, three to a token, lie on
 * 8 bytes at every odd token. */
static int check_place(enum tr_dtype dtype)
{
    const struct shape s = {3, 1, 20, 0, 1, {OWN}};
    struct attention_case c;
    struct tr_cuda cuda = {};
    std::vector<unsigned char> o, d_o, dq;
    size_t bytes;

    cuda.sm = 80;
    case_open(&c, &s, dtype, 3);
    if (case_run(&c, 80))
        return complain(dtype, "attention does not run");
    bytes = case_elements(&c, RESULT_O) * tr_dtype_size(dtype);
    dq.assign(case_bytes(&c, RESULT_DQ, 0), case_bytes(&c, RESULT_DQ, 0) + bytes);
    o.resize(bytes + 8);
    d_o.resize(bytes + 8);
    memcpy(o.data() + 8, c.op.o, bytes);
    memcpy(d_o.data() + 8, c.op.d_o, bytes);
    c.op.o = o.data() + 8;
    c.op.d_o = d_o.data() + 8;
    if (tr_cuda_attention_grad(&cuda, &c.op) ||
        memcmp(dq.data(), case_bytes(&c, RESULT_DQ, 0), bytes))
        return complain(dtype, "the gradient depends on where o lies");
    return 0;
}

int bits_check(void)
{
    const struct shape plain = {2, 1, 33, 0, 3, {BEFORE, OWN, 5}};
    const struct shape tensor = {2, 1, 64, 0, 3, {BEFORE, OWN, 5}};
    const struct shape odd = {2, 1, 20, 0, 3, {BEFORE, OWN, 5}};
    const struct shape more = {4, 2, 64, 0, 3, {BEFORE, OWN, 5}};
    const struct shape wide = {1, 1, 128, 70, 3, {BEFORE, OWN, 5}};
    int failures = 0;

    failures += check_kernels(&plain, TR_F32, 80);
    failures += check_kernels(&plain, TR_BF16, 80);
    failures += check_kernels(&odd, TR_BF16, 80);
    failures += check_kernels(&tensor, TR_BF16, 80);
    failures += check_kernels(&tensor, TR_F16, 86);
    failures += check_kernels(&wide, TR_BF16, 80);
    failures += check_kernels(&wide, TR_BF16, 86);
    failures += check_kernels(&wide, TR_BF16, 90);
    failures += check_place(TR_BF16);
    failures += check_mutants(&plain, TR_F32);
    failures += check_mutants(&more, TR_F16); /* finer than bf16: more bits to tell by */
    return failures;
}
