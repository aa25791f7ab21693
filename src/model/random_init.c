/* SPDX-License-Identifier: Apache-2.0
 *
 * Philox words to normal numbers by Box and Muller's transform. Logarithm, sine and cosine are
 * series of additions and multiplications written out here: those of the C library differ in the
 * last bit between processors, and a seed should mean the same model everywhere.
 */
#include "src/model/random_init.h"

#include <errno.h>
#include <math.h>

#include "src/base/philox.h"
#include "src/base/thread.h"

#define GROUP  4           /* one Philox call gives four values */
#define GRAIN  4096        /* groups that a thread takes at least */
#define DOMAIN 0x494e4954u /* keeps these words apart from those of stochastic rounding */

/* ln x of 0 < x < 1: x = m 2^e with m around 1, then the series of 2 artanh((m - 1) / (m + 1)). */
static double log_series(double x)
{
    uint64_t bits;
    int64_t e;
    double m, s, z, sum;

    memcpy(&bits, &x, 8);
    bits -= 0x3fe6a09e667f3bcdull; /* bits of sqrt(1/2): the exponent counts from there */
    e = (int64_t)bits >> 52;
    bits = (bits & 0xfffffffffffffull) + 0x3fe6a09e667f3bcdull;
    memcpy(&m, &bits, 8);
    s = (m - 1) / (m + 1);
    z = s * s;
    sum = 1.0 / 13 + z * (1.0 / 15 + z * (1.0 / 17));
    sum = 1.0 / 7 + z * (1.0 / 9 + z * (1.0 / 11 + z * sum));
    sum = 1 + z * (1.0 / 3 + z * (1.0 / 5 + z * sum));
    return 2 * s * sum + (double)e * 0.6931471805599453;
}

/* sin and cos of 2 pi turn, 0 <= turn < 1: the nearest quarter is taken off, then Taylor's series.
 */
static void sin_cos_series(double turn, double *sine, double *cosine)
{
    int quarter = (int)(turn * 4 + 0.5);
    double x = (turn - quarter * 0.25) * 6.283185307179586, z = x * x, s, c;

    s = 1.0 / 362880 - z * (1.0 / 39916800 - z * (1.0 / 6227020800));
    s = x * (1 - z * (1.0 / 6 - z * (1.0 / 120 - z * (1.0 / 5040 - z * s))));
    c = 1.0 / 40320 - z * (1.0 / 3628800 - z * (1.0 / 479001600));
    c = 1 - z * (1.0 / 2 - z * (1.0 / 24 - z * (1.0 / 720 - z * c)));
    *sine = quarter & 1 ? c : s;
    *cosine = quarter & 1 ? s : c;
    if (quarter & 2)
        *sine = -*sine;
    if ((quarter + 1) & 2)
        *cosine = -*cosine;
}

static void normal_pair(uint32_t a, uint32_t b, double out[2])
{
    double radius = sqrt(-2 * log_series(((double)a + 0.5) * 0x1p-32)), s, c;

    sin_cos_series((double)b * 0x1p-32, &s, &c);
    out[0] = radius * c;
    out[1] = radius * s;
}

static uint32_t hash_name(const char *s)
{
    uint32_t h = 2166136261u;

    while (*s)
        h = (h ^ (unsigned char)*s++) * 16777619u;
    return h;
}

struct job {
    const struct tr_random_init *r;
    uint64_t from, n;
    uint32_t name;
    enum tr_dtype type;
    void *buf;
};

static void run_job(void *arg, int64_t begin, int64_t end, int worker)
{
    const struct job *j = arg;
    uint64_t first = j->from / GROUP;
    uint32_t k0 = (uint32_t)j->r->seed, k1 = j->name;

    (void)worker;
    for (int64_t g = begin; g < end; g++) {
        uint64_t index = first + (uint64_t)g;
        struct tr_philox w = {
            {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)(j->r->seed >> 32), DOMAIN}};
        double z[GROUP];

        w = tr_philox4x32(w, k0, k1);
        normal_pair(w.v[0], w.v[1], z);
        normal_pair(w.v[2], w.v[3], z + 2);
        for (int i = 0; i < GROUP; i++) {
            uint64_t at = index * GROUP + (uint64_t)i;

            if (at >= j->from && at < j->from + j->n)
                tr_store_f32(j->buf, j->type, at - j->from, (float)(z[i] * j->r->std));
        }
    }
}

static int constant_of(enum tr_role role, float *value)
{
    switch (role) {
    case TR_ROLE_NORM1:
    case TR_ROLE_NORM2:
    case TR_ROLE_Q_NORM:
    case TR_ROLE_K_NORM:
    case TR_ROLE_FINAL_NORM:
        *value = 1;
        return 1;
    case TR_ROLE_Q_BIAS:
    case TR_ROLE_K_BIAS:
    case TR_ROLE_V_BIAS:
    case TR_ROLE_O_BIAS:
        *value = 0;
        return 1;
    default:
        return 0;
    }
}

int tr_random_init_fill(void *arg, const struct tr_tensor *t, uint64_t from, size_t n,
                        enum tr_dtype type, void *buf)
{
    struct job j = {arg, from, n, hash_name(t->name), type, buf};
    uint64_t groups = n ? (from + n - 1) / GROUP - from / GROUP + 1 : 0;
    float value;

    if (!constant_of(t->role, &value)) {
        tr_pool_run(j.r->pool, (int64_t)groups, GRAIN, run_job, &j);
        return 0;
    }
    for (size_t i = 0; i < n; i++)
        tr_store_f32(buf, type, i, value);
    return 0;
}

int tr_random_init_open(struct tr_random_init *r, const struct tr_model_config *c, uint64_t seed,
                        int threads)
{
    r->seed = seed;
    r->std = c->init_std;
    return tr_pool_open(&r->pool, threads > 0 ? threads : tr_thread_cores());
}

void tr_random_init_close(struct tr_random_init *r)
{
    tr_pool_close(r->pool);
    r->pool = NULL;
}
