/* SPDX-License-Identifier: Apache-2.0
 *
 * mma and ldmatrix against plain products and the layouts of the PTX ISA, which are written here
 * once more, element by element, in the ISA's own terms.
 */
#include "tests/cuda/shim/test.h"

#include <string.h>

#include "kernels/ptx.cuh"

enum { M = 16, N = 8, K = 16 };

static uint16_t a[M * K], b[K * N];
static float c[M * N], d[M * N];

template <bool F16> static void fill(uint32_t seed)
{
    for (uint32_t i = 0; i < M * K; i++) {
        float v = test_value(i + seed) * 0.37f;
        a[i] = F16 ? tr_f32_f16(v) : tr_f32_bf16(v);
    }
    for (uint32_t i = 0; i < K * N; i++) {
        float v = test_value(i + 1000 + seed) * 1.13f;
        b[i] = F16 ? tr_f32_f16(v) : tr_f32_bf16(v);
    }
    for (uint32_t i = 0; i < M * N; i++)
        c[i] = test_value(i + 2000) * 0.71f;
}

/* c + a b, the products added in eights, as tr_shim_ptx.h says. */
template <bool F16> static void check_product(void)
{
    for (int row = 0; row < M; row++)
        for (int column = 0; column < N; column++) {
            float sum[2] = {0, 0};
            for (int k = 0; k < K; k++)
                sum[k / 8] += F16 ? tr_f16_f32(a[row * K + k]) * tr_f16_f32(b[k * N + column])
                                  : tr_bf16_f32(a[row * K + k]) * tr_bf16_f32(b[k * N + column]);
            assert_true(d[row * N + column] == c[row * N + column] + sum[0] + sum[1]);
        }
}

/* Fragments by the ISA's formulas for element i of A (8), B (4) and C (4). */
template <bool F16> static __global__ void multiply_by_formula(void)
{
    int group = (int)threadIdx.x >> 2, thread = (int)threadIdx.x % 4;
    uint32_t fa[4] = {0}, fb[2] = {0};
    float fd[4];

    for (int i = 0; i < 8; i++) {
        int row = (i < 2) || (i >= 4 && i < 6) ? group : group + 8;
        int column = thread * 2 + (i & 1) + (i >= 4 ? 8 : 0);
        fa[i / 2] |= (uint32_t)a[row * K + column] << i % 2 * 16;
    }
    for (int i = 0; i < 4; i++) {
        int row = thread * 2 + (i & 1) + (i >= 2 ? 8 : 0);
        fb[i / 2] |= (uint32_t)b[row * N + group] << i % 2 * 16;
    }
    for (int i = 0; i < 4; i++)
        fd[i] = c[(i < 2 ? group : group + 8) * N + thread * 2 + (i & 1)];
    if (F16)
        ptx_mma_f16(fd, fa, fb);
    else
        ptx_mma_bf16(fd, fa, fb);
    for (int i = 0; i < 4; i++)
        d[(i < 2 ? group : group + 8) * N + thread * 2 + (i & 1)] = fd[i];
}

enum { STRIDE = 24 }; // of a row in shared memory: 48 bytes, each row aligned

/* The usual way: tiles in shared memory, A row by row or transposed, B likewise. */
template <bool A_TRANS, bool B_TRANS> static __global__ void multiply_by_ldmatrix(void)
{
    TR_SHARED(uint16_t, sa, [K * STRIDE]);
    TR_SHARED(uint16_t, sb, [K * STRIDE]);
    int lane = (int)threadIdx.x, matrix = lane / 8, k = lane % 8;
    uint32_t fa[4], fb[4];
    float fd[4];

    for (int i = lane; i < M * K; i += 32)
        sa[A_TRANS ? i % K * STRIDE + i / K : i / K * STRIDE + i % K] = a[i];
    for (int i = lane; i < K * N; i += 32)
        sb[B_TRANS ? i / N * STRIDE + i % N : i % N * STRIDE + i / N] = b[i];
    __syncthreads();
    /* Matrices of A: rows 0, rows 8, then the same for columns 8. */
    if (A_TRANS)
        ptx_ldmatrix_x4_trans(fa, sa + (matrix / 2 * 8 + k) * STRIDE + matrix % 2 * 8);
    else
        ptx_ldmatrix_x4(fa, sa + (matrix % 2 * 8 + k) * STRIDE + matrix / 2 * 8);
    /* Of B: the two that there are, twice. */
    if (B_TRANS)
        ptx_ldmatrix_x4_trans(fb, sb + (matrix % 2 * 8 + k) * STRIDE);
    else
        ptx_ldmatrix_x4(fb, sb + k * STRIDE + matrix % 2 * 8);
    for (int i = 0; i < 4; i++)
        fd[i] = c[(lane / 4 + i / 2 * 8) * N + lane % 4 * 2 + i % 2];
    ptx_mma_bf16(fd, fa, fb);
    for (int i = 0; i < 4; i++)
        d[(lane / 4 + i / 2 * 8) * N + lane % 4 * 2 + i % 2] = fd[i];
}

template <bool F16> static void run_formula(uint32_t seed)
{
    fill<F16>(seed);
    memset(d, 0xff, sizeof d);
    TR_LAUNCH(multiply_by_formula<F16>, 1, 32, 0, NULL);
    assert_string_equal(launch_error, "");
    check_product<F16>();
}

static void test_mma(void **state)
{
    (void)state;
    for (int i = 0; test_orders[i]; i++) {
        assert_int_equal(tr_shim_set_order(test_orders[i]), 0);
        run_formula<false>((uint32_t)i);
        run_formula<true>((uint32_t)i);
    }
}

template <bool A_TRANS, bool B_TRANS> static void run_ldmatrix(void)
{
    memset(d, 0xff, sizeof d);
    TR_LAUNCH((multiply_by_ldmatrix<A_TRANS, B_TRANS>), 1, 32, 0, NULL);
    assert_string_equal(launch_error, "");
    check_product<false>();
}

static void test_ldmatrix(void **state)
{
    (void)state;
    fill<false>(77);
    for (int i = 0; test_orders[i]; i++) {
        assert_int_equal(tr_shim_set_order(test_orders[i]), 0);
        run_ldmatrix<false, false>();
        run_ldmatrix<false, true>();
        run_ldmatrix<true, false>();
        run_ldmatrix<true, true>();
    }
}

enum address { ODD, PAST_END, GLOBAL };

static __global__ void load_from(enum address where, const void *global)
{
    TR_SHARED(uint16_t, s, [64]);
    uint32_t r[4];

    for (int i = (int)threadIdx.x; i < 64; i += 32)
        s[i] = (uint16_t)i;
    __syncwarp();
    ptx_ldmatrix_x4(r, where == ODD ? s + 1 : where == PAST_END ? s + 8 * blockDim.x / 4 : global);
}

static void test_addresses(void **state)
{
    alignas(16) static uint16_t global[8];

    (void)state;
    assert_int_equal(tr_shim_set_order("ascending"), 0);
    TR_LAUNCH(load_from, 1, 32, 0, NULL, ODD, NULL);
    assert_non_null(strstr(launch_error, "fragments.cc"));
    assert_non_null(strstr(launch_error, "the address is not 16-byte aligned"));
    TR_LAUNCH(load_from, 1, 32, 0, NULL, PAST_END, NULL);
    assert_non_null(strstr(launch_error, "16 bytes that are not shared memory"));
    TR_LAUNCH(load_from, 1, 32, 0, NULL, GLOBAL, global);
    assert_non_null(strstr(launch_error, "16 bytes that are not shared memory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mma),
        cmocka_unit_test(test_ldmatrix),
        cmocka_unit_test(test_addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
