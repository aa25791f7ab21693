/* SPDX-License-Identifier: Apache-2.0
 *
 * What each op costs: a handful of sizes that models from 10 million parameters up have, timed
 * through the device's table, and the factors that come closest to them. On the cpu device an op
 * has the same cost for half width where it computes in f32 anyway: the rows not measured are
 * those of the other width.
 */
#include <math.h>
#include <string.h>

#include "src/base/code8.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/plan/probe.h"

#define SAMPLES 32

/* In every byte of what an update meets: a small number above zero in each type of weights and of
 * state. Of zeros a second moment has a root, too, but in 8 bits a block of them is not encoded at
 * all. */
#define MOMENT 0x3c

static void *take(struct probe *p, double bytes)
{
    uint64_t at = p->used;

    p->used += tr_round_up((uint64_t)bytes, 4096);
    return p->arena + (p->used <= p->info.arena_bytes ? at : 0);
}

static double size_of(enum tr_dtype t)
{
    return (double)tr_dtype_size(t);
}

struct samples {
    struct tr_sample s[SAMPLES];
    int n;
    enum tr_cost_row row;
    enum tr_width width;
};

static int run_op(struct probe *p, void *op)
{
    return p->device->ops->run(p->device, TR_STREAM_COMPUTE, op);
}

/* Weights and state have just come from elsewhere when an op meets them: each round has its own. */
struct rounds {
    struct tr_op op;
    uint64_t bytes, n, at;
};

static void *shifted(void *from, uint64_t bytes)
{
    return from ? (char *)from + bytes : NULL;
}

static int run_cold(struct probe *p, void *arg)
{
    struct rounds *r = arg;
    uint64_t by = r->at++ % r->n * r->bytes;
    struct tr_op op = r->op;

    if (op.kind == TR_OP_MATMUL || op.kind == TR_OP_MATMUL_DX) {
        op.matmul.w = shifted((void *)op.matmul.w, by);
        return run_op(p, &op);
    }
    op.update.w = shifted(op.update.w, by);
    op.update.g = (const float *)shifted((void *)op.update.g, by);
    op.update.m = shifted(op.update.m, by);
    op.update.v = shifted(op.update.v, by);
    return run_op(p, &op);
}

/* A quick look takes three, none behind one that took long. */
static int has_enough(const struct probe *p, const struct samples *s)
{
    return s->n == SAMPLES ||
           (p->params->quick && (s->n == 3 || (s->n && s->s[s->n - 1].seconds > 0.1)));
}

/* Skipped where the device's arena is too small for it. */
static int sample(struct probe *p, struct samples *s, struct tr_op *op)
{
    struct tr_op_cost c = tr_op_cost_of(op);
    double seconds;
    int r;

    if (p->used > p->info.arena_bytes || has_enough(p, s))
        return 0;
    if (op->kind >= TR_OP_SGD || op->kind == TR_OP_MATMUL || op->kind == TR_OP_MATMUL_DX)
        r = probe_time(p, run_cold,
                       &(struct rounds){*op, p->used, p->info.arena_bytes / p->used, 0}, &seconds);
    else
        r = probe_time(p, run_op, op, &seconds);
    if (r < 0)
        return r;
    s->row = c.row;
    s->width = c.width;
    s->s[s->n++] = (struct tr_sample){c.q, seconds};
    return 0;
}

static void fit(struct probe *p, struct samples *s)
{
    double errors[SAMPLES], *c = p->figures.cost[s->row][s->width];

    if (!s->n)
        return;
    tr_figures_fit(s->s, s->n, c);
    for (int i = 0; i < s->n; i++) {
        double made = 0;

        for (int t = 0; t < TR_TERMS; t++)
            made += c[t] * s->s[i].q.of[t];
        errors[i] = fabs(made / s->s[i].seconds - 1);
    }
    p->residual[s->row][s->width] = probe_median(errors, s->n);
}

/* Is this row already known, for the device computes both widths alike? */
static int is_known(const struct probe *p, enum tr_cost_row row, enum tr_width width)
{
    return p->residual[row][width] >= 0;
}

/* ---- products ---- */

struct shape {
    int64_t n, m, k;
};

static struct tr_op product(struct probe *p, enum tr_op_kind kind, const struct shape *s,
                            enum tr_dtype dtype, int32_t *start)
{
    enum tr_dtype in = p->info.compute[dtype];
    double n = (double)s->n, m = (double)s->m, k = (double)s->k;
    int32_t grain = p->info.grain_tokens;
    struct tr_op op = {.kind = kind,
                       .matmul = {.w_dtype = dtype,
                                  .in_dtype = in,
                                  .out_dtype = kind == TR_OP_MATMUL_DX ? TR_F32 : in,
                                  .n = s->n,
                                  .m = s->m,
                                  .k = s->k,
                                  .grains = {0, start}}};

    p->used = 0;
    op.matmul.w = take(p, m * k * size_of(dtype));
    op.matmul.x = take(p, n * k * size_of(in));
    op.matmul.y = take(p, n * m * size_of(in));
    op.matmul.dy = take(p, n * m * size_of(in));
    op.matmul.dx = take(p, n * k * 4);
    op.matmul.dw = take(p, m * k * 4);
    for (int32_t at = 0; at < s->n; at += grain)
        start[++op.matmul.grains.n] = at + grain < s->n ? at + grain : (int32_t)s->n;
    return op;
}

static const struct shape shapes[] = {
    {64, 256, 256},    {128, 768, 256},   {512, 256, 688},   {256, 512, 512},    {1024, 512, 1376},
    {512, 1024, 1024}, {128, 2816, 1024}, {512, 1024, 2816}, {2048, 1024, 1024}, {512, 4096, 512},
    {512, 4096, 1024}, {128, 2048, 2048}, {512, 2048, 2048}, {512, 5632, 2048},  {1024, 2048, 5632},
};
static const struct shape large[] = {
    {512, 2048, 2048},   {2048, 2048, 2048},  {2048, 4096, 4096},
    {8192, 4096, 4096},  {2048, 11008, 4096}, {8192, 11008, 4096},
    {2048, 4096, 11008}, {8192, 4096, 11008}, {4096, 8192, 8192},
};

static int probe_products(struct probe *p, enum tr_op_kind kind, enum tr_dtype dtype)
{
    const struct shape *list = p->choice.cuda ? large : shapes;
    size_t n =
        p->choice.cuda ? sizeof(large) / sizeof(large[0]) : sizeof(shapes) / sizeof(shapes[0]);
    struct samples s = {.n = 0};
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++) {
        int32_t start[20] = {0};
        struct tr_op op = product(p, kind, &list[i], dtype, start);
        struct tr_op_cost c = tr_op_cost_of(&op);

        if (i == 0 && is_known(p, c.row, c.width))
            return 0;
        r = sample(p, &s, &op);
    }
    fit(p, &s);
    return r;
}

int probe_queue_product(struct probe *p)
{
    static const struct shape middling = {512, 1024, 1024};
    static int32_t start[20];
    struct tr_op op;

    memset(start, 0, sizeof(start)); /* lives until the op has run */
    op = product(p, TR_OP_MATMUL, &middling, TR_F32, start);
    return run_op(p, &op);
}

/* ---- attention ---- */

static int probe_attention(struct probe *p, enum tr_op_kind kind, enum tr_dtype dtype)
{
    static const struct {
        int32_t n, doc, heads, kv, dim;
    } list[] = {{128, 128, 4, 4, 64},    {512, 128, 8, 4, 64},  {512, 256, 8, 8, 64},
                {512, 512, 8, 2, 64},    {512, 512, 16, 4, 64}, {1024, 1024, 8, 8, 64},
                {1024, 512, 16, 16, 64}, {512, 512, 8, 8, 128}, {2048, 2048, 8, 8, 128}};
    enum tr_dtype t = p->info.compute[dtype];
    struct samples s = {.n = 0};
    int r = 0;

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]) && r == 0; i++) {
        int32_t n = list[i].n, docs[20] = {0}, first[2048], end[2048];
        double q = (double)n * list[i].heads * list[i].dim * size_of(t);
        double kv = (double)n * list[i].kv * list[i].dim * size_of(t);
        struct tr_op op = {.kind = kind,
                           .attention = {.dtype = t,
                                         .n = n,
                                         .heads = list[i].heads,
                                         .kv_heads = list[i].kv,
                                         .head_dim = list[i].dim,
                                         .scale = 0.1f,
                                         .docs = {n / list[i].doc, docs}}};
        struct tr_op_attention *a = &op.attention;
        struct tr_op_cost c = tr_op_cost_of(&op);

        if (is_known(p, c.row, c.width))
            return 0;
        p->used = 0;
        a->doc_first = take(p, n * 4.0);
        a->doc_end = take(p, n * 4.0);
        a->lse = take(p, n * 4.0 * list[i].heads);
        a->delta = take(p, n * 4.0 * list[i].heads);
        a->q = take(p, q);
        a->o = take(p, q);
        a->d_o = take(p, q);
        a->dq = take(p, q);
        a->k = take(p, kv);
        a->v = take(p, kv);
        a->dk = take(p, kv);
        a->dv = take(p, kv);
        for (int32_t k = 0; k < n; k++) {
            docs[k / list[i].doc + 1] = k + 1;
            first[k] = k / list[i].doc * list[i].doc;
            end[k] = first[k] + list[i].doc;
        }
        if ((r = p->device->ops->copy_in(p->device, TR_STREAM_COMPUTE, (void *)a->doc_first, first,
                                         (size_t)n * 4)) == 0 &&
            (r = p->device->ops->copy_in(p->device, TR_STREAM_COMPUTE, (void *)a->doc_end, end,
                                         (size_t)n * 4)) == 0 &&
            (r = p->device->ops->sync(p->device, TR_STREAM_COMPUTE)) == 0)
            r = sample(p, &s, &op);
    }
    fit(p, &s);
    return r;
}

/* ---- what goes through memory once ---- */

/* Of so many rows of so many values. */
static struct tr_op rows_op(struct probe *p, enum tr_op_kind kind, enum tr_dtype dtype,
                            int32_t *grain, const struct shape *s)
{
    enum tr_dtype t = p->info.compute[dtype];
    double n = (double)s->n * (double)s->m;
    struct tr_op op = {.kind = kind};

    p->used = 0;
    grain[0] = 0;
    grain[1] = (int32_t)s->n;
    switch (kind) {
    case TR_OP_RMSNORM:
    case TR_OP_RMSNORM_GRAD:
        op.rmsnorm = (struct tr_op_rmsnorm){.x_dtype = dtype,
                                            .w_dtype = dtype,
                                            .y_dtype = t,
                                            .rows = s->n,
                                            .cols = s->m,
                                            .eps = 1e-5f,
                                            .grains = {1, grain},
                                            .rows_per_token = 1};
        op.rmsnorm.x = take(p, n * size_of(dtype));
        op.rmsnorm.w = take(p, (double)s->m * size_of(dtype));
        op.rmsnorm.y = take(p, n * size_of(t));
        op.rmsnorm.rstd = take(p, (double)s->n * 4);
        op.rmsnorm.dy = take(p, n * size_of(t));
        op.rmsnorm.dx = take(p, n * size_of(t));
        op.rmsnorm.dw = take(p, (double)s->m * 4);
        break;
    case TR_OP_ROPE:
        op.rope = (struct tr_op_rope){.dtype = t, .n = s->n, .heads = s->m / 64, .head_dim = 64};
        op.rope.position = take(p, (double)s->n * 4);
        op.rope.x = take(p, n * size_of(t));
        op.rope.cos = take(p, 4096);
        op.rope.sin = take(p, 4096);
        break;
    case TR_OP_SWIGLU:
    case TR_OP_SWIGLU_GRAD:
        op.swiglu = (struct tr_op_swiglu){.dtype = t, .n = (int64_t)n};
        op.swiglu.gate = take(p, n * size_of(t));
        op.swiglu.up = take(p, n * size_of(t));
        op.swiglu.out = take(p, n * size_of(t));
        op.swiglu.dout = take(p, n * size_of(t));
        op.swiglu.dgate = take(p, n * size_of(t));
        op.swiglu.dup = take(p, n * size_of(t));
        break;
    default:
        op.add = (struct tr_op_add){.a_dtype = dtype, .out_dtype = TR_F32, .n = (int64_t)n};
        op.add.a = take(p, n * size_of(dtype));
        op.add.b = take(p, n * 4);
        op.add.out = take(p, n * 4);
    }
    return op;
}

/* What is timed: state is that of updates which have any. */
struct timed {
    enum tr_op_kind kind;
    enum tr_dtype dtype, state;
};

/* Vocabulary slices, tables, updates: of s->m rows or so many thousand parameters. */
static struct tr_op table_op(struct probe *p, struct timed k, const struct shape *s)
{
    double n = (double)s->n * (double)s->m, wide = n * 16;
    double means = (double)tr_state_bytes(k.state, (uint64_t)wide);
    enum tr_op_kind kind = k.kind;
    enum tr_dtype dtype = k.dtype;
    struct tr_op op = {.kind = kind};

    p->used = 0;
    switch (kind) {
    case TR_OP_EMBED:
    case TR_OP_EMBED_GRAD:
        op.embed = (struct tr_op_embed){.dtype = dtype, .rows = 4096, .cols = s->m, .n = s->n};
        op.embed.ids = take(p, (double)s->n * 4);
        op.embed.table = take(p, 4096.0 * (double)s->m * size_of(dtype));
        op.embed.out = take(p, n * size_of(dtype));
        op.embed.dy = take(p, n * 4);
        op.embed.grad = take(p, 4096.0 * (double)s->m * 4);
        break;
    case TR_OP_XENT:
    case TR_OP_XENT_GRAD:
        op.xent = (struct tr_op_xent){
            .n = s->n, .rows = s->m, .first = 1, .dtype = p->info.compute[dtype]};
        op.xent.targets = take(p, (double)s->n * 4);
        op.xent.max = take(p, (double)s->n * 4);
        op.xent.sum = take(p, (double)s->n * 4);
        op.xent.target_logit = take(p, (double)s->n * 4);
        op.xent.lse = take(p, (double)s->n * 4);
        op.xent.nll = take(p, (double)s->n * 4);
        op.xent.scale = take(p, (double)s->n * 4);
        op.xent.logits = take(p, n * 4);
        op.xent.dlogits = op.xent.dtype == TR_F32 ? op.xent.logits : take(p, n * 2);
        break;
    case TR_OP_SUMSQ:
        op.sumsq = (struct tr_op_sumsq){.n = (int64_t)wide};
        op.sumsq.x = take(p, wide * 4);
        op.sumsq.out = take(p, 8);
        break;
    default:
        op.update = (struct tr_op_update){.dtype = dtype,
                                          .n = (int64_t)wide,
                                          .unscale = 1,
                                          .coefficient = 1,
                                          .lr = 1e-9f,
                                          .beta1 = 0.9f,
                                          .beta2 = 0.999f,
                                          .eps = 1e-8f,
                                          .step_size = 1e-9f,
                                          .sqrt_bias2 = 1,
                                          .rounding = dtype == TR_BF16 ? TR_ROUND_STOCHASTIC
                                                                       : TR_ROUND_NEAREST};
        op.update.w = take(p, wide * size_of(dtype));
        op.update.g = take(p, wide * 4);
        op.update.block = s->m;
        op.update.factored = 1;
        op.update.state_dtype = k.state;
        op.update.m = kind == TR_OP_SGD ? NULL : take(p, means);
        op.update.v = kind == TR_OP_ADAMW || kind == TR_OP_ADAM_MINI ? take(p, means) : NULL;
        op.update.sums = take(p, (double)tr_adalomo_sums((uint64_t)s->m) * sizeof(double));
        op.update.factor = take(p, (double)tr_adalomo_factors((uint64_t)s->m) * sizeof(float));
    }
    return op;
}

/* Ids and positions inside their tables, second moments that have a root. */
static int prepare(struct probe *p, const struct tr_op *op)
{
    int moments = op->kind >= TR_OP_SGD;
    const void *filled[2] = {NULL};
    size_t bytes[2] = {0};
    int32_t ids[4096]; /* until the copy is done */
    int r = 0, synced;

    if (op->kind == TR_OP_ROPE) {
        filled[0] = op->rope.position;
        bytes[0] = (size_t)op->rope.n * 4;
    } else if (op->kind == TR_OP_XENT || op->kind == TR_OP_XENT_GRAD) {
        filled[0] = op->xent.targets;
        bytes[0] = (size_t)op->xent.n * 4;
        filled[1] = op->xent.lse;
        bytes[1] = (size_t)op->xent.n * 4;
    } else if (moments) {
        filled[0] = p->arena; /* in every round */
        bytes[0] = p->info.arena_bytes;
    } else if (op->kind == TR_OP_EMBED || op->kind == TR_OP_EMBED_GRAD) {
        for (int32_t i = 0; i < op->embed.n; i++)
            ids[i] = (int32_t)((uint32_t)i * 2654435761u % (uint32_t)op->embed.rows);
        r = p->device->ops->copy_in(p->device, TR_STREAM_COMPUTE, (void *)op->embed.ids, ids,
                                    (size_t)op->embed.n * 4);
    }
    for (int i = 0; i < 2 && r == 0; i++)
        if (filled[i])
            r = p->device->ops->fill(p->device, TR_STREAM_COMPUTE, (void *)filled[i],
                                     moments ? MOMENT : 0, bytes[i]);
    synced = p->device->ops->sync(p->device, TR_STREAM_COMPUTE);
    return r < 0 ? r : synced;
}

static int is_table(enum tr_op_kind kind)
{
    return kind != TR_OP_RMSNORM && kind != TR_OP_RMSNORM_GRAD && kind != TR_OP_ROPE &&
           kind != TR_OP_SWIGLU && kind != TR_OP_SWIGLU_GRAD && kind != TR_OP_ADD;
}

static int probe_simple(struct probe *p, struct timed k)
{
    static const struct shape list[] = {{128, 256, 0},  {512, 512, 0},   {512, 1024, 0},
                                        {256, 4096, 0}, {1024, 2048, 0}, {2048, 2048, 0}};
    struct samples s = {.n = 0};
    int r = 0;

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]) && r == 0; i++) {
        int32_t grain[2];
        struct tr_op op = is_table(k.kind) ? table_op(p, k, &list[i])
                                           : rows_op(p, k.kind, k.dtype, grain, &list[i]);
        struct tr_op_cost c = tr_op_cost_of(&op);

        if (i == 0 && is_known(p, c.row, c.width))
            return 0;
        if (p->used <= p->info.arena_bytes && (r = prepare(p, &op)) == 0)
            r = sample(p, &s, &op);
    }
    fit(p, &s);
    return r;
}

/* A width that cannot occur here costs what the other one does. */
static void fill_gaps(struct probe *p)
{
    for (int row = 0; row < TR_COST_ROWS; row++)
        for (int w = 0; w < TR_WIDTHS; w++)
            if (p->residual[row][w] < 0 && p->residual[row][1 - w] >= 0)
                memcpy(p->figures.cost[row][w], p->figures.cost[row][1 - w],
                       sizeof(p->figures.cost[row][w]));
}

static int probe_dtype(struct probe *p, enum tr_dtype dtype)
{
    static const enum tr_op_kind simple[] = {
        TR_OP_EMBED,       TR_OP_EMBED_GRAD,  TR_OP_RMSNORM, TR_OP_RMSNORM_GRAD, TR_OP_ROPE,
        TR_OP_SWIGLU,      TR_OP_SWIGLU_GRAD, TR_OP_ADD,     TR_OP_XENT,         TR_OP_XENT_GRAD,
        TR_OP_SUMSQ,       TR_OP_SGD,         TR_OP_ADAMW,   TR_OP_MOMENTUM,     TR_OP_ADAM_MINI,
        TR_OP_ADALOMO_SUM, TR_OP_ADALOMO};
    int r = 0;

    probe_log(p, "ops: %s", tr_dtype_name(dtype));
    for (int kind = TR_OP_MATMUL; kind <= TR_OP_MATMUL_DW && r == 0; kind++)
        r = probe_products(p, (enum tr_op_kind)kind, dtype);
    if (r == 0)
        r = probe_attention(p, TR_OP_ATTENTION, dtype);
    if (r == 0)
        r = probe_attention(p, TR_OP_ATTENTION_GRAD, dtype);
    for (size_t i = 0; i < sizeof(simple) / sizeof(simple[0]) && r == 0; i++)
        r = probe_simple(p, (struct timed){simple[i], dtype, TR_F32});
    for (int kind = TR_OP_ADAMW; kind <= TR_OP_ADAM_MINI && r == 0; kind++)
        if ((r = probe_simple(p, (struct timed){(enum tr_op_kind)kind, dtype, TR_BF16})) == 0)
            r = probe_simple(p, (struct timed){(enum tr_op_kind)kind, dtype, TR_8BIT});
    return r;
}

int probe_ops(struct probe *p)
{
    int r;

    for (int row = 0; row < TR_COST_ROWS; row++)
        for (int w = 0; w < TR_WIDTHS; w++)
            p->residual[row][w] = -1;
    r = probe_dtype(p, TR_F32);
    if (r == 0)
        r = probe_dtype(p, TR_BF16);
    fill_gaps(p);
    return r;
}

/* ---- copies ---- */

struct copies {
    char *in, *out;
    size_t bytes;
    int both_ways; /* 1: in, 2: out, 3: both */
};

static int run_copies(struct probe *p, void *arg)
{
    const struct copies *c = arg;
    int r = 0;

    if (c->both_ways & 1)
        r = p->device->ops->copy_in(p->device, TR_STREAM_IN, p->arena, c->in, c->bytes);
    if (r == 0 && c->both_ways & 2)
        r = p->device->ops->copy_out(p->device, TR_STREAM_OUT, c->out, p->arena + c->bytes,
                                     c->bytes);
    return r;
}

int probe_copies(struct probe *p)
{
    struct copies c = {.bytes = p->params->quick ? 4u << 20 : 64u << 20};
    double *rates[] = {&p->figures.in, &p->figures.out, &p->figures.both}, seconds;
    int r = 0;

    c.in = p->device->ops->host_alloc(p->device, c.bytes);
    c.out = p->device->ops->host_alloc(p->device, c.bytes);
    if (!c.in || !c.out)
        r = -ENOMEM;
    for (int i = 0; i < 3 && r == 0; i++) {
        c.both_ways = i + 1;
        r = probe_time(p, run_copies, &c, &seconds);
        *rates[i] = (i == 2 ? 2 : 1) * (double)c.bytes / seconds;
    }
    if (c.in)
        p->device->ops->host_free(p->device, c.in, c.bytes);
    if (c.out)
        p->device->ops->host_free(p->device, c.out, c.bytes);
    return r;
}

/* ---- updates on the cpu ---- */

/* All of it is far larger than a cache; the optimizer with the most bytes stands for all, for bytes
 * are what each of them waits for, but where state in 8 bits has to be decoded first. */
static int time_update(struct probe *p, enum tr_dtype state, double *rate)
{
    int64_t n = p->params->quick ? 1 << 16 : 4 << 20;
    struct tr_device_params params = {.threads = (int)p->params->threads};
    struct tr_op op = {.kind = TR_OP_ADAMW,
                       .update = {.dtype = TR_BF16,
                                  .state_dtype = state,
                                  .n = n,
                                  .unscale = 1,
                                  .coefficient = 1,
                                  .eps = 1,
                                  .sqrt_bias2 = 1}};
    struct probe beside = *p;
    double seconds = 1;
    char *arena;
    int r;

    params.memory_bytes = tr_device_cpu_workspace(&params) + 14 * (uint64_t)n + 4096;
    if ((r = tr_device_open_cpu(&beside.device, &params)) < 0)
        return r;
    arena = beside.device->ops->arena(beside.device);
    op.update.m = (float *)arena;
    op.update.v = op.update.m + n;
    op.update.g = op.update.v + n;
    op.update.w = op.update.v + 2 * n;
    r = beside.device->ops->fill(beside.device, TR_STREAM_COMPUTE, arena, MOMENT, 14 * (size_t)n);
    if (r == 0)
        r = probe_time(&beside, run_op, &op, &seconds);
    *rate = tr_op_cost_of(&op).q.of[TR_TERM_WORK] / seconds;
    beside.device->ops->close(beside.device);
    return r;
}

int probe_update(struct probe *p)
{
    int r = time_update(p, TR_F32, &p->figures.update);

    if (r == 0)
        r = time_update(p, TR_BF16, &p->figures.update_bf16);
    return r < 0 ? r : time_update(p, TR_8BIT, &p->figures.update_8bit);
}
