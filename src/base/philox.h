/* SPDX-License-Identifier: Apache-2.0
 *
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11): four random
 * words from a counter and a key, no state. Kept header-only because the cpu tiers, the CUDA
 * kernels and the random initialiser all need the same bits.
 */
#ifndef TR_BASE_PHILOX_H
#define TR_BASE_PHILOX_H

#include <stdint.h>

#ifdef __CUDACC__
#define TR_PHILOX_FN static inline __host__ __device__
#else
#define TR_PHILOX_FN static inline
#endif

struct tr_philox {
    uint32_t v[4];
};

#define TR_PHILOX_ROUNDS 10
#define TR_PHILOX_BUMP0  0x9E3779B9u /* what a key grows by from round to round */
#define TR_PHILOX_BUMP1  0xBB67AE85u

TR_PHILOX_FN struct tr_philox tr_philox_turn(struct tr_philox c, uint32_t k0, uint32_t k1)
{
    uint64_t p0 = (uint64_t)0xD2511F53u * c.v[0], p1 = (uint64_t)0xCD9E8D57u * c.v[2];
    struct tr_philox n = {{(uint32_t)(p1 >> 32) ^ c.v[1] ^ k0, (uint32_t)p1,
                           (uint32_t)(p0 >> 32) ^ c.v[3] ^ k1, (uint32_t)p0}};

    return n;
}

TR_PHILOX_FN struct tr_philox tr_philox4x32(struct tr_philox c, uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < TR_PHILOX_ROUNDS; round++) {
        c = tr_philox_turn(c, k0, k1);
        k0 += TR_PHILOX_BUMP0;
        k1 += TR_PHILOX_BUMP1;
    }
    return c;
}

/* What tells the random bits of optimizer state from those of the weights: in the name. */
#define TR_PHILOX_M 0x9e3779b9u
#define TR_PHILOX_V 0x7f4a7c15u
/* And those of dropout, whose name is that of a tensor, too. */
#define TR_PHILOX_DROP 0x85ebca6bu

/* The counter of the eight elements index/8*8 .. +7 of a tensor at optimizer step `step`. */
TR_PHILOX_FN struct tr_philox tr_philox_counter(uint64_t index, uint64_t step)
{
    struct tr_philox c = {{(uint32_t)(index / 8), (uint32_t)(index / 8 >> 32), (uint32_t)step,
                           (uint32_t)(step >> 32)}};

    return c;
}

/* The 16 random bits of stochastic rounding for element `index` of a tensor at optimizer step
 * `step`: one Philox call serves the eight elements index/8*8 .. +7, low half-word first. */
TR_PHILOX_FN struct tr_philox tr_philox_round(uint64_t index, uint64_t step, uint32_t seed,
                                              uint32_t name)
{
    return tr_philox4x32(tr_philox_counter(index, step), seed, name);
}

/* Words that decide which of the elements index/4*4 .. +3 of an input are dropped. */
TR_PHILOX_FN struct tr_philox tr_philox_drop(uint64_t index, uint64_t step, uint32_t seed,
                                             uint32_t name)
{
    struct tr_philox c = {{(uint32_t)(index / 4), (uint32_t)(index / 4 >> 32), (uint32_t)step,
                           (uint32_t)(step >> 32)}};
    return tr_philox4x32(c, seed, name ^ TR_PHILOX_DROP);
}

/* A number below n from 64 random bits; draws that are not of the same seed or index are
 * independent. What it lacks of being uniform is n / 2^64. */
TR_PHILOX_FN uint64_t tr_philox_below(uint64_t index, uint64_t seed, uint64_t n)
{
    struct tr_philox c = {{(uint32_t)index, (uint32_t)(index >> 32), 0x64726177, 0}};
    struct tr_philox r = tr_philox4x32(c, (uint32_t)seed, (uint32_t)(seed >> 32));

    return ((uint64_t)r.v[0] << 32 | r.v[1]) % n;
}

TR_PHILOX_FN uint16_t tr_philox_half(struct tr_philox r, uint64_t index)
{
    return (uint16_t)(r.v[index % 8 / 2] >> (index % 2 * 16));
}

#endif
