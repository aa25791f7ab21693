/* SPDX-License-Identifier: Apache-2.0
 *
 * AdaLomo in sixteen lanes. The last columns of the sums, fewer than sixteen, are done one by one.
 */
#include "cpu/adalomo.h"
#include "cpu/split.h"
#include "cpu/update.h"
#include "cpu/update_simd.h"

/* What is the same for a row. */
struct row {
    const float *factor; /* of columns */
    v16 a, rate, decay;
};

static inline void update(float *x, const struct tr_op_update *op, int64_t i, int64_t n,
                          const struct row *row, int64_t column)
{
    v16 w = v16_load(x, n), f = v16_mul(row->a, v16_load(row->factor + column, n));

    if (op->weight_decay != 0)
        w = v16_mul(w, row->decay);
    v16_store(x, v16_fma(row->rate, v16_mul(f, update_gradient(op, i, n)), w), n);
}

static void adalomo(float *x, const struct tr_op_update *op, int64_t begin, int64_t end)
{
    struct row row = {.rate = v16_set(-tr_adalomo_rate(op)),
                      .decay = v16_set(tr_adalomo_decay(op))};

    for (int64_t i = begin; i < end;) {
        int64_t index = i / op->block, n = tr_min64(end, (index + 1) * op->block) - i;

        row.a = v16_set(tr_adalomo_row_factor(op, index));
        row.factor = op->factor + (i - index * op->block);
#define BODY(at, count) update(x + (at), op, i + (at), count, &row, at)
        V16_LOOP(n, BODY);
#undef BODY
        i += n;
        x += n;
    }
}

static void adalomo_columns(const struct tr_op_update *op, const struct tr_adalomo_row *row)
{
    double *plain = row->plain, *weighted = row->weighted;
    int64_t j = 0;

    for (; j + 16 <= row->n; j += 16) {
        v16 g = update_gradient(op, row->begin + j, 16);

        v16d_store(plain + j, v16d_add_square(v16d_load(plain + j), g));
        v16d_store(weighted + j, v16d_add_scaled(v16d_load(weighted + j), g, row->inverse));
    }
    for (; j < row->n; j++) {
        double g = tr_update_gradient(op, row->begin + j), square = g * g;

        plain[j] += square;
        weighted[j] = fma(square, row->inverse, weighted[j]);
    }
}

void TR_TIER_INIT(adalomo)(struct tr_cpu_kernels *k)
{
    k->adalomo = adalomo;
    k->adalomo_columns = adalomo_columns;
}
