/* SPDX-License-Identifier: Apache-2.0
 *
 * Dropout in sixteen lanes: the bits of cpu/dropout.c.
 */
#include "cpu/philox_simd.h"
#include "src/base/philox.h"

/* Signed comparisons compare unsigned words from which half of their range is taken. */
static inline v16i shifted(v16i words)
{
    return v16i_xor(words, v16i_set(1u << 31));
}

/* Words are drawn for four elements by each counter, eight counters at a time. */
static void dropout(float *to, const float *x, int64_t n, const struct tr_dropout_draw *draw)
{
    const struct tr_op_dropout *op = draw->op;
    uint64_t group = draw->first / 4, ahead = draw->first % 4;
    v16i threshold = v16i_set(op->threshold ^ 1u << 31);
    float words[TR_BLOCK + 4 + 32]; /* bits of them */
    v8q keys[ROUNDS][2], c[4];

    philox_keys(keys, op->seed, op->name ^ TR_PHILOX_DROP);
    for (int64_t at = 0; at < (int64_t)ahead + n; at += 32, group += 8) {
        philox(c, group, op->step, keys);
        v8q_store_rows(words + at, c);
    }
#define BODY(i, count)                                                                             \
    do {                                                                                           \
        v16i word = shifted(v16_bits(v16_load(words + ahead + (i), count)));                       \
        v16 kept = v16_mul(v16_load(x + (i), count), v16_set(op->scale));                          \
                                                                                                   \
        kept = v16_of_bits(v16i_if_greater(threshold, word, v16i_set(0), v16_bits(kept)));         \
        v16_store(to + (i), kept, count);                                                          \
    } while (0)
    V16_LOOP(n, BODY);
#undef BODY
}

void TR_TIER_INIT(dropout)(struct tr_cpu_kernels *k)
{
    k->dropout = dropout;
}
