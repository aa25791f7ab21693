/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cuda/elementwise/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/run.h"
#include "src/base/err.h"
#include "tests/cuda/elementwise/bridge.h"

#define GUARD 64
#define BYTE  0xa5

struct buffer {
    struct buffer *next;
    unsigned char *memory;
    size_t head, bytes, room;
};

static struct buffer *buffers;
static struct tr_cpu_context cpu;
static uint64_t random_state, sum = 1;
static int shift;

void harness_shift(int elements)
{
    shift = elements;
}

uint32_t harness_random(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}

/* About normal, as sums of uniform numbers are. */
static float random_normal(void)
{
    int64_t x = 0;

    for (int i = 0; i < 8; i++)
        x += harness_random() >> 8;
    return (float)((double)x / (1 << 24) - 4) * 1.2247449f;
}

static void *allocate(size_t bytes, size_t size)
{
    struct buffer *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    b->bytes = bytes;
    b->head = GUARD + (size_t)shift * size;
    b->room = (b->head + bytes + 2 * GUARD - 1) / GUARD * GUARD;
    b->memory = aligned_alloc(GUARD, b->room);
    assert_non_null(b->memory);
    memset(b->memory, BYTE, b->room);
    b->next = buffers;
    buffers = b;
    return b->memory + b->head;
}

void *make_poison(enum tr_dtype dtype, size_t n)
{
    return allocate(n * tr_dtype_size(dtype), tr_dtype_size(dtype));
}

void *make(enum tr_dtype dtype, size_t n, float scale)
{
    void *p = make_poison(dtype, n);

    for (size_t i = 0; i < n; i++)
        tr_store_f32(p, dtype, i, random_normal() * scale);
    return p;
}

int32_t *make_ints(size_t n, int32_t low, int32_t end)
{
    int32_t *p = allocate(n * sizeof(int32_t), sizeof(int32_t));

    for (size_t i = 0; i < n; i++)
        p[i] = low + (int32_t)(harness_random() % (uint32_t)(end - low));
    return p;
}

void *make_copy(enum tr_dtype dtype, const void *p, size_t n)
{
    return memcpy(make_poison(dtype, n), p, n * tr_dtype_size(dtype));
}

float *make_wide(enum tr_dtype dtype, const void *p, size_t n)
{
    float *wide = make_poison(TR_F32, n);

    for (size_t i = 0; i < n; i++)
        wide[i] = tr_load_f32(p, dtype, i);
    return wide;
}

void run_cpu(const struct tr_op *op)
{
    if (tr_cpu_run(&cpu.cpu, op))
        fail_msg("op %d on cpu: %s", (int)op->kind, tr_error_message());
}

void run_cuda(const struct tr_op *op)
{
    if (bridge_run(op, TR_CUDA_SCRATCH_BYTES))
        fail_msg("op %d: %s", (int)op->kind, bridge_message());
}

static void add_to_sum(const void *p, size_t bytes)
{
    const unsigned char *b = p;

    for (size_t i = 0; i < bytes; i++)
        sum = (sum ^ b[i]) * 0x100000001b3u;
}

void expect_bits(const char *what, const void *got, const void *want, size_t bytes)
{
    const unsigned char *g = got, *w = want;

    add_to_sum(got, bytes);
    for (size_t i = 0; i < bytes; i++)
        if (g[i] != w[i])
            fail_msg("%s: byte %zu of %zu is %02x, not %02x", what, i, bytes, g[i], w[i]);
}

/* Half a unit in the last place, relative, and of the smallest numbers. */
static const double half_unit[TR_DTYPES] = {0, 0x1p-8, 0x1p-11};
static const double half_least[TR_DTYPES] = {0, 0x1p-134, 0x1p-25};

void expect_near(const char *what, struct nearness near, const void *got, const float *want,
                 size_t n)
{
    add_to_sum(got, n * tr_dtype_size(near.dtype));
    for (size_t i = 0; i < n; i++) {
        double g = tr_load_f32(got, near.dtype, i), w = want[i], rounded;
        double limit =
            (near.rel + half_unit[near.dtype]) * fabs(w) + near.abs + half_least[near.dtype];
        uint16_t h;

        if (isnan(w)   ? isnan(g)
            : isinf(w) ? g == w /* its limit is infinite, too */
                       : fabs(g - w) <= limit)
            continue;
        tr_store_f32(&h, near.dtype ? near.dtype : TR_BF16, 0, want[i]);
        rounded = tr_load_f32(&h, near.dtype ? near.dtype : TR_BF16, 0);
        if (isinf(rounded) && near.dtype && g == rounded)
            continue;
        fail_msg("%s: element %zu of %zu is %.9g, not %.9g", what, i, n, g, w);
    }
}

int harness_begin(void **state)
{
    static char *scratch;

    (void)state;
    if (!cpu.cpu.pool) {
        scratch = aligned_alloc(64, TR_CPU_SCRATCH_BYTES);
        if (!scratch || tr_cpu_context_open(&cpu, "c", 1))
            return -1;
        cpu.cpu.scratch = scratch;
    }
    random_state = 0x9e3779b97f4a7c15u;
    shift = 0;
    return 0;
}

int harness_end(void **state)
{
    int broken = 0;

    (void)state;
    for (struct buffer *b = buffers, *next; b; b = next) {
        next = b->next;
        for (size_t i = 0; i < b->room; i++)
            broken |= (i < b->head || i >= b->head + b->bytes) && b->memory[i] != BYTE;
        free(b->memory);
        free(b);
    }
    buffers = NULL;
    if (broken)
        print_error("a kernel wrote past the ends of a buffer\n");
    return broken ? -1 : 0;
}

uint64_t harness_sum(void)
{
    uint64_t was = sum;

    sum = 1;
    return was;
}
