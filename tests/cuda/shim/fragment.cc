/* SPDX-License-Identifier: Apache-2.0
 *
 * Tensor-core fragments (kernels/ptx.cuh draws them): the last lane gathers the registers of all
 * 32 into matrices, and scatters the result.
 */
#include <tr_shim_ptx.h>

#include "tests/cuda/shim/engine.h"

enum { M = 16, N = 8, K = 16 };

template <float (*low)(uint32_t), float (*high)(uint32_t)>
static void gather(struct shim_warp *w, float a[M][K], float b[K][N])
{
    for (int lane = 0; lane < SHIM_LANES; lane++) {
        const struct tr_shim_fragments *f = (const struct tr_shim_fragments *)w->slots[lane];
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++) {
            int row = g + i % 2 * 8, k = 2 * t + i / 2 * 8;
            a[row][k] = low(f->a[i]);
            a[row][k + 1] = high(f->a[i]);
        }
        for (int i = 0; i < 2; i++) {
            b[2 * t + i * 8][g] = low(f->b[i]);
            b[2 * t + i * 8 + 1][g] = high(f->b[i]);
        }
    }
}

/* Row and column of d[i] in a lane's fragment. */
static inline float *element(float d[M][N], int lane, int i)
{
    return &d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
}

template <float (*low)(uint32_t), float (*high)(uint32_t)>
static void finish_mma(struct shim_engine *e, struct shim_warp *w, unsigned mask)
{
    float a[M][K], b[K][N], d[M][N];

    (void)e;
    (void)mask;
    gather<low, high>(w, a, b);
    for (int lane = 0; lane < SHIM_LANES; lane++)
        for (int i = 0; i < 4; i++)
            *element(d, lane, i) = ((struct tr_shim_fragments *)w->slots[lane])->d[i];
    for (int row = 0; row < M; row++)
        for (int half = 0; half < K; half += K / 2) {
            float sum[N] = {0};

            for (int k = half; k < half + K / 2; k++)
                for (int column = 0; column < N; column++)
                    sum[column] += a[row][k] * b[k][column];
            for (int column = 0; column < N; column++)
                d[row][column] += sum[column];
        }
    for (int lane = 0; lane < SHIM_LANES; lane++)
        for (int i = 0; i < 4; i++)
            ((struct tr_shim_fragments *)w->slots[lane])->d[i] = *element(d, lane, i);
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
        for (int i = 0; i < to->n; i++)
            to->r[i] = to->trans ? at(w, i, 2 * t, g) | at(w, i, 2 * t + 1, g) << 16
                                 : at(w, i, g, 2 * t) | at(w, i, g, 2 * t + 1) << 16;
    }
}

void tr_shim_ldmatrix(struct tr_shim_rows *f, const char *file, int line)
{
    struct shim_meet m = {{"ldmatrix", file, line}, 0xffffffff, false, finish_ldmatrix};

    shim_warp_meet(&m, f);
}
