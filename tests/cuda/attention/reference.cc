/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention in double from the same inputs, and how far from it a result may be. With u the
 * rounding of the dtype (at most 2^-8 of the value for bf16, 2^-11 for f16, 2^-24 for f32), an
 * error has these parts:
 *
 *   - the rounding of the result itself, u |x| (of f16 below 2^-14, as if it were 2^-14);
 *   - that of the operands of the last product, p or ds, each by up to u: they are independent of
 *     each other, with a standard deviation of u / sqrt(3) at most, so that 4 u times the root of
 *     the sum of squared terms is seven standard deviations (a sum of |terms| would forgive a
 *     missing key);
 *   - ds has delta = d_o . o from the rounded o: errors 4 u |d_o o|, one for all keys of a query;
 *   - arithmetic in f32: a sum loses a few 2^-24 of its |terms|: 8 of those of the last product,
 *     with those of dp and delta inside ds, and p, all alike, 2 of those of its score and 2 of
 *     those of the score that rules lse.
 */
#include <math.h>

#include "tests/cuda/attention/case.h"

/* Of each element: the sum, of squared and of absolute terms. */
struct sums {
    std::vector<double> sum, squares, sizes;
};

struct state {
    const struct attention_case *c;
    struct sums results[RESULTS];
    std::vector<double> p; /* of one query, by key */
    double normal;         /* below it values are rounded as if they were as large */
    double loss;           /* of f32 for the query, in roundings */
};

/* size: what f32 can lose of the term, in units of 2^-24. */
static void add(struct sums *s, size_t i, double term, double error, double size)
{
    s->sum[i] += term;
    s->squares[i] += error * error;
    s->sizes[i] += size;
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double dot_sizes(const double *a, const double *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += fabs(a[i] * b[i]);
    return sum;
}

static double dot_squares(const double *a, const double *b, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i] * a[i] * b[i];
    return sum;
}

/* Rows of one query and one of its keys. */
struct place {
    size_t query, first, d; /* first: the first key in sight */
    size_t row, q;          /* in lse, in queries' tensors */
    size_t kv_heads, kv;
};

static size_t key_row(const struct place *at, size_t key)
{
    return (key * at->kv_heads + at->kv) * at->d;
}

static void forward(struct state *s, const struct place *at)
{
    const struct attention_case *c = s->c;
    double max = -INFINITY, largest = 0, sum = 0;

    for (size_t j = at->first; j <= at->query; j++) {
        const double *q = &c->input[INPUT_Q][at->q], *k = &c->input[INPUT_K][key_row(at, j)];

        s->p[j] = c->op.scale * dot(q, k, at->d);
        max = fmax(max, s->p[j]);
        largest = fmax(largest, c->op.scale * dot_sizes(q, k, at->d));
    }
    for (size_t j = at->first; j <= at->query; j++)
        sum += s->p[j] = exp(s->p[j] - max);
    s->loss = 8 + 4 * largest;
    add(&s->results[RESULT_LSE], at->row, max + log(sum), 0, s->loss);
    for (size_t j = at->first; j <= at->query; j++) {
        s->p[j] /= sum;
        for (size_t i = 0; i < at->d; i++) {
            double term = s->p[j] * c->input[INPUT_V][key_row(at, j) + i];

            add(&s->results[RESULT_O], at->q + i, term,
                fmax(s->p[j], s->normal) * c->input[INPUT_V][key_row(at, j) + i],
                s->loss * fabs(term));
        }
    }
}

static void backward(struct state *s, const struct place *at)
{
    const struct attention_case *c = s->c;
    const double *d_o = &c->input[INPUT_DO][at->q], *o = &s->results[RESULT_O].sum[at->q];
    const double *q = &c->input[INPUT_Q][at->q];
    double delta = dot(d_o, o, at->d), delta_error = sqrt(dot_squares(d_o, o, at->d));
    double delta_size = dot_sizes(d_o, o, at->d);
    std::vector<double> coherent(at->d);

    for (size_t j = at->first; j <= at->query; j++) {
        size_t k = key_row(at, j);
        const double *v = &c->input[INPUT_V][k], *key = &c->input[INPUT_K][k];
        double weight = s->p[j] * c->op.scale, ds = weight * (dot(d_o, v, at->d) - delta);
        double size = s->loss * weight * (dot_sizes(d_o, v, at->d) + delta_size);
        double rounded = fmax(fabs(ds), s->normal), p = fmax(s->p[j], s->normal);
        double error = sqrt(rounded * rounded + weight * weight * delta_error * delta_error);

        for (size_t i = 0; i < at->d; i++) {
            double dv = s->p[j] * d_o[i];

            coherent[i] += weight * key[i];
            add(&s->results[RESULT_DQ], at->q + i, ds * key[i], rounded * key[i],
                size * fabs(key[i]));
            add(&s->results[RESULT_DK], k + i, ds * q[i], error * q[i], size * fabs(q[i]));
            add(&s->results[RESULT_DV], k + i, dv, p * d_o[i], s->loss * fabs(dv));
        }
    }
    for (size_t i = 0; i < at->d; i++)
        add(&s->results[RESULT_DQ], at->q + i, 0, coherent[i] * delta_error, 0);
}

static void run_query(struct state *s, size_t query, size_t head)
{
    const struct tr_op_attention *op = &s->c->op;
    size_t first = (size_t)op->doc_first[query], window = (size_t)op->window;
    struct place at = {};

    at.query = query;
    at.first = window && query + 1 > first + window ? query + 1 - window : first;
    at.d = (size_t)op->head_dim;
    at.kv_heads = (size_t)op->kv_heads;
    at.kv = head / (size_t)(op->heads / op->kv_heads);
    at.row = query * (size_t)op->heads + head;
    at.q = at.row * at.d;
    forward(s, &at);
    backward(s, &at);
}

void reference_run(struct reference *r, const struct attention_case *c)
{
    double u = c->op.dtype == TR_F32 ? 0x1p-24 : c->op.dtype == TR_BF16 ? 0x1p-8 : 0x1p-11;
    struct state s;

    s.c = c;
    s.p.resize((size_t)c->op.n);
    s.normal = c->op.dtype == TR_F16 ? 0x1p-14 : 0;
    for (int i = 0; i < RESULTS; i++) {
        size_t n = case_elements(c, (enum result)i);

        s.results[i].sum.assign(n, 0);
        s.results[i].squares.assign(n, 0);
        s.results[i].sizes.assign(n, 0);
    }
    for (size_t t = 0; t < (size_t)c->op.n; t++)
        for (size_t h = 0; h < (size_t)c->op.heads; h++)
            run_query(&s, t, h);
    for (int i = 0; i < RESULTS; i++) {
        const struct sums *sums = &s.results[i];
        double rounding = i == RESULT_LSE ? 0x1p-24 : u;

        r->value[i] = sums->sum;
        r->allowed[i].resize(sums->sum.size());
        for (size_t j = 0; j < sums->sum.size(); j++)
            r->allowed[i][j] =
                rounding * (fmax(fabs(sums->sum[j]), s.normal) + 4 * sqrt(sums->squares[j])) +
                0x1p-24 * sums->sizes[j] + 1e-30;
    }
}
