/* SPDX-License-Identifier: Apache-2.0
 *
 * The execution model: kernels without fault compute what they should, in every order.
 */
#include "tests/cuda/shim/test.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/shim/samples.h"

#define EACH_ORDER(order)                                                                          \
    for (const char *const *order = test_orders; *order && !tr_shim_set_order(*order); order++)

static void test_reduce(void **state)
{
    enum { BLOCKS = 5, N = BLOCKS * REDUCE_THREADS };
    static float x[N], out[2 * BLOCKS];

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = test_value((uint32_t)i);
    EACH_ORDER(order)
    {
        memset(out, 0xff, sizeof out);
        TR_LAUNCH((sample_reduce<NONE>), BLOCKS, REDUCE_THREADS, 0, NULL, out, x);
        assert_string_equal(launch_error, "");
        for (int b = 0; b < BLOCKS; b++) {
            float sum = 0;
            for (int i = 0; i < REDUCE_THREADS; i++)
                sum += x[b * REDUCE_THREADS + i];
            assert_true(out[2 * b] == sum && out[2 * b + 1] == sum + REDUCE_THREADS);
        }
    }
}

static void test_transpose(void **state)
{
    enum { N = 3 * TILE };
    static float x[N * N], y[N * N];

    (void)state;
    for (int i = 0; i < N * N; i++)
        x[i] = (float)i;
    EACH_ORDER(order)
    {
        memset(y, 0xff, sizeof y);
        TR_LAUNCH((sample_transpose<NONE>), dim3(3, 3), dim3(TILE, 4), TILE * (TILE + 1) * 4, NULL,
                  y, x, N);
        assert_string_equal(launch_error, "");
        for (int i = 0; i < N * N; i++)
            assert_true(y[i] == x[i % N * N + i / N]);
    }
}

static void test_scan(void **state)
{
    enum { BLOCKS = 2, THREADS = TR_SHIM_TSAN ? 256 : 1024 }; // 0.8 MB for each thread there
    static float x[BLOCKS * THREADS], y[BLOCKS * THREADS];

    (void)state;
    for (int i = 0; i < BLOCKS * THREADS; i++)
        x[i] = test_value((uint32_t)i);
    EACH_ORDER(order)
    {
        TR_LAUNCH((sample_scan<NONE>), BLOCKS, THREADS, 0, NULL, y, x);
        assert_string_equal(launch_error, "");
        float sum = 0;
        for (int i = 0; i < BLOCKS * THREADS; i++) {
            sum = (i % THREADS ? sum : 0) + x[i];
            assert_true(y[i] == sum);
        }
    }
}

static void test_swap(void **state)
{
    int x[64], y[64];

    (void)state;
    for (int i = 0; i < 64; i++)
        x[i] = 100 + i;
    EACH_ORDER(order)
    {
        TR_LAUNCH((sample_swap<NONE>), 1, 64, 0, NULL, y, x);
        assert_string_equal(launch_error, "");
        for (int i = 0; i < 64; i++)
            assert_int_equal(y[i], x[i ^ 1]);
    }
}

static void test_stream(void **state)
{
    enum { TILES = 5 };
    alignas(16) static float x[TILES * STREAM_THREADS * 4];
    float y[STREAM_THREADS];

    (void)state;
    for (int i = 0; i < TILES * STREAM_THREADS * 4; i++)
        x[i] = test_value((uint32_t)i);
    EACH_ORDER(order)
    {
        TR_LAUNCH((sample_stream<NONE>), 1, STREAM_THREADS, 0, NULL, y, x, TILES);
        assert_string_equal(launch_error, "");
        for (int t = 0; t < STREAM_THREADS; t++) {
            float sum = 0;
            for (int i = 0; i < TILES; i++)
                for (int k = 0; k < 4; k++)
                    sum += (float)(k + 1) * x[(i * STREAM_THREADS + (t ^ 33)) * 4 + k];
            assert_true(y[t] == sum); // the last copy, not valid, left zeros
        }
    }
}

struct indices {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};

static __global__ void note_indices(struct indices *out)
{
    int t = (int)(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
    int b = (int)(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));

    out[b * 105 + t] = {threadIdx, blockIdx, blockDim, gridDim};
}

static void test_indices(void **state)
{
    enum { THREADS = 5 * 3 * 7, BLOCKS = 2 * 4 * 3 };
    static struct indices out[THREADS * BLOCKS];

    (void)state;
    EACH_ORDER(order)
    {
        for (struct indices &o : out)
            o = {};
        TR_LAUNCH(note_indices, dim3(2, 4, 3), dim3(5, 3, 7), 0, NULL, out);
        assert_string_equal(launch_error, "");
        for (int b = 0; b < BLOCKS; b++)
            for (int t = 0; t < THREADS; t++) {
                const struct indices *at = &out[b * THREADS + t];
                assert_true((int)at->thread.x == t % 5 && (int)at->thread.y == t / 5 % 3 &&
                            (int)at->thread.z == t / 15);
                assert_true((int)at->block.x == b % 2 && (int)at->block.y == b / 2 % 4 &&
                            (int)at->block.z == b / 8);
                assert_true(at->block_dim.z == 7 && at->grid_dim.y == 4);
            }
    }
}

/* The order in which 64 threads of 2 blocks come by. */
static __global__ void note_order(int *order, int *n)
{
    order[atomicAdd(n, 1)] = (int)(blockIdx.x * blockDim.x + threadIdx.x);
}

static void run_order(const char *name, int order[128])
{
    int n = 0;

    assert_int_equal(tr_shim_set_order(name), 0);
    TR_LAUNCH(note_order, 2, 64, 0, NULL, order, &n);
    assert_string_equal(launch_error, "");
    assert_int_equal(n, 128);
}

static void test_orders_differ(void **state)
{
    int up[128], down[128], random1[128], again[128], random2[128], seen[128] = {0};

    (void)state;
    run_order("ascending", up);
    run_order("descending", down);
    run_order("random:7", random1);
    run_order("random:7", again);
    run_order("random:8", random2);
    for (int i = 0; i < 128; i++) {
        assert_int_equal(up[i], i);
        assert_int_equal(down[i], 127 - i);
        seen[random1[i]]++;
    }
    for (int i = 0; i < 128; i++)
        assert_int_equal(seen[i], 1);
    assert_memory_equal(random1, again, sizeof again);
    assert_memory_not_equal(random1, random2, sizeof again);
    assert_memory_not_equal(random1, up, sizeof again);
    assert_true(tr_shim_set_order("round") < 0 && tr_shim_set_order("random:") < 0 &&
                tr_shim_set_order("random:7x") < 0 && tr_shim_set_order("") < 0);
}

/* Each kind of shuffle, of widths 32 and 8, as the PTX ISA defines its source lane. */
static __global__ void shuffle_all(int *out)
{
    int lane = (int)threadIdx.x, *o = out + 10 * lane;

    o[0] = __shfl_sync(0xffffffff, lane, lane + 5);
    o[1] = __shfl_sync(0xffffffff, lane, 3, 8);
    o[2] = __shfl_up_sync(0xffffffff, lane, 3);
    o[3] = __shfl_up_sync(0xffffffff, lane, 3, 8);
    o[4] = __shfl_down_sync(0xffffffff, lane, 3);
    o[5] = __shfl_down_sync(0xffffffff, lane, 3, 8);
    o[6] = __shfl_xor_sync(0xffffffff, lane, 12);
    o[7] = __shfl_xor_sync(0xffffffff, lane, 12, 8);
    o[8] = (int)__shfl_xor_sync(0xffffffff, (double)lane, 1);
    o[9] = (int)(__shfl_xor_sync(0xffffffff, (unsigned long long)lane << 40, 1) >> 40);
}

static void test_shuffles(void **state)
{
    int out[320];

    (void)state;
    EACH_ORDER(order)
    {
        TR_LAUNCH(shuffle_all, 1, 32, 0, NULL, out);
        assert_string_equal(launch_error, "");
        for (int lane = 0; lane < 32; lane++) {
            const int *o = out + 10 * lane;
            int first = lane & ~7;
            assert_int_equal(o[0], (lane + 5) % 32);
            assert_int_equal(o[1], first + 3);
            assert_int_equal(o[2], lane < 3 ? lane : lane - 3);
            assert_int_equal(o[3], lane - first < 3 ? lane : lane - 3);
            assert_int_equal(o[4], lane + 3 > 31 ? lane : lane + 3);
            assert_int_equal(o[5], lane + 3 > first + 7 ? lane : lane + 3);
            assert_int_equal(o[6], lane ^ 12);
            assert_int_equal(o[7], (lane ^ 12) > first + 7 ? lane : lane ^ 12);
            assert_int_equal(o[8], lane ^ 1);
            assert_int_equal(o[9], lane ^ 1);
        }
    }
}

/* Votes of whole and half warps, and the barriers that count; 80 threads: the last warp is half. */
static __global__ void vote_all(unsigned *out)
{
    unsigned t = threadIdx.x, half = t % 32 < 16 ? 0xffff : 0xffff0000, *o = out + 9 * t;

    if (t < 64) {
        o[0] = __ballot_sync(0xffffffff, t % 3 == 0);
        o[1] = (unsigned)__any_sync(0xffffffff, t == 40);
        o[2] = (unsigned)__all_sync(0xffffffff, t < 32);
    }
    o[3] = t % 32 < 16 ? __ballot_sync(0xffff, t % 2) : 0;
    o[4] = half == 0xffff0000 && t < 64 ? __ballot_sync(half, t % 2) : 0;
    o[5] = (unsigned)__syncthreads_count(t % 5 == 0);
    o[6] = (unsigned)__syncthreads_or(t == 79);
    o[7] = (unsigned)__syncthreads_and(t < 79);
    o[8] = (unsigned)__syncthreads_and(t < 80);
}

static void test_votes(void **state)
{
    unsigned out[80 * 9];

    (void)state;
    EACH_ORDER(order)
    {
        TR_LAUNCH(vote_all, 1, 80, 0, NULL, out);
        assert_string_equal(launch_error, "");
        for (unsigned t = 0; t < 80; t++) {
            const unsigned *o = out + 9 * t;
            if (t < 64) {
                assert_int_equal(o[0], t < 32 ? 0x49249249 : 0x92492492);
                assert_int_equal(o[1], t >= 32);
                assert_int_equal(o[2], t < 32);
            }
            assert_int_equal(o[3], t % 32 < 16 ? 0xaaaa : 0);
            assert_int_equal(o[4], t % 32 < 16 ? 0 : 0xaaaa0000);
            assert_true(o[5] == 16 && o[6] == 1 && o[7] == 0 && o[8] == 1);
        }
    }
}

static __global__ void add_atomically(int *i, unsigned *u, float *f, int *most)
{
    atomicAdd(i, -1);
    atomicAdd(u, 2u);
    atomicAdd(f, 0.5f);
    atomicMax(most, (int)(blockIdx.x * blockDim.x + threadIdx.x) % 777);
}

static void test_atomics(void **state)
{
    (void)state;
    EACH_ORDER(order)
    {
        int i = 0, most = -5;
        unsigned u = 0;
        float f = 0;
        TR_LAUNCH(add_atomically, 10, 100, 0, NULL, &i, &u, &f, &most);
        assert_string_equal(launch_error, "");
        assert_true(i == -1000 && u == 2000 && f == 500 && most == 776);
    }
}

/* The last block to come adds up what all have left: fences order it, as on a GPU. */
static __global__ void last_block(int *parts, int *came, int *sum)
{
    parts[blockIdx.x] = (int)blockIdx.x + 1;
    __threadfence();
    if (atomicAdd(came, 1) + 1 < (int)gridDim.x)
        return;
    __threadfence();
    for (unsigned i = 0; i < gridDim.x; i++)
        *sum += parts[i];
}

static void test_last_block(void **state)
{
    int parts[20];

    (void)state;
    EACH_ORDER(order)
    {
        int came = 0, sum = 0;
        TR_LAUNCH(last_block, 20, 1, 0, NULL, parts, &came, &sum);
        assert_string_equal(launch_error, "");
        assert_int_equal(sum, 210);
    }
}

static void *reduce_often(void *arg)
{
    enum { BLOCKS = 3, N = BLOCKS * REDUCE_THREADS };
    float *x = (float *)calloc(N + 2 * BLOCKS, sizeof *x), *out = x + N;
    long wrong = 0;

    (void)arg;
    for (int i = 0; i < N; i++)
        x[i] = test_value((uint32_t)i);
    for (int round = 0; round < (TR_SHIM_TSAN ? 2 : 20); round++) {
        memset(out, 0xff, 2 * BLOCKS * sizeof *out);
        TR_LAUNCH((sample_reduce<NONE>), BLOCKS, REDUCE_THREADS, 0, NULL, out, x);
        for (int b = 0; b < BLOCKS; b++)
            wrong += launch_error[0] || out[2 * b + 1] != out[2 * b] + REDUCE_THREADS;
    }
    free(x);
    return (void *)wrong;
}

/* Streams are threads: each runs grids of its own at the same time, and ends. */
static void test_streams(void **state)
{
    pthread_t threads[3];

    (void)state;
    assert_int_equal(tr_shim_set_order("ascending"), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reduce_often, NULL), 0);
    for (int i = 0; i < 3; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reduce),        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_scan),          cmocka_unit_test(test_swap),
        cmocka_unit_test(test_stream),        cmocka_unit_test(test_indices),
        cmocka_unit_test(test_orders_differ), cmocka_unit_test(test_shuffles),
        cmocka_unit_test(test_votes),         cmocka_unit_test(test_atomics),
        cmocka_unit_test(test_last_block),    cmocka_unit_test(test_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
