/* SPDX-License-Identifier: Apache-2.0
 *
 * Sums of squares in sixteen f64 lanes: the products are exact, so fma changes no bit.
 */
static double sumsq(const float *x, int64_t n)
{
    double lanes[TR_LANES];
    v16d sum = v16d_zero();

#define BODY(i, count) sum = v16d_add_square(sum, v16_load(x + (i), count))
    V16_LOOP(n, BODY);
#undef BODY
    v16d_store(lanes, sum);
    return tr_lanes_sum_f64(lanes);
}

void TR_TIER_INIT(sumsq)(struct tr_cpu_kernels *k)
{
    k->sumsq = sumsq;
}
