/* SPDX-License-Identifier: Apache-2.0
 *
 * rmsnorm's row kernels in sixteen lanes.
 */
static inline v16 square(v16 x)
{
    return v16_mul(x, x);
}

static float row_sumsq(const float *x, int64_t n)
{
    v16 sum = v16_set(0.0f);

#define BODY(i, count) sum = v16_add(sum, square(v16_load(x + (i), count)))
    V16_LOOP(n, BODY);
#undef BODY
    return v16_sum(sum);
}

static void row_scale(float *y, const float *x, const float *w, float rstd, int64_t n)
{
    v16 s = v16_set(rstd);

#define BODY(i, count)                                                                             \
    v16_store(y + (i), v16_mul(v16_mul(v16_load(x + (i), count), s), v16_load(w + (i), count)),    \
              count)
    V16_LOOP(n, BODY);
#undef BODY
}

static float row_dot(const float *dy, const float *w, const float *x, int64_t n)
{
    v16 sum = v16_set(0.0f);

#define BODY(i, count)                                                                             \
    sum = v16_add(sum, v16_mul(v16_mul(v16_load(dy + (i), count), v16_load(w + (i), count)),       \
                               v16_load(x + (i), count)))
    V16_LOOP(n, BODY);
#undef BODY
    return v16_sum(sum);
}

static inline void gradient(const struct tr_rmsnorm_row *r, int64_t i, int64_t n)
{
    v16 rstd = v16_set(r->rstd), mean = v16_set(r->mean);
    v16 g = v16_mul(v16_load(r->dy + i, n), v16_load(r->w + i, n));
    v16 along = v16_mul(v16_mul(v16_load(r->x + i, n), rstd), mean);
    v16 dx = v16_mul(rstd, v16_sub(g, along));

    v16_store(r->dx + i, r->add ? v16_add(v16_load(r->dx + i, n), dx) : dx, n);
}

static void row_dx(const struct tr_rmsnorm_row *r)
{
#define BODY(i, count) gradient(r, i, count)
    V16_LOOP(r->n, BODY);
#undef BODY
}

static inline void add_product(float *acc, const float *dy, const float *x, float rstd, int64_t n)
{
    v16 xhat = v16_mul(v16_load(x, n), v16_set(rstd));

    v16_store(acc, v16_add(v16_load(acc, n), v16_mul(v16_load(dy, n), xhat)), n);
}

static void row_dw(float *acc, const float *dy, const float *x, float rstd, int64_t n)
{
#define BODY(i, count) add_product(acc + (i), dy + (i), x + (i), rstd, count)
    V16_LOOP(n, BODY);
#undef BODY
}

void TR_TIER_INIT(rmsnorm)(struct tr_cpu_kernels *k)
{
    k->rmsnorm_sumsq = row_sumsq;
    k->rmsnorm_scale = row_scale;
    k->rmsnorm_dot = row_dot;
    k->rmsnorm_dx = row_dx;
    k->rmsnorm_dw = row_dw;
}
