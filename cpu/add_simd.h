/* SPDX-License-Identifier: Apache-2.0
 *
 * a + b in sixteen lanes.
 */
static void add(float *to, const float *a, const float *b, int64_t n)
{
#define BODY(i, count)                                                                             \
    v16_store(to + (i), v16_add(v16_load(a + (i), count), v16_load(b + (i), count)), count)
    V16_LOOP(n, BODY);
#undef BODY
}

void TR_TIER_INIT(add)(struct tr_cpu_kernels *k)
{
    k->add = add;
}
