/* SPDX-License-Identifier: Apache-2.0 */
#include "src/infer/sample.h"

#include <math.h>
#include <stdlib.h>

#include "src/base/philox.h"

int32_t sample_likeliest(const float *x, int32_t n)
{
    int32_t best = 0;

    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best] || isnan(x[best]))
            best = i;
    return best;
}

/* Uniform in [0, 1), 53 bits. */
static double draw(const struct sample_params *s)
{
    struct tr_philox c = {{(uint32_t)s->sequence, (uint32_t)(s->sequence >> 32),
                           (uint32_t)s->position, (uint32_t)(s->position >> 32)}};
    struct tr_philox r = tr_philox4x32(c, (uint32_t)s->seed, (uint32_t)(s->seed >> 32));

    return (double)((uint64_t)r.v[0] << 21 | r.v[1] >> 11) * 0x1p-53;
}

/* Of a logit, by the largest; infinite ones are not subtracted, as the largest may be one. */
static double share_of(double x, double most, double temperature)
{
    if (x == most)
        return 1;
    return isfinite(x) ? exp((x - most) / temperature) : 0;
}

/* Shares that are not normed; returns their sum. */
static double weigh(struct sample_entry *w, const float *x, int32_t n,
                    const struct sample_params *s, double most)
{
    double sum = 0;

    for (int32_t i = 0; i < n; i++) {
        w[i] = (struct sample_entry){share_of(x[i], most, s->temperature), i};
        sum += w[i].p;
    }
    return sum;
}

/* The largest share first; equal ones in the order of their ids, whatever the sort. */
static int larger_first(const void *a, const void *b)
{
    const struct sample_entry *x = a, *y = b;

    if (x->p != y->p)
        return x->p < y->p ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Moves those that are at least so large to the front; returns how many. */
static int32_t move_up(struct sample_entry *w, int32_t n, double least)
{
    int32_t kept = 0;

    for (int32_t i = 0; i < n; i++)
        if (w[i].p >= least) {
            struct sample_entry larger = w[i];

            w[i] = w[kept];
            w[kept++] = larger;
        }
    return kept;
}

/* Keeps the fewest whose shares reach top_p of the sum; returns how many, and their sum. A sort of
 * a whole vocabulary takes longer than a small model's pass: what together is no more than half of
 * what need not be reached is left out of it, as long as rounding cannot make up the other half. */
static int32_t keep_nucleus(struct sample_entry *w, int32_t n, double top_p, double *sum)
{
    double enough = top_p * *sum, rest = *sum - enough, kept = 0;
    int32_t most = move_up(w, n, rest > 1e-9 * *sum ? rest / 2 / n : 0), i = 0;

    qsort(w, (size_t)most, sizeof(*w), larger_first);
    do
        kept += w[i++].p;
    while (i < most && kept < enough);
    *sum = kept;
    return i;
}

int32_t sample_token(const struct sample_params *s, const float *logits, int32_t n,
                     struct sample_entry *w)
{
    int32_t likeliest = sample_likeliest(logits, n), i = 0;
    double sum, at;

    if (isnan(logits[likeliest]))
        return -1;
    if (s->temperature <= 0)
        return likeliest;
    sum = weigh(w, logits, n, s, logits[likeliest]);
    if (s->top_p > 0 && s->top_p < 1)
        n = keep_nucleus(w, n, s->top_p, &sum);
    at = draw(s) * sum;
    while (i < n - 1 && (at -= w[i].p) >= 0)
        i++;
    while (i > 0 && !(w[i].p > 0)) /* rounding may lead past the last that can be drawn */
        i--;
    return w[i].id;
}
