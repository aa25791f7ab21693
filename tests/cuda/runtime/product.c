/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks of 16 x 4 elements: both inputs are packed to f32 with k outermost, edges filled with
 * zeros, and every element of a block is summed by the same instructions.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/runtime/product.h"

enum { ROWS = 16, COLUMNS = 4, LANES = 4 };

typedef float lanes __attribute__((vector_size(4 * LANES)));

/* to[l * width + i] = element (first + i, l) for i < count, 0 up to width. */
static void pack(float *to, const struct fake_matrix *x, const int64_t shape[2], int64_t first,
                 int width)
{
    int64_t count = shape[0] - first < width ? shape[0] - first : width;

    for (int64_t l = 0; l < shape[1]; l++)
        for (int64_t i = 0; i < width; i++)
            to[l * width + i] =
                i < count
                    ? tr_load_f32(x->data, x->dtype, (size_t)((first + i) * x->row + l * x->column))
                    : 0;
}

/* What is packed is this call's alone: there is no race in it. */
__attribute__((no_sanitize("thread"))) static void sum_block(float *sum, const float *a,
                                                             const float *b, int64_t k)
{
    lanes s[COLUMNS][ROWS / LANES] = {0};

    for (int64_t l = 0; l < k; l++, a += ROWS, b += COLUMNS) {
        lanes x[ROWS / LANES];

        memcpy(x, a, sizeof(x));
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; j++)
#pragma GCC unroll 4
            for (int i = 0; i < ROWS / LANES; i++)
                s[j][i] += x[i] * b[j];
    }
    memcpy(sum, s, sizeof(s));
}

/* One block's sums over all parts of k. */
static void block(const struct fake_product *p, float *sum, const float *a, const float *b)
{
    float part[ROWS * COLUMNS];

    for (int64_t i = 0, done = 0; i < p->parts; i++) {
        int64_t end = p->k * (i + 1) / p->parts;

        sum_block(i ? part : sum, a + done * ROWS, b + done * COLUMNS, end - done);
        for (int e = 0; i && e < ROWS * COLUMNS; e++)
            sum[e] += part[e];
        done = end;
    }
}

static void finish(const struct fake_product *p, int64_t i, int64_t j, float sum)
{
    float y = p->alpha * sum;

    if (p->beta != 0)
        y += p->beta * tr_load_f32(p->c.data, p->c.dtype, (size_t)(i * p->c.row + j * p->c.column));
    if (p->bias)
        y += tr_load_f32(p->bias, p->bias_dtype, (size_t)i);
    tr_store_f32(p->d.data, p->d.dtype, (size_t)(i * p->d.row + j * p->d.column), y);
}

/* The block at (i0, j0): into the workspace where there is one, else straight to d. */
static void put(const struct fake_product *p, int64_t i0, int64_t j0, const float *sum)
{
    for (int64_t j = j0; j < p->n && j < j0 + COLUMNS; j++)
        for (int64_t i = i0; i < p->m && i < i0 + ROWS; i++) {
            float s = sum[(j - j0) * ROWS + i - i0];

            if (p->sums)
                p->sums[j * p->m + i] = s;
            else
                finish(p, i, j, s);
        }
}

static void one_batch(const struct fake_product *p, float *a, float *b)
{
    struct fake_matrix bt = p->b;
    float sum[ROWS * COLUMNS];

    bt.row = p->b.column;
    bt.column = p->b.row;
    for (int64_t i = 0; i < p->m; i += ROWS)
        pack(a + i * p->k, &p->a, (const int64_t[]){p->m, p->k}, i, ROWS);
    for (int64_t j = 0; j < p->n; j += COLUMNS) {
        pack(b, &bt, (const int64_t[]){p->n, p->k}, j, COLUMNS);
        for (int64_t i = 0; i < p->m; i += ROWS) {
            block(p, sum, a + i * p->k, b);
            put(p, i, j, sum);
        }
    }
    for (int64_t j = 0; p->sums && j < p->n; j++)
        for (int64_t i = 0; i < p->m; i++)
            finish(p, i, j, p->sums[j * p->m + i]);
}

static void next_batch(struct fake_matrix *x)
{
    x->data = (char *)x->data + x->batch * (int64_t)tr_dtype_size(x->dtype);
}

int fake_product_run(const struct fake_product *product)
{
    struct fake_product p = *product;
    size_t rows = (size_t)(p.m + ROWS - 1) / ROWS * ROWS, k = (size_t)p.k;
    float *a = malloc((rows * k + 1) * sizeof(*a)), *b = malloc((COLUMNS * k + 1) * sizeof(*b));
    int ok = a && b;

    for (int64_t i = 0; ok && i < p.batches; i++) {
        one_batch(&p, a, b);
        next_batch(&p.a);
        next_batch(&p.b);
        next_batch(&p.c);
        next_batch(&p.d);
    }
    free(a);
    free(b);
    return ok ? 0 : -1;
}
