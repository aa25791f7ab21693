/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensor-core fragments (kernels/ptx.cuh draws them): the last lane gathers the registers of all
 * 32 into matrices, and scatters the result.
 */
#include <tr_shim_ptx.h>

#include <string.h>

#include "tests/cuda/shim/engine.h"

enum { M = 16, N = 8, K = 16, HALF = K / 2 };

/* A row of four columns: any processor has the registers for it. */
typedef float row4 __attribute__((vector_size(16)));

struct operands {
    float a[M][K];
    row4 b[K][N / 4];
};

template <float (*low)(uint32_t), float (*high)(uint32_t)>
static inline void gather_lane(struct operands *o, const struct tr_shim_fragments *f, int lane)
{
    float *b = (float *)o->b;
    int g = lane / 4, t = lane % 4;

    for (int i = 0; i < 4; i++) {
        float *a = &o->a[g + i % 2 * 8][2 * t + i / 2 * 8];
        a[0] = low(f->a[i]);
        a[1] = high(f->a[i]);
    }
    for (int i = 0; i < 2; i++) {
        b[(2 * t + i * 8) * N + g] = low(f->b[i]);
        b[(2 * t + i * 8 + 1) * N + g] = high(f->b[i]);
    }
}

/* The sums of a row over one half of k. */
static inline void multiply_half(row4 sum[2], const float *a, const row4 b[][2])
{
    row4 left = {0, 0, 0, 0}, right = {0, 0, 0, 0};

    for (int k = 0; k < HALF; k++) {
        left += a[k] * b[k][0];
        right += a[k] * b[k][1];
    }
    sum[0] += left;
    sum[1] += right;
}

/* Lane 4 g + t has columns 2 t and 2 t + 1 of rows g and g + 8. */
static inline float *element(row4 d[M][2], int lane, int half)
{
    return (float *)d[lane / 4 + half * 8] + lane % 4 * 2;
}

template <float (*low)(uint32_t), float (*high)(uint32_t)>
static void finish_mma(struct shim_engine *e, struct shim_warp *w, unsigned mask)
{
    struct operands o;
    row4 d[M][2];

    (void)e;
    (void)mask;
    for (int lane = 0; lane < SHIM_LANES; lane++) {
        const struct tr_shim_fragments *f = (const struct tr_shim_fragments *)w->slots[lane];
        gather_lane<low, high>(&o, f, lane);
        memcpy(element(d, lane, 0), f->d, 2 * sizeof *f->d);
        memcpy(element(d, lane, 1), f->d + 2, 2 * sizeof *f->d);
    }
    for (int row = 0; row < M; row++) {
        multiply_half(d[row], o.a[row], o.b);
        multiply_half(d[row], o.a[row] + HALF, o.b + HALF);
    }
    for (int lane = 0; lane < SHIM_LANES; lane++) {
        const struct tr_shim_fragments *f = (const struct tr_shim_fragments *)w->slots[lane];
        memcpy(f->d, element(d, lane, 0), 2 * sizeof *f->d);
        memcpy(f->d + 2, element(d, lane, 1), 2 * sizeof *f->d);
    }
}

void tr_shim_mma(enum tr_shim_type type, struct tr_shim_fragments *f, const char *file, int line)
{
    struct shim_meet m = {{"mma", file, line}, 0xffffffff, false, NULL};

    m.finish = type == TR_SHIM_BF16 ? finish_mma<ptx_bf16_low, ptx_bf16_high>
                                    : finish_mma<ptx_f16_low, ptx_f16_high>;
    shim_warp_meet(&m, f);
}

/* Element (row, column) of matrix i, from the lane that read its row. */
static inline uint32_t at(struct shim_warp *w, int i, int row, int column)
{
    const struct tr_shim_rows *from = (const struct tr_shim_rows *)w->slots[8 * i + row];
    return from->row[column / 2] >> column % 2 * 16 & 0xffff;
}

static void finish_ldmatrix(struct shim_engine *e, struct shim_warp *w, unsigned mask)
{
    (void)e;
    (void)mask;
    for (int lane = 0; lane < SHIM_LANES; lane++) {
        struct tr_shim_rows *to = (struct tr_shim_rows *)w->slots[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            to->r[i] = to->trans ? at(w, i, 2 * t, g) | at(w, i, 2 * t + 1, g) << 16
                                 : at(w, i, g, 2 * t) | at(w, i, g, 2 * t + 1) << 16;
    }
}

void tr_shim_ldmatrix(struct tr_shim_rows *f, const char *file, int line)
{
    struct shim_meet m = {{"ldmatrix", file, line}, 0xffffffff, false, finish_ldmatrix};

    shim_warp_meet(&m, f);
}
