/* SPDX-License-Identifier: Apache-2.0
 *
 * Every op but the products, on the device under test and on the cpu device, from the same values.
 * It is the check that a real GPU gets; what the kernels do to the last bit is tested against the
 * C definition by tests/cuda/elementwise and tests/cuda/attention. A 16-bit result may differ by
 * its rounding, which grows with the values that it was made from; updates must be equal bit for
 * bit.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "tests/device/which.h"

#define ROOM  (8u << 20)
#define SIDES 2 /* the cpu device, then the one under test */

struct bench {
    struct tr_device *d[SIDES];
    char *arena[SIDES];
    size_t used;
    uint32_t random;
    const char *doing;
};

/* One array on both sides: f32 or the storage dtype on the cpu, as `dtype` on the other. */
struct array {
    void *p[SIDES];
    enum tr_dtype dtype[SIDES];
    int64_t n;
};

static void open_bench(struct bench *b)
{
    struct tr_device_params p = {.threads = 1}, cpu = {.threads = 1};

    *b = (struct bench){.random = 3};
    if (test_device_open(&b->d[1], &p, ROOM))
        fail_msg("%s", tr_error_message());
    cpu.memory_bytes = tr_device_cpu_workspace(&cpu) + ROOM;
    assert_int_equal(tr_device_open_cpu(&b->d[0], &cpu), 0);
    for (int s = 0; s < SIDES; s++)
        b->arena[s] = b->d[s]->ops->arena(b->d[s]);
}

static void close_bench(struct bench *b)
{
    for (int s = 0; s < SIDES; s++)
        b->d[s]->ops->close(b->d[s]);
}

static void must(struct bench *b, int error)
{
    if (error)
        fail_msg("%s: %s", b->doing, tr_error_message());
}

static float draw(struct bench *b)
{
    b->random = b->random * 1664525u + 1013904223u;
    return (float)(int32_t)b->random / 2147483648.0f;
}

static float get(const void *p, int64_t i, enum tr_dtype t)
{
    return t == TR_F32    ? ((const float *)p)[i]
           : t == TR_BF16 ? tr_bf16_f32(((const uint16_t *)p)[i])
                          : tr_f16_f32(((const uint16_t *)p)[i]);
}

static void put(void *p, int64_t i, enum tr_dtype t, float x)
{
    if (t == TR_F32)
        ((float *)p)[i] = x;
    else
        ((uint16_t *)p)[i] = t == TR_BF16 ? tr_f32_bf16(x) : tr_f32_f16(x);
}

static void send(struct bench *b, int side, void *to, const void *from, size_t bytes)
{
    must(b, b->d[side]->ops->copy_in(b->d[side], TR_STREAM_COMPUTE, to, from, bytes));
    must(b, b->d[side]->ops->sync(b->d[side], TR_STREAM_COMPUTE));
}

static void *place(struct bench *b, int side)
{
    return b->arena[side] + b->used;
}

static void advance(struct bench *b, size_t bytes)
{
    b->used += (bytes + 255) / 256 * 256;
    assert_true(b->used <= ROOM);
}

/* Values that dtype can hold, the same on both sides; the cpu has them as cpu_dtype. */
static struct array make(struct bench *b, int64_t n, enum tr_dtype cpu_dtype, enum tr_dtype dtype)
{
    struct array a = {.n = n, .dtype = {cpu_dtype, dtype}};
    char *host[SIDES] = {malloc((size_t)n * 4), malloc((size_t)n * 4)};

    for (int64_t i = 0; i < n; i++) {
        put(host[1], i, dtype, draw(b));
        put(host[0], i, cpu_dtype, get(host[1], i, dtype));
    }
    for (int s = 0; s < SIDES; s++) {
        a.p[s] = place(b, s);
        send(b, s, a.p[s], host[s], (size_t)n * tr_dtype_size(a.dtype[s]));
        free(host[s]);
    }
    advance(b, (size_t)n * 4);
    return a;
}

static struct array activations(struct bench *b, int64_t n, enum tr_dtype t)
{
    return make(b, n, TR_F32, t);
}

static struct array floats(struct bench *b, int64_t n)
{
    return make(b, n, TR_F32, TR_F32);
}

static struct array integers(struct bench *b, const int32_t *values, int64_t n)
{
    struct array a = {.n = n};

    for (int s = 0; s < SIDES; s++) {
        a.p[s] = place(b, s);
        send(b, s, a.p[s], values, (size_t)n * 4);
    }
    advance(b, (size_t)n * 4);
    return a;
}

static void run(struct bench *b, const struct tr_op op[SIDES])
{
    for (int s = 0; s < SIDES; s++) {
        must(b, b->d[s]->ops->run(b->d[s], TR_STREAM_COMPUTE, &op[s]));
        must(b, b->d[s]->ops->sync(b->d[s], TR_STREAM_COMPUTE));
    }
}

static void *fetch(struct bench *b, const struct array *a, int side)
{
    size_t bytes = (size_t)a->n * tr_dtype_size(a->dtype[side]);
    void *host = malloc(bytes + 1);

    must(b, b->d[side]->ops->copy_out(b->d[side], TR_STREAM_COMPUTE, host, a->p[side], bytes));
    must(b, b->d[side]->ops->sync(b->d[side], TR_STREAM_COMPUTE));
    return host;
}

/* Norm of the difference over norm of the cpu's values, and the largest single difference. */
static void compare(struct bench *b, const struct array *a, const char *what, enum tr_dtype t)
{
    double unit = t == TR_F32 ? 0x1p-20 : t == TR_BF16 ? 0x1p-8 : 0x1p-11;
    void *want = fetch(b, a, 0), *got = fetch(b, a, 1);
    double difference = 0, norm = 0, most = 0, largest = 0;

    for (int64_t i = 0; i < a->n; i++) {
        double w = (double)get(want, i, a->dtype[0]), g = (double)get(got, i, a->dtype[1]);

        if (!isfinite(g))
            fail_msg("%s: %s[%lld] is %g, not %g", b->doing, what, (long long)i, g, w);
        difference += (w - g) * (w - g);
        norm += w * w;
        most = fmax(most, fabs(w - g));
        largest = fmax(largest, fabs(w));
    }
    if (sqrt(difference) > 2 * unit * sqrt(norm) || most > 8 * unit * largest)
        fail_msg("%s: %s differs: %.3g of %.3g, at most %.3g of %.3g", b->doing, what,
                 sqrt(difference), sqrt(norm), most, largest);
    free(want);
    free(got);
}

static void equal(struct bench *b, const struct array *a, const char *what)
{
    void *want = fetch(b, a, 0), *got = fetch(b, a, 1);

    if (memcmp(want, got, (size_t)a->n * tr_dtype_size(a->dtype[0])) != 0)
        fail_msg("%s: %s has other bits", b->doing, what);
    free(want);
    free(got);
}

/* ---- ops; t is the storage dtype ---- */

static void check_embed(struct bench *b, enum tr_dtype t)
{
    static const int32_t id[5] = {9, 3, 20, 3, 5}; /* one is outside the slice */
    struct array table = make(b, 10 * 24, t, t), out = make(b, 5 * 24, t, t);
    struct array ids = integers(b, id, 5), dy = floats(b, 5 * 24), grad = floats(b, 10 * 24);
    struct tr_op op[SIDES];

    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_EMBED, .embed = {.table = table.p[s],
                                                      .dtype = t,
                                                      .row0 = 2,
                                                      .rows = 10,
                                                      .cols = 24,
                                                      .n = 5,
                                                      .ids = ids.p[s],
                                                      .out = out.p[s],
                                                      .dy = dy.p[s],
                                                      .grad = grad.p[s]}};
    run(b, op);
    equal(b, &out, "out");
    op[0].kind = op[1].kind = TR_OP_EMBED_GRAD;
    run(b, op);
    equal(b, &grad, "grad");
}

static void check_rmsnorm(struct bench *b, enum tr_dtype t)
{
    enum { ROWS = 6, COLS = 136 };
    static int32_t start[3] = {0, 4, ROWS};
    struct array x = activations(b, ROWS * COLS, t), w = make(b, COLS, t, t);
    struct array y = activations(b, ROWS * COLS, t), rstd = floats(b, ROWS);
    struct array dy = activations(b, ROWS * COLS, t), dx = activations(b, ROWS * COLS, t);
    struct array dw = floats(b, COLS);
    struct tr_op op[SIDES];

    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_RMSNORM, .rmsnorm = {.x = x.p[s],
                                                          .x_dtype = x.dtype[s],
                                                          .w = w.p[s],
                                                          .w_dtype = t,
                                                          .y = y.p[s],
                                                          .y_dtype = y.dtype[s],
                                                          .rstd = rstd.p[s],
                                                          .rows = ROWS,
                                                          .cols = COLS,
                                                          .eps = 1e-5f,
                                                          .dy = dy.p[s],
                                                          .dx = dx.p[s],
                                                          .dw = dw.p[s],
                                                          .grains = {2, start},
                                                          .rows_per_token = 1}};
    run(b, op);
    compare(b, &y, "y", t);
    compare(b, &rstd, "rstd", TR_F32);
    op[0].kind = op[1].kind = TR_OP_RMSNORM_GRAD;
    run(b, op);
    compare(b, &dx, "dx", t);
    compare(b, &dw, "dw", t);
}

static void check_rope(struct bench *b, enum tr_dtype t)
{
    static const int32_t at[4] = {0, 1, 2, 7};
    struct array x = activations(b, 4 * 3 * 16, t), cosines = floats(b, 8 * 8);
    struct array sines = floats(b, 8 * 8), position = integers(b, at, 4);
    struct tr_op op[SIDES];

    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_ROPE, .rope = {.x = x.p[s],
                                                    .dtype = x.dtype[s],
                                                    .position = position.p[s],
                                                    .cos = cosines.p[s],
                                                    .sin = sines.p[s],
                                                    .n = 4,
                                                    .heads = 3,
                                                    .head_dim = 16}};
    run(b, op);
    compare(b, &x, "x", t);
}

/* n tokens in two documents, grouped heads. */
static void check_attention_of(struct bench *b, enum tr_dtype t, int64_t head_dim, int64_t window)
{
    enum { N = 150, HEADS = 4, KV = 2, CUT = 61 };
    int32_t first[N], end[N];
    static int32_t start[3] = {0, CUT, N};
    int64_t nq = N * HEADS * head_dim, nk = N * KV * head_dim;
    struct array q = activations(b, nq, t), k = activations(b, nk, t), v = activations(b, nk, t);
    struct array o = activations(b, nq, t), lse = floats(b, N * HEADS),
                 delta = floats(b, N * HEADS);
    struct array d_o = activations(b, nq, t), dq = activations(b, nq, t);
    struct array dk = activations(b, nk, t), dv = activations(b, nk, t), docs[2];
    struct tr_op op[SIDES];

    for (int i = 0; i < N; i++) {
        first[i] = i < CUT ? 0 : CUT;
        end[i] = i < CUT ? CUT : N;
    }
    docs[0] = integers(b, first, N);
    docs[1] = integers(b, end, N);
    for (int s = 0; s < SIDES; s++)
        op[s] =
            (struct tr_op){TR_OP_ATTENTION, .attention = {.dtype = q.dtype[s],
                                                          .q = q.p[s],
                                                          .k = k.p[s],
                                                          .v = v.p[s],
                                                          .o = o.p[s],
                                                          .lse = lse.p[s],
                                                          .n = N,
                                                          .heads = HEADS,
                                                          .kv_heads = KV,
                                                          .head_dim = head_dim,
                                                          .window = window,
                                                          .scale = 1.0f / sqrtf((float)head_dim),
                                                          .docs = {2, start},
                                                          .doc_first = docs[0].p[s],
                                                          .doc_end = docs[1].p[s],
                                                          .d_o = d_o.p[s],
                                                          .dq = dq.p[s],
                                                          .dk = dk.p[s],
                                                          .dv = dv.p[s],
                                                          .delta = delta.p[s]}};
    run(b, op);
    compare(b, &o, "o", t);
    compare(b, &lse, "lse", t);
    op[0].kind = op[1].kind = TR_OP_ATTENTION_GRAD;
    run(b, op);
    compare(b, &dq, "dq", t);
    compare(b, &dk, "dk", t);
    compare(b, &dv, "dv", t);
}

static void check_attention(struct bench *b, enum tr_dtype t)
{
    static const int64_t dims[] = {16, 64, 80, 96, 128};

    for (size_t i = 0; i < sizeof(dims) / sizeof(dims[0]); i++) {
        b->used = 0;
        check_attention_of(b, t, dims[i], i % 2 ? 40 : 0);
    }
}

static void check_swiglu(struct bench *b, enum tr_dtype t)
{
    struct array gate = activations(b, 1003, t), up = activations(b, 1003, t);
    struct array out = activations(b, 1003, t), dout = activations(b, 1003, t);
    struct array dgate = activations(b, 1003, t), dup = activations(b, 1003, t);
    struct tr_op op[SIDES];

    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_SWIGLU, .swiglu = {.dtype = gate.dtype[s],
                                                        .gate = gate.p[s],
                                                        .up = up.p[s],
                                                        .out = out.p[s],
                                                        .dout = dout.p[s],
                                                        .dgate = dgate.p[s],
                                                        .dup = dup.p[s],
                                                        .n = 1003}};
    run(b, op);
    compare(b, &out, "out", t);
    op[0].kind = op[1].kind = TR_OP_SWIGLU_GRAD;
    run(b, op);
    compare(b, &dgate, "dgate", t);
    compare(b, &dup, "dup", t);
}

static void check_add(struct bench *b, enum tr_dtype t)
{
    struct array a = activations(b, 1003, t), f = floats(b, 1003), out = floats(b, 1003);
    struct array db = floats(b, 59), grad = activations(b, 17 * 59, t);
    static int32_t start[3] = {0, 11, 17};
    struct tr_op op[SIDES];

    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_ADD, .add = {.a = a.p[s],
                                                  .a_dtype = a.dtype[s],
                                                  .b = f.p[s],
                                                  .out = out.p[s],
                                                  .out_dtype = TR_F32,
                                                  .n = 1003}};
    run(b, op);
    equal(b, &out, "sum");
    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_BIAS_GRAD, .bias_grad = {.dy = grad.p[s],
                                                              .dtype = grad.dtype[s],
                                                              .db = db.p[s],
                                                              .n = 17,
                                                              .m = 59,
                                                              .grains = {2, start}}};
    run(b, op);
    compare(b, &db, "bias_grad", TR_F32);
}

static void check_xent(struct bench *b, enum tr_dtype t)
{
    static const int32_t target[4] = {5, -1, 0, 66};
    struct array logits = floats(b, 4 * 67), targets = integers(b, target, 4);
    struct array max = floats(b, 4), sum = floats(b, 4), logit = floats(b, 4);
    struct array lse = floats(b, 4), nll = floats(b, 4), scale = floats(b, 4);
    struct array d = activations(b, 4 * 67, t);
    struct tr_op op[SIDES];

    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_XENT, .xent = {.logits = logits.p[s],
                                                    .n = 4,
                                                    .rows = 67,
                                                    .first = 1,
                                                    .targets = targets.p[s],
                                                    .max = max.p[s],
                                                    .sum = sum.p[s],
                                                    .target_logit = logit.p[s],
                                                    .lse = lse.p[s],
                                                    .nll = nll.p[s],
                                                    .scale = scale.p[s],
                                                    .dlogits = d.p[s],
                                                    .dtype = d.dtype[s]}};
    run(b, op);
    op[0].kind = op[1].kind = TR_OP_XENT_LOSS;
    run(b, op);
    compare(b, &lse, "lse", TR_F32);
    compare(b, &nll, "nll", TR_F32);
    op[0].kind = op[1].kind = TR_OP_XENT_GRAD;
    run(b, op);
    compare(b, &d, "dlogits", t);
}

static void check_cast(struct bench *b, enum tr_dtype t)
{
    struct array from = floats(b, 1003), to = make(b, 1003, t, t), total = floats(b, 2);
    struct tr_op op[SIDES];
    double *want, *got;

    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){
            TR_OP_CAST,
            .cast = {
                .from = from.p[s], .from_dtype = TR_F32, .to = to.p[s], .to_dtype = t, .n = 1003}};
    run(b, op);
    equal(b, &to, "to");
    for (int s = 0; s < SIDES; s++)
        op[s] =
            (struct tr_op){TR_OP_SUMSQ, .sumsq = {.x = from.p[s], .n = 1003, .out = total.p[s]}};
    run(b, op);
    want = fetch(b, &total, 0);
    got = fetch(b, &total, 1);
    if (fabs(*want - *got) > 1e-12 * *want)
        fail_msg("sumsq: %.17g, not %.17g", *got, *want);
    free(want);
    free(got);
    for (int s = 0; s < SIDES; s++)
        op[s] = (struct tr_op){TR_OP_ROUND, .round = {.x = from.p[s], .n = 1003, .dtype = t}};
    run(b, op);
    equal(b, &from, "rounded");
}

static void check_update(struct bench *b, enum tr_dtype t)
{
    struct array w = make(b, 1003, t, t), g = floats(b, 1003), m = floats(b, 1003);
    struct array v = floats(b, 1003);
    struct tr_op op[SIDES];

    for (int pass = 0; pass < 4; pass++) {
        for (int s = 0; s < SIDES; s++)
            op[s] =
                (struct tr_op){pass % 2 ? TR_OP_ADAMW : TR_OP_SGD,
                               .update = {.w = w.p[s],
                                          .dtype = t,
                                          .g = g.p[s],
                                          .m = m.p[s],
                                          .v = v.p[s],
                                          .n = 1003,
                                          .first = 77,
                                          .unscale = 0.5f,
                                          .clip_value = 0.4f,
                                          .coefficient = 0.9f,
                                          .lr = 0.01f,
                                          .weight_decay = 0.1f,
                                          .beta1 = 0.9f,
                                          .beta2 = 0.999f,
                                          .eps = 1e-8f,
                                          .step_size = 0.01f,
                                          .sqrt_bias2 = 0.3f,
                                          .rounding = pass / 2 && t == TR_BF16 ? TR_ROUND_STOCHASTIC
                                                                               : TR_ROUND_NEAREST,
                                          .step = 3,
                                          .seed = 5,
                                          .name = 11}};
        run(b, op);
        if (pass == 0) /* adamw's v is a sum of squares */
            for (int s = 0; s < SIDES; s++)
                must(b, b->d[s]->ops->fill(b->d[s], TR_STREAM_COMPUTE, v.p[s], 0, 1003 * 4));
        equal(b, &w, pass % 2 ? "adamw's w" : "sgd's w");
        equal(b, &m, "m");
    }
}

static const struct {
    const char *name;
    void (*check)(struct bench *b, enum tr_dtype t);
} checks[] = {{"embed", check_embed},         {"rmsnorm", check_rmsnorm}, {"rope", check_rope},
              {"attention", check_attention}, {"swiglu", check_swiglu},   {"add", check_add},
              {"xent", check_xent},           {"cast", check_cast},       {"update", check_update}};

static void check_all(enum tr_dtype t)
{
    struct bench b;
    char doing[64];

    if (test_device_is_cpu())
        skip();
    open_bench(&b);
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        snprintf(doing, sizeof(doing), "%s, storage %s", checks[i].name, tr_dtype_name(t));
        b.doing = doing;
        b.used = 0;
        checks[i].check(&b, t);
    }
    close_bench(&b);
}

static void ops_in_f32(void **state)
{
    (void)state;
    check_all(TR_F32);
}

static void ops_in_bf16(void **state)
{
    (void)state;
    check_all(TR_BF16);
}

static void ops_in_f16(void **state)
{
    (void)state;
    check_all(TR_F16);
}

/* Thousands of ops, queued faster than they are done: a stream takes only so many, and long before
 * that the caller is made to wait. */
static void far_ahead(void **state)
{
    const struct test_fake *fake = test_device_fake();
    struct bench b;
    float *sums;

    (void)state;
    open_bench(&b);
    sums = (float *)b.arena[1];
    b.doing = "far ahead";
    for (int i = 0; i < 5000; i++) {
        struct tr_op op = {.kind = TR_OP_CAST,
                           .cast = {.from = sums,
                                    .from_dtype = TR_F32,
                                    .to = sums + 4096,
                                    .to_dtype = TR_BF16,
                                    .n = 4096}};

        must(&b, b.d[1]->ops->run(b.d[1], TR_STREAM_COMPUTE, &op));
    }
    must(&b, b.d[1]->ops->sync(b.d[1], TR_STREAM_COMPUTE));
    if (fake)
        assert_in_range(fake->deepest(), 100, 800);
    close_bench(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ops_in_f32),
        cmocka_unit_test(ops_in_bf16),
        cmocka_unit_test(ops_in_f16),
        cmocka_unit_test(far_ahead),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
