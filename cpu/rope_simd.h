/* SPDX-License-Identifier: Apache-2.0
 *
 * Rotate-half in sixteen lanes.
 */
static inline void turn(float *x, const float *cos_sin[2], float sign, const int64_t at[3])
{
    int64_t i = at[0], half = at[1], n = at[2];
    v16 a = v16_load(x + i, n), b = v16_load(x + i + half, n);
    v16 c = v16_load(cos_sin[0] + i, n);
    v16 s = v16_mul(v16_load(cos_sin[1] + i, n), v16_set(sign));

    v16_store(x + i, v16_sub(v16_mul(a, c), v16_mul(b, s)), n);
    v16_store(x + i + half, v16_add(v16_mul(b, c), v16_mul(a, s)), n);
}

static void rope(float *x, const float *cos, const float *sin, float sign, int64_t half)
{
    const float *cos_sin[2] = {cos, sin};

#define BODY(i, count) turn(x, cos_sin, sign, (int64_t[3]){i, half, count})
    V16_LOOP(half, BODY);
#undef BODY
}

void TR_TIER_INIT(rope)(struct tr_cpu_kernels *k)
{
    k->rope = rope;
}
