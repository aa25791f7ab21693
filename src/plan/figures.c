/* SPDX-License-Identifier: Apache-2.0
 *
 * From an op to what it costs. Updates come last among the kinds; one that is not told apart here
 * counts as the plain one.
 */
#include "src/plan/figures.h"

#include <math.h>

#include "src/base/code8.h"

static const char *const names[TR_COST_ROWS] = {
    [TR_COST_MATMUL] = "matmul",
    [TR_COST_MATMUL_DX] = "matmul_dx",
    [TR_COST_MATMUL_DW] = "matmul_dw",
    [TR_COST_ATTENTION] = "attention",
    [TR_COST_ATTENTION_GRAD] = "attention_grad",
    [TR_COST_EMBED] = "embed",
    [TR_COST_EMBED_GRAD] = "embed_grad",
    [TR_COST_NORM] = "rmsnorm",
    [TR_COST_NORM_GRAD] = "rmsnorm_grad",
    [TR_COST_ROPE] = "rope",
    [TR_COST_SWIGLU] = "swiglu",
    [TR_COST_SWIGLU_GRAD] = "swiglu_grad",
    [TR_COST_ADD] = "add",
    [TR_COST_XENT] = "xent",
    [TR_COST_XENT_GRAD] = "xent_grad",
    [TR_COST_SUMSQ] = "sumsq",
    [TR_COST_SGD] = "sgd",
    [TR_COST_ADAMW] = "adamw",
    [TR_COST_MOMENTUM] = "momentum",
    [TR_COST_ADAM_MINI] = "adam_mini",
    [TR_COST_ADALOMO_SUM] = "adalomo_sum",
    [TR_COST_ADALOMO] = "adalomo",
    [TR_COST_ADAMW_BF16] = "adamw_bf16",
    [TR_COST_MOMENTUM_BF16] = "momentum_bf16",
    [TR_COST_ADAM_MINI_BF16] = "adam_mini_bf16",
    [TR_COST_ADAMW_8BIT] = "adamw_8bit",
    [TR_COST_MOMENTUM_8BIT] = "momentum_8bit",
    [TR_COST_ADAM_MINI_8BIT] = "adam_mini_8bit",
};

const char *tr_cost_row_name(enum tr_cost_row row)
{
    return names[row];
}

enum tr_cost_row tr_cost_row_plain(enum tr_cost_row row)
{
    int first = row >= TR_COST_ADAMW_8BIT   ? TR_COST_ADAMW_8BIT
                : row >= TR_COST_ADAMW_BF16 ? TR_COST_ADAMW_BF16
                                            : TR_COST_ADAMW;

    return (enum tr_cost_row)(row - first + TR_COST_ADAMW);
}

static enum tr_width width_of(enum tr_dtype dtype)
{
    return dtype == TR_F32 ? TR_WIDTH_32 : TR_WIDTH_16;
}

static double size_of(enum tr_dtype dtype)
{
    return (double)tr_dtype_size(dtype);
}

static struct tr_op_cost bytes_of(enum tr_cost_row row, enum tr_dtype dtype, double bytes)
{
    return (struct tr_op_cost){row, width_of(dtype), {{1, bytes, 0, 0}}};
}

/* A weight gradient goes through its whole matrix once for each grain. */
static struct tr_op_cost product(enum tr_cost_row row, const struct tr_op_matmul *m)
{
    double grains = m->grains.n > 1 ? m->grains.n : 1, n = (double)m->n;
    double weights = (double)m->m * (double)m->k;

    return (struct tr_op_cost){
        row,
        width_of(row == TR_COST_MATMUL_DW ? m->in_dtype : m->w_dtype),
        {{grains, n * weights, row == TR_COST_MATMUL_DW ? grains * weights : weights,
          n * (double)(m->m + m->k)}}};
}

/* Pairs of a query and a key that it sees, inside documents. */
static double count_pairs(const struct tr_op_attention *a)
{
    double pairs = 0;

    for (int32_t d = 0; d < a->docs.n; d++) {
        double n = a->docs.start[d + 1] - a->docs.start[d], w = (double)a->window;

        pairs += w > 0 && w < n ? w * (w + 1) / 2 + (n - w) * w : n * (n + 1) / 2;
    }
    return pairs;
}

static struct tr_op_cost attention(enum tr_cost_row row, const struct tr_op_attention *a)
{
    double width = (double)(a->heads * a->head_dim), kv = (double)(a->kv_heads * a->head_dim);

    return (struct tr_op_cost){
        row,
        width_of(a->dtype),
        {{1, count_pairs(a) * width, 0, (double)a->n * (2 * width + 2 * kv)}}};
}

static struct tr_op_cost norm(enum tr_cost_row row, const struct tr_op_rmsnorm *r)
{
    double each = size_of(r->x_dtype) + (row == TR_COST_NORM ? 1 : 2) * size_of(r->y_dtype);

    return bytes_of(row, r->x_dtype, (double)r->rows * (double)r->cols * each);
}

/* Ids outside the slice are only looked at; one row in so many is copied or added to. */
static struct tr_op_cost embed(enum tr_cost_row row, const struct tr_op_embed *e)
{
    double each = row == TR_COST_EMBED ? 2 * size_of(e->dtype) : 12;

    return bytes_of(row, row == TR_COST_EMBED ? e->dtype : TR_F32,
                    (double)e->n * (double)e->cols * each);
}

/* Of an optimizer whose state is in this type. */
static enum tr_cost_row with_state(enum tr_cost_row row, enum tr_dtype dtype)
{
    int first = dtype == TR_8BIT   ? TR_COST_ADAMW_8BIT
                : dtype == TR_BF16 ? TR_COST_ADAMW_BF16
                                   : TR_COST_ADAMW;

    return (enum tr_cost_row)(row - TR_COST_ADAMW + first);
}

/* Weights and gradients, and what is as large as they: one mean or two, a master, read and
 * written. */
static struct tr_op_cost update(enum tr_cost_row row, const struct tr_op_update *u)
{
    double means = row == TR_COST_ADAMW                                  ? 2
                   : row == TR_COST_MOMENTUM || row == TR_COST_ADAM_MINI ? 1
                                                                         : 0;
    double ways = row == TR_COST_ADALOMO_SUM ? 1 : 2, weight = ways * size_of(u->dtype);
    double master =
        ways * (2 * (u->master_kind == TR_MASTER_SPLIT) + 4 * (u->master_kind == TR_MASTER_F32));
    double state = (double)tr_state_bytes(u->state_dtype, (uint64_t)u->n);

    return bytes_of(means > 0 ? with_state(row, u->state_dtype) : row, u->dtype,
                    (double)u->n * (weight + master + 4) + 2 * means * state);
}

static struct tr_op_cost any_update(const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_ADAMW:
        return update(TR_COST_ADAMW, &op->update);
    case TR_OP_MOMENTUM:
        return update(TR_COST_MOMENTUM, &op->update);
    case TR_OP_ADAM_MINI:
        return update(TR_COST_ADAM_MINI, &op->update);
    case TR_OP_ADALOMO_SUM:
        return update(TR_COST_ADALOMO_SUM, &op->update);
    case TR_OP_ADALOMO_FACTOR: /* its sums are gone through once */
        return bytes_of(TR_COST_ADALOMO_SUM, TR_F32,
                        (double)(tr_adalomo_sums((uint64_t)op->update.block) * sizeof(double)));
    case TR_OP_ADALOMO:
        return update(TR_COST_ADALOMO, &op->update);
    default:
        return update(TR_COST_SGD, &op->update);
    }
}

static struct tr_op_cost small(const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_BIAS_GRAD:
        return bytes_of(TR_COST_SUMSQ, TR_F32,
                        (double)op->bias_grad.n * (double)op->bias_grad.m *
                            size_of(op->bias_grad.dtype));
    case TR_OP_ROPE:
        return bytes_of(TR_COST_ROPE, op->rope.dtype,
                        (double)(op->rope.n * op->rope.heads * op->rope.head_dim) * 2 *
                            size_of(op->rope.dtype));
    case TR_OP_ATTENTION_CACHED: /* moves rows; what of the cache is read the op does not say */
        return bytes_of(TR_COST_ROPE, op->attention_cached.dtype,
                        (double)(op->attention_cached.n * op->attention_cached.kv_heads *
                                 op->attention_cached.head_dim) *
                            4 * size_of(op->attention_cached.dtype));
    case TR_OP_SWIGLU:
        return bytes_of(TR_COST_SWIGLU, op->swiglu.dtype,
                        (double)op->swiglu.n * 3 * size_of(op->swiglu.dtype));
    case TR_OP_SWIGLU_GRAD:
        return bytes_of(TR_COST_SWIGLU_GRAD, op->swiglu.dtype,
                        (double)op->swiglu.n * 5 * size_of(op->swiglu.dtype));
    case TR_OP_XENT:
        return bytes_of(TR_COST_XENT, TR_F32, (double)op->xent.n * (double)op->xent.rows * 4);
    case TR_OP_XENT_LOSS:
        return bytes_of(TR_COST_XENT, TR_F32, (double)op->xent.n * 20);
    case TR_OP_XENT_GRAD:
        return bytes_of(TR_COST_XENT_GRAD, TR_F32,
                        (double)op->xent.n * (double)op->xent.rows * (4 + size_of(op->xent.dtype)));
    case TR_OP_CAST:
        return bytes_of(TR_COST_ADD, op->cast.from_dtype,
                        (double)op->cast.n *
                            (size_of(op->cast.from_dtype) + size_of(op->cast.to_dtype)));
    case TR_OP_SUMSQ:
        return bytes_of(TR_COST_SUMSQ, TR_F32, (double)op->sumsq.n * 4);
    case TR_OP_DROPOUT:
        return bytes_of(TR_COST_ADD, op->dropout.from_dtype,
                        (double)op->dropout.n * (4 + size_of(op->dropout.from_dtype)));
    case TR_OP_ROUND:
        return bytes_of(TR_COST_ADD, TR_F32, (double)op->round.n * 8);
    default:
        return bytes_of(TR_COST_ADD, op->add.a_dtype,
                        (double)op->add.n *
                            (4 + size_of(op->add.a_dtype) + size_of(op->add.out_dtype)));
    }
}

struct tr_op_cost tr_op_cost_of(const struct tr_op *op)
{
    switch (op->kind) {
    case TR_OP_MATMUL:
        return product(TR_COST_MATMUL, &op->matmul);
    case TR_OP_MATMUL_DX:
        return product(TR_COST_MATMUL_DX, &op->matmul);
    case TR_OP_MATMUL_DW:
        return product(TR_COST_MATMUL_DW, &op->matmul);
    case TR_OP_ATTENTION:
        return attention(TR_COST_ATTENTION, &op->attention);
    case TR_OP_ATTENTION_GRAD:
        return attention(TR_COST_ATTENTION_GRAD, &op->attention);
    case TR_OP_RMSNORM:
        return norm(TR_COST_NORM, &op->rmsnorm);
    case TR_OP_RMSNORM_GRAD:
        return norm(TR_COST_NORM_GRAD, &op->rmsnorm);
    case TR_OP_EMBED:
        return embed(TR_COST_EMBED, &op->embed);
    case TR_OP_EMBED_GRAD:
        return embed(TR_COST_EMBED_GRAD, &op->embed);
    default:
        return op->kind >= TR_OP_SGD ? any_update(op) : small(op);
    }
}

double tr_figures_seconds(const struct tr_figures *f, const struct tr_op *op)
{
    struct tr_op_cost c = tr_op_cost_of(op);
    double sum = 0;

    for (int t = 0; t < TR_TERMS; t++)
        sum += f->cost[c.row][c.width][t] * c.q.of[t];
    return sum;
}

/* ---- drives ---- */

double tr_drive_speed(const struct tr_drive_rates *r, double reads, double writes)
{
    const struct tr_drive_ways *w = r->beside.read > 0 ? &r->beside : &r->alone;

    return (reads + writes) / (reads / w->read + writes / w->write);
}

void tr_figures_sum(struct tr_figures *f)
{
    f->read = f->write = f->mixed = f->flush = 0;
    for (uint32_t i = 0; i < f->n_drives; i++) {
        const struct tr_drive_rates *r = &f->drive[i].rates;
        const struct tr_drive_ways *w = f->n_drives > 1 ? &r->beside : &r->alone;

        f->read += w->read;
        f->write += w->write;
        f->mixed += w->mixed;
        f->flush = fmax(f->flush, r->flush);
    }
}

static void scale(struct tr_drive_ways *w, double factor)
{
    w->read *= factor;
    w->write *= factor;
    w->mixed *= factor;
}

void tr_figures_scale_drives(struct tr_figures *f, double factor)
{
    f->read *= factor;
    f->write *= factor;
    f->mixed *= factor;
    for (uint32_t i = 0; i < f->n_drives; i++) {
        scale(&f->drive[i].rates.alone, factor);
        scale(&f->drive[i].rates.beside, factor);
    }
}

/* ---- fitting ---- */

/* Solves the normal equations of the terms in `set` by elimination. 0: no answer without a negative
 * factor. The quantities are scaled by their largest, for they differ by ten orders. */
static int solve(const struct tr_sample *s, int n, unsigned set, double x[TR_TERMS])
{
    double a[TR_TERMS][TR_TERMS + 1] = {{0}}, scale[TR_TERMS] = {0};
    int term[TR_TERMS], m = 0;

    for (int t = 0; t < TR_TERMS; t++)
        if (set >> t & 1)
            term[m++] = t;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++)
            scale[j] = fmax(scale[j], s[i].q.of[term[j]] / s[i].seconds);
    for (int j = 0; j < m; j++)
        if (!(scale[j] > 0))
            return 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < m; j++) {
            double u = s[i].q.of[term[j]] / s[i].seconds / scale[j];

            for (int k = 0; k < m; k++)
                a[j][k] += u * s[i].q.of[term[k]] / s[i].seconds / scale[k];
            a[j][TR_TERMS] += u;
        }
    for (int j = 0; j < m; j++) {
        if (!(a[j][j] > 1e-9))
            return 0;
        for (int i = 0; i < m; i++) {
            double f = i == j ? 0 : a[i][j] / a[j][j];

            for (int k = 0; k < m; k++)
                a[i][k] -= f * a[j][k];
            a[i][TR_TERMS] -= f * a[j][TR_TERMS];
        }
    }
    for (int t = 0; t < TR_TERMS; t++)
        x[t] = 0;
    for (int j = 0; j < m; j++) {
        x[term[j]] = a[j][TR_TERMS] / a[j][j] / scale[j];
        if (x[term[j]] < 0)
            return 0;
    }
    return 1;
}

static double error_of(const struct tr_sample *s, int n, const double x[TR_TERMS])
{
    double sum = 0;

    for (int i = 0; i < n; i++) {
        double made = 0;

        for (int t = 0; t < TR_TERMS; t++)
            made += x[t] * s[i].q.of[t];
        sum += (made / s[i].seconds - 1) * (made / s[i].seconds - 1);
    }
    return sum;
}

/* The best of all sets of terms whose factors come out right: with four of them there are few. Work
 * is one of them, for what is predicted may be far larger than what was timed. */
void tr_figures_fit(const struct tr_sample *s, int n, double factor[TR_TERMS])
{
    double best = INFINITY;

    for (int t = 0; t < TR_TERMS; t++)
        factor[t] = 0;
    for (unsigned set = 1; set < 1u << TR_TERMS; set++) {
        double x[TR_TERMS];

        if (!(set >> TR_TERM_WORK & 1) || !solve(s, n, set, x) || error_of(s, n, x) >= best)
            continue;
        best = error_of(s, n, x);
        for (int t = 0; t < TR_TERMS; t++)
            factor[t] = x[t];
    }
}
