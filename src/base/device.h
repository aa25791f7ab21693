/* SPDX-License-Identifier: Apache-2.0
 *
 * The device table: memory, streams, events, copies and the math ops of one device, behind a struct
 * of functions that each device fills once (cpu/device.c, kernels/device.cu). Ops are data: a kind
 * and its arguments by value, queued on a stream.
 *
 * Memory is one arena of exactly the budget; the plan hands out offsets in it and nothing is
 * allocated inside a step. Every pointer in an op is device memory unless it says host.
 * Streams run in order within themselves and at any time relative to each other; events order them.
 * Calls return at once; an error inside an op is kept and returned by the next sync of the device.
 *
 * Shapes: n tokens (rows of activations), all matrices row-major and dense. Weights and
 * block-boundary activations have the storage dtype. Inside a block activations and their gradients
 * have the device's compute dtype for that storage (info.compute: f32 on cpu, the storage dtype on
 * cuda), but for the residual stream, its gradient, weight gradients, statistics and logits, which
 * are f32 everywhere. Pointers whose dtype varies are void; the op names it.
 * Fixed order (invariant 1): every sum over tokens runs grain by grain (tr_grains), each grain's
 * partial sum is added in order in f32; tile and chunk sizes are functions of shapes alone.
 */
#ifndef TR_BASE_DEVICE_H
#define TR_BASE_DEVICE_H

#include <stddef.h>
#include <stdint.h>

#include "src/base/dtype.h"

enum tr_stream { TR_STREAM_COMPUTE, TR_STREAM_IN, TR_STREAM_OUT, TR_STREAMS };

/* Offsets of grains or documents in the tokens of this op: start[0] = 0 ... start[n] = tokens.
 * Host memory that lives until the op has run. */
struct tr_ranges {
    int32_t n;
    const int32_t *start; /* (n + 1) */
};

enum tr_op_kind {
    TR_OP_EMBED,        /* out[t] = table[id[t]] for ids inside the slice; others untouched */
    TR_OP_EMBED_GRAD,   /* grad[id[t]] += dy[t] in token order, ids inside the slice */
    TR_OP_RMSNORM,      /* y = x * rsqrt(mean(x^2) + eps) * w; rstd kept */
    TR_OP_RMSNORM_GRAD, /* dx (= or +=), dw (= or +=) */
    TR_OP_MATMUL,       /* y[n,m] = x[n,k] w[m,k]^T (+ bias) */
    TR_OP_MATMUL_DX,    /* dx[n,k] (= or +=) dy[n,m] w[m,k] */
    TR_OP_MATMUL_DW,    /* dw[m,k] (= or +=) dy[n,m]^T x[n,k], grain by grain */
    TR_OP_BIAS_GRAD,    /* db[m] (= or +=) column sums of dy, grain by grain */
    TR_OP_ROPE,         /* rotate-half in place by position; inverse for the gradient */
    TR_OP_ATTENTION,    /* causal, grouped-query, windowed, inside documents; lse kept */
    TR_OP_ATTENTION_GRAD,
    TR_OP_ATTENTION_CACHED, /* keys and values into a cache; queries see their part of it */
    TR_OP_SWIGLU,           /* out = silu(gate) * up */
    TR_OP_SWIGLU_GRAD,
    TR_OP_ADD,       /* out = round(a + b) in out's dtype */
    TR_OP_XENT,      /* online max, sum of exponentials and target logit over vocabulary slices */
    TR_OP_XENT_LOSS, /* lse = max + log(sum), nll = lse - target logit */
    TR_OP_XENT_GRAD, /* dlogits = (softmax - one-hot) * scale */
    TR_OP_CAST,      /* to = from, rounded to nearest in to's dtype */
    TR_OP_SUMSQ,     /* *out = sum of squares (f64) */
    TR_OP_ROUND,     /* f32 values rounded to a storage dtype's grid in place */
    TR_OP_DROPOUT,   /* to = from * scale in f32, or 0 where that is drawn */
    TR_OP_SGD,       /* LOMO's update; plain SGD is the same without clipping */
    TR_OP_ADAMW,
    TR_OP_MOMENTUM,       /* SGD with momentum */
    TR_OP_ADAM_MINI,      /* Adam with one second moment for each block of elements */
    TR_OP_ADALOMO_SUM,    /* AdaLomo: what is summed over a tensor or, slice by slice, a table */
    TR_OP_ADALOMO_FACTOR, /* what follows from the sums */
    TR_OP_ADALOMO,        /* the update */
    TR_OP_KINDS
};

/* Every op once: its kind, its name (tr_cpu_NAME, tr_cuda_NAME), its member of struct tr_op. A
 * switch made of it, without a default, does not compile where one is missing. */
#define TR_OPS(X)                                                                                  \
    X(EMBED, embed, embed)                                                                         \
    X(EMBED_GRAD, embed_grad, embed)                                                               \
    X(RMSNORM, rmsnorm, rmsnorm)                                                                   \
    X(RMSNORM_GRAD, rmsnorm_grad, rmsnorm)                                                         \
    X(MATMUL, matmul, matmul)                                                                      \
    X(MATMUL_DX, matmul_dx, matmul)                                                                \
    X(MATMUL_DW, matmul_dw, matmul)                                                                \
    X(BIAS_GRAD, bias_grad, bias_grad)                                                             \
    X(ROPE, rope, rope)                                                                            \
    X(ATTENTION, attention, attention)                                                             \
    X(ATTENTION_GRAD, attention_grad, attention)                                                   \
    X(ATTENTION_CACHED, attention_cached, attention_cached)                                        \
    X(SWIGLU, swiglu, swiglu)                                                                      \
    X(SWIGLU_GRAD, swiglu_grad, swiglu)                                                            \
    X(ADD, add, add)                                                                               \
    X(XENT, xent, xent)                                                                            \
    X(XENT_LOSS, xent_loss, xent)                                                                  \
    X(XENT_GRAD, xent_grad, xent)                                                                  \
    X(CAST, cast, cast)                                                                            \
    X(SUMSQ, sumsq, sumsq)                                                                         \
    X(ROUND, round, round)                                                                         \
    X(DROPOUT, dropout, dropout)                                                                   \
    X(SGD, sgd, update)                                                                            \
    X(ADAMW, adamw, update)                                                                        \
    X(MOMENTUM, momentum, update)                                                                  \
    X(ADAM_MINI, adam_mini, update)                                                                \
    X(ADALOMO_SUM, adalomo_sum, update)                                                            \
    X(ADALOMO_FACTOR, adalomo_factor, update)                                                      \
    X(ADALOMO, adalomo, update)

static inline const char *tr_op_name(enum tr_op_kind kind)
{
    switch (kind) {
#define TR_OP_NAME(kind, name, member)                                                             \
    case TR_OP_##kind:                                                                             \
        return #name;
        TR_OPS(TR_OP_NAME)
#undef TR_OP_NAME
    case TR_OP_KINDS:
        break;
    }
    return "of no kind";
}

struct tr_op_embed {     /* EMBED: out <- table; EMBED_GRAD: grad <- dy */
    const void *table;   /* (rows, cols) rows row0.. of the vocabulary */
    enum tr_dtype dtype; /* of table and out */
    int64_t row0, rows, cols, n;
    const int32_t *ids; /* (n) */
    void *out;          /* (n, cols), dtype */
    const float *dy;    /* (n, cols) */
    float *grad;        /* (rows, cols) added to */
    int fused;          /* EMBED_GRAD: grad is the table itself (f32) and takes -lr times dy */
    float lr;
};

struct tr_op_rmsnorm {
    const void *x; /* (rows, cols) */
    enum tr_dtype x_dtype, w_dtype;
    const void *w; /* (cols) */
    void *y;       /* (rows, cols) y_dtype; may be x where the dtypes agree */
    float *rstd;   /* (rows) */
    int64_t rows, cols;
    float eps;
    enum tr_dtype y_dtype; /* of y; in the gradient: of dy and dx */
    /* gradient: */
    const void *dy;
    void *dx;  /* may be dy */
    float *dw; /* (cols) */
    int add_dx, add_dw;
    struct tr_ranges grains; /* of tokens; a token has rows_per_token rows (heads) */
    int64_t rows_per_token;
};

struct tr_op_matmul {
    const void *w; /* (m, k) */
    enum tr_dtype w_dtype;
    const void *bias;        /* (m) in w_dtype, or NULL; MATMUL only */
    enum tr_dtype in_dtype;  /* of x and dy: f32, or w_dtype where the device computes in it */
    enum tr_dtype out_dtype; /* of y and dx: f32 or in_dtype */
    const void *x;           /* (n, k) */
    void *y;                 /* (n, m) */
    const void *dy;          /* (n, m) */
    void *dx;                /* (n, k) */
    float *dw;               /* (m, k) */
    int64_t n, m, k;
    int add;   /* DX (out_dtype f32 only), DW: add to the output instead of overwriting it */
    int fused; /* DW: dw is the weight itself (f32) and takes -lr times the product */
    float lr;
    struct tr_ranges grains;
};

struct tr_op_bias_grad {
    const void *dy; /* (n, m) */
    enum tr_dtype dtype;
    float *db; /* (m) */
    int64_t n, m;
    int add;
    struct tr_ranges grains;
};

struct tr_op_rope {
    void *x; /* (n, heads, head_dim) */
    enum tr_dtype dtype;
    const int32_t *position; /* (n) */
    const float *cos, *sin;  /* (max_position, head_dim / 2) */
    int64_t n, heads, head_dim;
    int inverse;
};

struct tr_op_attention {
    enum tr_dtype dtype; /* of q, k, v, o and their gradients */
    const void *q;       /* (n, heads, head_dim) */
    const void *k, *v;   /* (n, kv_heads, head_dim) */
    void *o;             /* (n, heads, head_dim) */
    float *lse;          /* (n, heads) natural log of the sum of exponentials of scaled scores */
    int64_t n, heads, kv_heads, head_dim;
    int64_t window; /* keys seen, the query's own included; 0: all */
    float scale;
    struct tr_ranges docs;
    /* The same documents in device memory: token t sees keys of tokens [doc_first[t], t] and is
     * seen up to doc_end[t], both counted as t is. */
    const int32_t *doc_first, *doc_end; /* (n) */
    /* gradient: */
    const void *d_o;
    void *dq, *dk, *dv; /* overwritten */
    float *delta;       /* (n, heads) scratch: rowsum(d_o * o) */
};

/* The key and value of token t go to row[t] of the cache. Where o is not NULL its query then sees
 * rows [first[t], row[t]], those of the same op included. No two tokens share a row. */
struct tr_op_attention_cached {
    enum tr_dtype dtype;        /* of all */
    const void *q;              /* (n, heads, head_dim) */
    const void *k, *v;          /* (n, kv_heads, head_dim) */
    void *o;                    /* (n, heads, head_dim), or NULL */
    void *k_cache, *v_cache;    /* (rows, kv_heads, head_dim) */
    const int32_t *first, *row; /* (n) */
    int64_t n, heads, kv_heads, head_dim;
    int64_t window; /* keys seen, the query's own included; 0: all */
    float scale;
};

struct tr_op_swiglu {
    enum tr_dtype dtype;   /* of all */
    const void *gate, *up; /* (n) elements */
    void *out;
    const void *dout;
    void *dgate, *dup; /* may be gate, up; dgate may be dout: an element is read before written */
    int64_t n;
};

struct tr_op_add {
    const void *a; /* (n) elements of a_dtype */
    enum tr_dtype a_dtype, out_dtype;
    const float *b;
    void *out; /* may be a or b where the dtypes agree */
    int64_t n;
};

struct tr_op_xent {
    float *logits; /* (n, rows): vocabulary rows row0 .. row0 + rows */
    int64_t n, row0, rows;
    int first;                       /* XENT: this is the first slice */
    const int32_t *targets;          /* (n), -1: none */
    float *max, *sum, *target_logit; /* (n) */
    float *lse, *nll;                /* (n); nll is 0 where there is no target */
    const float *scale;  /* (n) XENT_GRAD: d loss / d nll of the token; 0 without target */
    void *dlogits;       /* (n, rows) XENT_GRAD: the result; may be logits where it is f32 */
    enum tr_dtype dtype; /* of dlogits */
};

struct tr_op_cast {
    const void *from; /* (n) */
    enum tr_dtype from_dtype, to_dtype;
    void *to; /* (n); apart from `from` */
    int64_t n;
};

struct tr_op_sumsq {
    const float *x;
    int64_t n;
    double *out;
};

struct tr_op_round {
    float *x;
    int64_t n;
    enum tr_dtype dtype;
};

/* Element i is first + i of what is drawn for: 0 where word (first + i) % 4 of tr_philox_drop is
 * below the threshold. */
struct tr_op_dropout {
    const void *from; /* (n) */
    enum tr_dtype from_dtype;
    float *to; /* (n); may be from where that is f32 */
    int64_t n, first;
    float scale;
    uint32_t threshold; /* 0: none is dropped */
    uint64_t step;
    uint32_t seed, name;
};

enum tr_rounding { TR_ROUND_NEAREST, TR_ROUND_STOCHASTIC };

/* Update of elements [first, first + n) of one tensor. Order of arithmetic, each step rounded to
 * f32, no contraction: G = g * unscale; if clip_value > 0: G = clamp(G, -clip_value, clip_value);
 * G = G * coefficient. X = f32(w), and where there is weight_decay X = X * (1 - lr * weight_decay).
 *
 * SGD: X = fma(-lr, G, X).
 * MOMENTUM: m = fma(beta1, m, G); X = fma(-lr, m, X).
 * ADAMW: m = fma(1 - beta1, G - m, m); v = fma((1 - beta2) * G, G, beta2 * v);
 * denom = sqrt(v) / sqrt_bias2 + eps; X = fma(-step_size, m / denom, X), step_size = lr / bias1.
 *
 * ADAM_MINI: the range is whole blocks of `block` elements. First of each block q, the sum of G * G
 * in f64: pieces of 1024 elements are summed as element i to lane i % 16, lanes are folded by
 * halves (lane j + 8 to j, then 4, 2, 1), pieces are added in order. v = fma(1 - beta2, f32(q /
 * block), beta2 * v); scale = step_size / (sqrt(v) / sqrt_bias2 + eps). Then of each element m as
 * in ADAMW, and X = fma(-scale, m, X).
 *
 * ADALOMO_SUM: whole rows of `block` elements, the last first; a row's lane is its number in the
 * tensor % 16. q and s are the sums of G * G and f32(w)^2 over the row, as in ADAM_MINI. Where
 * factored: r = fma(beta1, f32(q / block + eps), beta2 * r), inverse = 1 / r, sums[lane] += r; else
 * inverse = 1. sums[16 + lane] += s; for each column j sums[32 + lane * block + j] += G * G and
 * sums[32 + (16 + lane) * block + j] = fma(G * G, inverse, that). Sums are f64 and begin at zero
 * unless `add`: a table is summed slice by slice, from its last slice to its first.
 * ADALOMO_FACTOR, n of the whole tensor: lanes are folded by halves; rows = n / block; mean =
 * factored ? f32(sums[0...] / rows) : 1. For each column c = fma(beta1, f32(sums[32...] / rows +
 * eps), beta2 * c), f = 1 / sqrt(c), t = f * f * sums[32 + 16 * block...] (f64), column j to lane j
 * % 16. u = sqrt(mean * t / n), x = sqrt(sums[16...] / n) in f64; rate = f32(lr * max(x, eps2)).
 * factor = f..., mean, f32(rate / max(u, 1)), 1 - rate * weight_decay.
 * ADALOMO: a = factored ? 1 / sqrt(r / mean) : 1; the decay is factor's; X = fma(-factor's rate,
 * a * f * G, X).
 *
 * w = round(X); stochastic rounding (bf16 only): tr_philox_round(first + i, step, seed, name).
 * With a master X begins as that, and so does f32(w) of ADALOMO_SUM; it becomes the new X, bit for
 * bit, and w, where it is bf16, tr_master_split's weight of it (src/base/dtype.h); `rounding` is
 * not asked. SPLIT (bf16 only): the master is tr_master_join of w and an int16_t for each element.
 * F32 (not for f32): it is f32 values; f16 weights are round(X). State in bf16 (m and, of ADAMW, v)
 * is read as f32; the element's update is made with the new f32 values, which are then rounded
 * stochastically, m with name ^ TR_PHILOX_M, v with name ^ TR_PHILOX_V. To nearest, what is kept of
 * v could not fall: beta2 * v would round back to v. State in 8 bits likewise, with the same random
 * halves: blocks of src/base/code8.h from element 0 on, m signed, v of ADAMW squares; `first` is a
 * multiple of a block. */
struct tr_op_update {
    void *w; /* (n) */
    enum tr_dtype dtype;
    enum tr_master master_kind;
    void *master;   /* (n) int16_t or float, by its kind; NULL: none */
    const float *g; /* (n) */
    float *m;       /* (n) state_dtype; ADALOMO: r (n / block) f32, where factored; SGD: none */
    float *v; /* (n) state_dtype ADAMW; f32: (n / block) ADAM_MINI, c (block) ADALOMO_FACTOR */
    enum tr_dtype state_dtype; /* f32, bf16 or TR_8BIT */
    double *sums;              /* (32 + 32 * block) ADALOMO_SUM, _FACTOR */
    float *factor;             /* (block + 3) ADALOMO_FACTOR, ADALOMO */
    int64_t n, first;
    int64_t block;     /* ADAM_MINI; ADALOMO: columns */
    int factored, add; /* ADALOMO */
    float unscale, clip_value, coefficient, lr, weight_decay;
    float beta1, beta2, eps, eps2, step_size, sqrt_bias2;
    enum tr_rounding rounding;
    uint64_t step;
    uint32_t seed, name;
};

/* How many sums and factors ADALOMO has of a tensor of so many columns. */
static inline uint64_t tr_adalomo_sums(uint64_t columns)
{
    return 32 + 32 * columns;
}

static inline uint64_t tr_adalomo_factors(uint64_t columns)
{
    return columns + 3;
}

struct tr_op {
    enum tr_op_kind kind;
    union {
        struct tr_op_embed embed;
        struct tr_op_rmsnorm rmsnorm;
        struct tr_op_matmul matmul;
        struct tr_op_bias_grad bias_grad;
        struct tr_op_rope rope;
        struct tr_op_attention attention;
        struct tr_op_attention_cached attention_cached;
        struct tr_op_swiglu swiglu;
        struct tr_op_add add;
        struct tr_op_xent xent;
        struct tr_op_cast cast;
        struct tr_op_sumsq sumsq;
        struct tr_op_round round;
        struct tr_op_dropout dropout;
        struct tr_op_update update;
    };
};

struct tr_device;
struct tr_event; /* a point in a stream */

/* Tokens that gradients are summed over at a time (design: a grain), by what products cost. */
#define TR_GRAIN_CPU   512
#define TR_GRAIN_CUDA  2048
#define TR_GRAIN_LARGE 4096 /* GPUs with fast tensor cores: tr_cuda_large */

struct tr_device_info {
    char name[96];        /* "cpu (avx512, OpenBLAS 0.3.21 SkylakeX)" */
    char bits[96];        /* what the bits depend on: tier and BLAS version and kernel type */
    uint64_t arena_bytes; /* what the plan may hand out: the budget less the device's workspace */
    uint64_t workspace_bytes;
    int host_visible;                 /* arena pointers can be read by the host and by disk I/O */
    int grain_tokens;                 /* TR_GRAIN_... */
    enum tr_dtype compute[TR_DTYPES]; /* dtype of activations, by storage dtype */
    char remark[192];                 /* what works, but slower than it could; "" where nothing */
};

struct tr_device_ops {
    void (*close)(struct tr_device *d);
    void (*info)(const struct tr_device *d, struct tr_device_info *info);
    void *(*arena)(struct tr_device *d);                    /* 4096-aligned start of arena_bytes */
    void *(*host_alloc)(struct tr_device *d, size_t bytes); /* pinned host memory */
    void (*host_free)(struct tr_device *d, void *p, size_t bytes);
    int (*copy_in)(struct tr_device *d, enum tr_stream s, void *to, const void *host, size_t bytes);
    int (*copy_out)(struct tr_device *d, enum tr_stream s, void *host, const void *from,
                    size_t bytes);
    int (*fill)(struct tr_device *d, enum tr_stream s, void *to, int byte, size_t bytes);
    int (*run)(struct tr_device *d, enum tr_stream s, const struct tr_op *op);
    /* Calls fn(arg) on a device-owned thread when all before it in the stream is done. fn must be
     * short and must not call the device. What is queued behind it, an event too, need not wait for
     * fn; other calls and a sync of the stream do. */
    int (*call)(struct tr_device *d, enum tr_stream s, void (*fn)(void *arg), void *arg);
    int (*event_open)(struct tr_device *d, struct tr_event **out);
    void (*event_close)(struct tr_device *d, struct tr_event *e);
    int (*record)(struct tr_device *d, enum tr_stream s, struct tr_event *e);
    int (*wait)(struct tr_device *d, enum tr_stream s, struct tr_event *e); /* the stream waits */
    int (*sync)(struct tr_device *d, enum tr_stream s); /* the host waits; returns kept errors */
    /* The kept error with its message, or 0; does not wait, and the error stays kept. After an
     * error of the device itself a call may never come back: who waits for one asks here. */
    int (*error)(struct tr_device *d);
    /* Choices that the device made by shape and that bits depend on, a line each, for the record of
     * a run: the length of the whole text, of which room bytes are written. NULL: it makes none. */
    size_t (*choices)(struct tr_device *d, char *text, size_t room);
    /* Likewise what each kind and shape of op has taken so far; waits for all of them. */
    size_t (*times)(struct tr_device *d, char *text, size_t room);
};

/* First member of every device. */
struct tr_device {
    const struct tr_device_ops *ops;
};

/* What pinned host memory takes of the device's: a GPU's page tables have 8 bytes for every 4 KiB,
 * and the driver takes memory for them in steps of 2 MiB. */
static inline uint64_t tr_pinned_tables(uint64_t pinned)
{
    const uint64_t step = (uint64_t)2 << 20;

    return (pinned / 512 + step - 1) / step * step;
}

struct tr_device_params {
    uint64_t memory_bytes; /* the hard budget, workspace included */
    int threads;           /* cpu: compute threads; 0: all cores of this process */
    unsigned delay_seed;   /* test mode: streams pause at random before each command; 0: off */
    const char *tier;      /* cpu: "c", "avx2", "avx512" pins a tier; NULL: the best */
    int f32_only;          /* no weight is stored in 16 bits: a smaller workspace will do */
    int opaque;  /* cpu, test mode: says that the host cannot see the arena: copies only */
    int ordinal; /* cuda: which GPU, as the driver counts them */
    /* cuda: the most that host_alloc will be asked for, which costs device memory too; 0: little */
    uint64_t host_bytes;
};

/* The cpu device (cpu/device.c). */
int tr_device_open_cpu(struct tr_device **out, const struct tr_device_params *p);
/* Its workspace for these params: what memory_bytes must exceed. */
uint64_t tr_device_cpu_workspace(const struct tr_device_params *p);

/* The cuda device (kernels/, through src/base/device_module.c). Its own use of device memory (the
 * driver's context, code, workspace) counts against memory_bytes; 0: 90 % of what is free. */
int tr_device_open_cuda(struct tr_device **out, const struct tr_device_params *p);
/* Device memory of a GPU as its driver reports it, for default budgets. */
int tr_device_cuda_memory(int ordinal, uint64_t *free, uint64_t *total);
/* The cuda device's own use, measured: what memory_bytes must exceed on this GPU. */
int tr_device_cuda_workspace(int ordinal, uint64_t *bytes);

#endif
