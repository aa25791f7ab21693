/* SPDX-License-Identifier: Apache-2.0
 *
 * Attention's row kernels in sixteen lanes; rows of scores have whole vectors.
 */
static float row_max(const float *s, float max, int64_t n)
{
    v16 most = v16_set(max);

    for (int64_t i = 0; i < n; i += 16)
        most = v16_max(v16_load(s + i, 16), most);
    return v16_largest(most);
}

static float row_exp(float *s, float max, float scale, int64_t n)
{
    v16 sum = v16_set(0.0f);

    for (int64_t i = 0; i < n; i += 16) {
        v16 p = v16_exp(v16_mul(v16_sub(v16_load(s + i, 16), v16_set(max)), v16_set(scale)));

        v16_store(s + i, p, 16);
        sum = v16_add(sum, p);
    }
    return v16_sum(sum);
}

static void row_grad(float *s, float *ds, const struct tr_attention_row *row, int64_t n)
{
    v16 scale = v16_set(row->scale), lse = v16_set(row->lse), delta = v16_set(row->delta);

    for (int64_t i = 0; i < n; i += 16) {
        v16 p = v16_exp(v16_sub(v16_mul(v16_load(s + i, 16), scale), lse));
        v16 dp = v16_sub(v16_load(ds + i, 16), delta);

        v16_store(s + i, p, 16);
        v16_store(ds + i, v16_mul(v16_mul(p, dp), scale), 16);
    }
}

static void row_scale(float *x, float by, int64_t n)
{
    v16 s = v16_set(by);

#define BODY(i, count) v16_store(x + (i), v16_mul(v16_load(x + (i), count), s), count)
    V16_LOOP(n, BODY);
#undef BODY
}

static float row_dot(const float *a, const float *b, int64_t n)
{
    v16 sum = v16_set(0.0f);

#define BODY(i, count)                                                                             \
    sum = v16_add(sum, v16_mul(v16_load(a + (i), count), v16_load(b + (i), count)))
    V16_LOOP(n, BODY);
#undef BODY
    return v16_sum(sum);
}

void TR_TIER_INIT(attention)(struct tr_cpu_kernels *k)
{
    k->attention_max = row_max;
    k->attention_exp = row_exp;
    k->attention_grad = row_grad;
    k->attention_scale = row_scale;
    k->attention_dot = row_dot;
}
