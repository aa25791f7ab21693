/* SPDX-License-Identifier: Apache-2.0
 *
 * Philox4x32 (src/base/philox.h) on eight counters at once, for the templates that draw. Only the
 * low word of each lane counts; what stands above it is never read.
 */
#include "src/base/philox.h"

#define ROUNDS TR_PHILOX_ROUNDS

static inline void philox_keys(v8q keys[ROUNDS][2], uint32_t seed, uint32_t name)
{
    for (uint32_t round = 0; round < ROUNDS; round++) {
        keys[round][0] = v8q_set(seed + round * TR_PHILOX_BUMP0);
        keys[round][1] = v8q_set(name + round * TR_PHILOX_BUMP1);
    }
}

/* c becomes the words of counters count to count + 7 at that step. */
static inline void philox(v8q c[4], uint64_t count, uint64_t step, const v8q keys[ROUNDS][2])
{
    v8q by0 = v8q_set(0xD2511F53u), by1 = v8q_set(0xCD9E8D57u);

    c[0] = v8q_count(count);
    c[1] = v8q_high(c[0]);
    c[2] = v8q_set(step);
    c[3] = v8q_set(step >> 32);
    for (int round = 0; round < ROUNDS; round++) {
        v8q p0 = v8q_mul(c[0], by0), p1 = v8q_mul(c[2], by1);

        c[0] = v8q_xor(v8q_high(p1), v8q_xor(c[1], keys[round][0]));
        c[2] = v8q_xor(v8q_high(p0), v8q_xor(c[3], keys[round][1]));
        c[1] = p1;
        c[3] = p0;
    }
}
