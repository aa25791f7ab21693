/* SPDX-License-Identifier: Apache-2.0
 *
 * The two products with a weight matrix: y = x w^T (+ bias) and dx = dy w. Both are out (n,
 * columns) = in (n, depth) times w, w being stored (columns, depth) or (depth, columns).
 *
 * The grid: columns in tiles, the rows of each grain in tiles, and the depth in blocks that are
 * added in order by beta = 1. One cell of the grid is one single-threaded sgemm whose shape follows
 * from the shapes of grain and weight alone, so neither threads nor the grains beside it change its
 * bits. A worker takes a run of cells, column tile by column tile; 16-bit weights are widened to
 * f32 once per column tile and depth block, into the worker's scratch, and serve all its rows.
 */
#include <limits.h>

#include "cpu/blas.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/tile.h"
#include "src/base/err.h"

#define ROWS  512 /* of a tile, where the columns alone give work to four cores */
#define DEPTH 320 /* most of one block; what sgemm packs at a time with most kernel types */

_Static_assert(TR_TILE_MAX *DEPTH * sizeof(float) <= TR_CPU_SCRATCH_BYTES, "panel in scratch");

struct product {
    const struct tr_cpu *cpu;
    const void *w, *bias;
    enum tr_dtype w_dtype;
    const float *in;  /* (n, depth) */
    float *out;       /* (n, columns) */
    int w_by_columns; /* w is (columns, depth), else (depth, columns) */
    int add;
    struct tr_ranges grains;
    struct tr_tiles columns, depth;
    int64_t rows;      /* target of a row tile */
    int64_t row_tiles; /* over all grains */
};

static struct tr_tiles grain_tiles(const struct product *p, int32_t g)
{
    return tr_tiles_of(p->grains.start[g + 1] - p->grains.start[g], p->rows);
}

static int64_t count_row_tiles(const struct product *p)
{
    int64_t count = 0;

    for (int32_t g = 0; g < p->grains.n; g++)
        count += grain_tiles(p, g).count;
    return count;
}

/* Row tile i of the op: rows [*begin, *end). */
static void find_row_tile(const struct product *p, int64_t i, int64_t *begin, int64_t *end)
{
    *begin = *end = 0;
    for (int32_t g = 0; g < p->grains.n; g++) {
        struct tr_tiles t = grain_tiles(p, g);

        if (i < t.count) {
            *begin = p->grains.start[g] + tr_tile_begin(&t, i);
            *end = p->grains.start[g] + tr_tile_end(&t, i);
            return;
        }
        i -= t.count;
    }
}

struct panel {
    int64_t c0, c1, d0, d1; /* columns and depths */
    const float *w;
    int64_t ld;
};

static void open_panel(const struct product *p, struct panel *t, int worker)
{
    int64_t w_ld = p->w_by_columns ? p->depth.n : p->columns.n;
    int64_t r0 = p->w_by_columns ? t->c0 : t->d0, r1 = p->w_by_columns ? t->c1 : t->d1;
    int64_t e0 = p->w_by_columns ? t->d0 : t->c0, e1 = p->w_by_columns ? t->d1 : t->c1;
    size_t size = tr_dtype_size(p->w_dtype);
    const char *from = (const char *)p->w + (size_t)(r0 * w_ld + e0) * size;
    float *to = tr_cpu_scratch(p->cpu, worker);

    if (p->w_dtype == TR_F32) {
        t->w = (const float *)from;
        t->ld = w_ld;
        return;
    }
    t->w = to;
    t->ld = e1 - e0;
    for (int64_t r = r0; r < r1; r++, to += t->ld, from += (size_t)w_ld * size)
        p->cpu->kernels->to_f32[p->w_dtype](to, from, e1 - e0);
}

static void multiply(const struct product *p, const struct panel *t, int64_t r0, int64_t r1)
{
    struct tr_gemm g = {.rows = r1 - r0,
                        .cols = t->c1 - t->c0,
                        .k = t->d1 - t->d0,
                        .a = p->in + r0 * p->depth.n + t->d0,
                        .b = t->w,
                        .c = p->out + r0 * p->columns.n + t->c0,
                        .lda = p->depth.n,
                        .ldb = t->ld,
                        .ldc = p->columns.n,
                        .b_trans = p->w_by_columns,
                        .beta = t->d0 > 0 || p->add ? 1.0f : 0.0f};

    tr_blas_gemm(p->cpu->blas, &g);
}

static void add_bias(const struct product *p, const struct panel *t, int64_t r0, int64_t r1)
{
    float bias[TR_TILE_MAX];
    int64_t n = t->c1 - t->c0;

    p->cpu->kernels->to_f32[p->w_dtype](
        bias, (const char *)p->bias + (size_t)t->c0 * tr_dtype_size(p->w_dtype), n);
    for (int64_t r = r0; r < r1; r++) {
        float *out = p->out + r * p->columns.n + t->c0;

        p->cpu->kernels->add(out, out, bias, n);
    }
}

/* Row tiles [first, last) of one column tile. */
static void do_column_tile(const struct product *p, int64_t column, int64_t first, int64_t last,
                           int worker)
{
    struct panel t = {.c0 = tr_tile_begin(&p->columns, column),
                      .c1 = tr_tile_end(&p->columns, column)};
    int64_t r0, r1;

    for (int64_t d = 0; d < p->depth.count; d++) {
        t.d0 = tr_tile_begin(&p->depth, d);
        t.d1 = tr_tile_end(&p->depth, d);
        open_panel(p, &t, worker);
        for (int64_t i = first; i < last; i++) {
            find_row_tile(p, i, &r0, &r1);
            multiply(p, &t, r0, r1);
        }
    }
    for (int64_t i = first; i < last && p->bias; i++) {
        find_row_tile(p, i, &r0, &r1);
        add_bias(p, &t, r0, r1);
    }
}

static void do_cells(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct product *p = arg;

    while (begin < end) {
        int64_t first = begin % p->row_tiles, last = first + (end - begin);

        if (last > p->row_tiles)
            last = p->row_tiles;
        do_column_tile(p, begin / p->row_tiles, first, last, worker);
        begin += last - first;
    }
}

int tr_matmul_check(const struct tr_op_matmul *op)
{
    if (op->m < 1 || op->k < 1 || op->m > INT_MAX || op->k > INT_MAX)
        return tr_error(-EINVAL, "matmul: a weight of %lld x %lld is outside 1 to 2^31 - 1",
                        (long long)op->m, (long long)op->k);
    if (op->grains.n < 1 || op->grains.start[op->grains.n] != op->n)
        return tr_error(-EINVAL, "matmul: the grains do not cover the %lld tokens",
                        (long long)op->n);
    return 0;
}

static int run_product(const struct product *shape, int64_t columns, int64_t depth)
{
    struct product p = *shape;

    if (p.w_dtype != TR_F32 && p.cpu->f32_only)
        return tr_error(-EINVAL, "matmul: %s weights on a cpu device opened for f32 alone",
                        tr_dtype_name(p.w_dtype));
    p.columns = tr_tiles_across(columns);
    p.depth = tr_tiles_up_to(depth, DEPTH);
    p.rows = p.columns.count < 4 ? ROWS * p.columns.count / 4 : ROWS;
    p.row_tiles = count_row_tiles(&p);
    tr_pool_run(p.cpu->pool, p.columns.count * p.row_tiles, 1, do_cells, &p);
    return 0;
}

int tr_cpu_matmul(const struct tr_cpu *cpu, const struct tr_op_matmul *op)
{
    struct product p = {.cpu = cpu,
                        .w = op->w,
                        .bias = op->bias,
                        .w_dtype = op->w_dtype,
                        .in = op->x,
                        .out = op->y,
                        .w_by_columns = 1,
                        .grains = op->grains};
    int error = tr_matmul_check(op);

    return error ? error : run_product(&p, op->m, op->k);
}

int tr_cpu_matmul_dx(const struct tr_cpu *cpu, const struct tr_op_matmul *op)
{
    struct product p = {.cpu = cpu,
                        .w = op->w,
                        .w_dtype = op->w_dtype,
                        .in = op->dy,
                        .out = op->dx,
                        .add = op->add,
                        .grains = op->grains};
    int error = tr_matmul_check(op);

    return error ? error : run_product(&p, op->k, op->m);
}
