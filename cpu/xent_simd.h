/* SPDX-License-Identifier: Apache-2.0
 *
 * Cross-entropy's row kernels in sixteen lanes.
 */
static float row_max(const float *x, float max, int64_t n)
{
    v16 rest = v16_set(max), most = rest;

#define BODY(i, count) most = v16_max(v16_first(v16_load(x + (i), count), rest, count), most)
    V16_LOOP(n, BODY);
#undef BODY
    return v16_largest(most);
}

static float row_sum(const float *x, float max, int64_t n)
{
    v16 zero = v16_set(0.0f), sum = zero, by = v16_set(max);

#define BODY(i, count)                                                                             \
    sum = v16_add(sum, v16_first(v16_exp(v16_sub(v16_load(x + (i), count), by)), zero, count))
    V16_LOOP(n, BODY);
#undef BODY
    return v16_sum(sum);
}

static void row_grad(float *x, float lse, float scale, int64_t n)
{
    v16 by = v16_set(lse), s = v16_set(scale);

#define BODY(i, count)                                                                             \
    v16_store(x + (i), v16_mul(v16_exp(v16_sub(v16_load(x + (i), count), by)), s), count)
    V16_LOOP(n, BODY);
#undef BODY
}

void TR_TIER_INIT(xent)(struct tr_cpu_kernels *k)
{
    k->xent_max = row_max;
    k->xent_sum = row_sum;
    k->xent_grad = row_grad;
}
