/* SPDX-License-Identifier: Apache-2.0
 *
 * Cases, inputs and buffers of the kernel checker. One thread: only the ops under test use the
 * pools.
 */
#include "tests/kernelcheck/check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/blas.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "tests/kernelcheck/state.h"

#define GUARD_BYTES 256 /* the data stay aligned as a device's plan aligns buffers */
#define GUARD_BYTE  0xa5
#define POISON_BYTE 0xff /* a NaN in every dtype */
#define SMALL_ARENA ((uint64_t)96 << 20)
#define LARGE_ARENA ((uint64_t)512 << 20)
#define BENCH_ARENA ((uint64_t)8 << 30)

/* ---- the generator ---- */

static uint64_t hash_text(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

/* Inputs depend on seed, op and case alone, so that all tiers see the same. */
static void seed_case(struct check *c)
{
    struct check_state *s = c->state;
    uint64_t h = hash_text(hash_text(0xcbf29ce484222325u, c->op), s->case_name);

    s->key = (struct tr_philox){{(uint32_t)h, (uint32_t)(h >> 32)}};
    s->drawn = 0;
}

uint32_t check_random(struct check *c)
{
    struct check_state *s = c->state;
    uint64_t i = s->drawn++, block = i / 4;

    if (i % 4 == 0) {
        struct tr_philox counter = s->key;

        counter.v[2] = (uint32_t)block;
        counter.v[3] = (uint32_t)(block >> 32);
        s->words =
            tr_philox4x32(counter, (uint32_t)s->options.seed, (uint32_t)(s->options.seed >> 32));
    }
    return s->words.v[i % 4];
}

int64_t check_random_below(struct check *c, int64_t n)
{
    return (int64_t)((uint64_t)check_random(c) * (uint64_t)n >> 32);
}

double check_random_unit(struct check *c)
{
    return check_random(c) * 0x1p-32;
}

static double normal(struct check *c)
{
    double u = (check_random(c) + 0.5) * 0x1p-32, v = check_random_unit(c);

    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static float pathological(struct check *c, int special)
{
    static const float values[] = {0.0f,       -0.0f,     1.0f,     -1.0f,    0x1p-149f,
                                   -0x1p-140f, 0x1p-126f, 0x1p-24f, 65504.0f, 65519.9f,
                                   -65520.0f,  0x1.01p0f, 1e-8f,    1e4f,     0x1.ff8p4f,
                                   -0x1.03p0f, 3.0e38f,   -1e-30f,  0x1p-14f, 0x1.002p0f};
    static const float specials[] = {INFINITY, -INFINITY, NAN, -NAN};
    uint32_t r = check_random(c);

    if (special && r % 8 == 0)
        return specials[r / 8 % 4];
    if (r % 4 == 1)
        return (float)normal(c);
    return values[r / 8 % (sizeof(values) / sizeof(values[0]))];
}

static float draw(struct check *c, enum check_values values)
{
    if (values == CHECK_NORMAL)
        return (float)normal(c);
    if (values == CHECK_UNIFORM)
        return (float)(2 * check_random_unit(c) - 1);
    return pathological(c, values == CHECK_SPECIAL);
}

/* ---- buffers ---- */

static char *new_buffer(struct check *c, size_t bytes)
{
    struct check_state *s = c->state;
    struct check_buffer *b = calloc(1, sizeof(*b));
    size_t all = tr_round_up(bytes, 256) + 2 * GUARD_BYTES;
    char *block = aligned_alloc(256, all);

    if (!b || !block) {
        fprintf(stderr, "kernelcheck: out of memory\n");
        exit(1);
    }
    memset(block, GUARD_BYTE, all);
    b->memory = (struct mirror_buffer){.next = s->buffers ? &s->buffers->memory : NULL,
                                       .block = block,
                                       .data = block + GUARD_BYTES,
                                       .bytes = bytes,
                                       .block_bytes = all};
    s->buffers = b;
    return b->memory.data;
}

void *check_bytes(struct check *c, size_t bytes)
{
    return memset(new_buffer(c, bytes), POISON_BYTE, bytes);
}

void *check_scratch(struct check *c, size_t bytes)
{
    return memset(new_buffer(c, bytes), 0, bytes);
}

void *check_output(struct check *c, enum tr_dtype dtype, size_t n)
{
    return check_bytes(c, n * tr_dtype_size(dtype));
}

void *check_inout(struct check *c, enum tr_dtype dtype, size_t n, enum check_values values)
{
    void *data = check_bytes(c, n * tr_dtype_size(dtype));

    for (size_t i = 0; i < n; i++)
        tr_store_f32(data, dtype, i, draw(c, values));
    return data;
}

const void *check_input(struct check *c, enum tr_dtype dtype, size_t n, enum check_values values)
{
    void *data = check_inout(c, dtype, n, values);

    check_freeze(c);
    return data;
}

void check_freeze(struct check *c)
{
    struct check_buffer *b = c->state->buffers;

    b->kept = malloc(b->memory.bytes + 1);
    if (b->kept)
        memcpy(b->kept, b->memory.data, b->memory.bytes);
}

static void judge_buffer(struct check *c, const struct check_buffer *b)
{
    size_t bytes = b->memory.bytes, after = b->memory.block_bytes - GUARD_BYTES - bytes;
    const unsigned char *p = (const unsigned char *)b->memory.data;

    for (size_t i = 1; i <= GUARD_BYTES; i++)
        if (p[-(ptrdiff_t)i] != GUARD_BYTE) {
            check_fail(c, "wrote %zu bytes before a buffer of %zu bytes", i, bytes);
            break;
        }
    for (size_t i = 0; i < after; i++)
        if (p[bytes + i] != GUARD_BYTE) {
            check_fail(c, "wrote %zu bytes past a buffer of %zu bytes", i, bytes);
            break;
        }
    if (b->kept && memcmp(b->kept, p, bytes))
        check_fail(c, "changed an input of %zu bytes", bytes);
}

/* ---- cases ---- */

static void end_case(struct check *c)
{
    struct check_state *s = c->state;

    while (s->buffers) {
        struct check_buffer *b = s->buffers;

        judge_buffer(c, b);
        s->buffers = check_next(b);
        free(b->kept);
        free(b->memory.block);
        free(b);
    }
    c->variant = 0;
    if (s->planted) {
        s->found |= s->case_failed;
        return;
    }
    if (s->mutant && !s->case_failed)
        printf("FAIL %s: a result that %s was not found out\n", c->op, s->case_name);
    if (s->case_failed != s->mutant)
        s->failed++;
    else
        s->passed++;
}

/* Whether a case is worth a look for a fault in that dtype: 16-bit ones are in the case's name. */
static int says(const char *name, enum tr_dtype dtype)
{
    const char *word = tr_dtype_name(dtype), *at = dtype == TR_F32 ? name : strstr(name, word);

    while (at && at > name && at[-1] == 'b') /* the f16 in bf16 */
        at = strstr(at + 1, word);
    return at != NULL;
}

int check_case(struct check *c, const char *fmt, ...)
{
    struct check_state *s = c->state;
    va_list ap;

    if (s->in_case) {
        end_case(c);
        s->in_case = 0;
        return 0;
    }
    if (s->planted && s->found)
        return 0;
    va_start(ap, fmt);
    vsnprintf(s->case_name, sizeof(s->case_name), fmt, ap);
    va_end(ap);
    if (s->planted && !says(s->case_name, s->mirror.fault.dtype))
        return 0;
    s->in_case = 1;
    s->case_failed = 0;
    seed_case(c);
    return 1;
}

/* ---- the whole ---- */

int check_bench_on(const struct check *c)
{
    return c->state->options.bench;
}

static int open_cpus(struct check_state *s)
{
    const struct tr_blas *blas;
    char *scratch = aligned_alloc(4096, CHECK_MAX_THREADS * (size_t)TR_CPU_SCRATCH_BYTES);
    int error = tr_blas_open(&blas);

    if (!scratch && !error)
        error = tr_error(-ENOMEM, "out of memory");
    for (int threads = 1; threads <= CHECK_MAX_THREADS && !error; threads++) {
        s->cpus[threads] =
            (struct tr_cpu){.kernels = &s->kernels, .blas = blas, .scratch = scratch};
        error = tr_pool_open(&s->cpus[threads].pool, threads);
    }
    return error;
}

/* The device under test, with room for the buffers of the largest case. */
static int open_mirror(struct check *c)
{
    struct check_state *s = c->state;
    const struct check_options *o = &s->options;
    struct mirror_params p = {.device = o->device};
    int error;

    p.tier = o->tier < 0 ? NULL : tr_cpu_tier_name((enum tr_cpu_tier)o->tier);
    p.bytes = o->bench ? BENCH_ARENA : o->large ? LARGE_ARENA : SMALL_ARENA;
    s->mirror.all = !o->bench; /* the shapes worth timing are gigabytes in all */
    error = mirror_open(&s->mirror, &p);
    if (error)
        return error;
    c->device = &s->mirror;
    tr_cpu_kernels_init(&s->kernels, tr_cpu_tier_best());
    return 0;
}

int check_open(struct check **out, const struct check_options *options)
{
    struct check *c = calloc(1, sizeof(*c));
    struct check_state *s = calloc(1, sizeof(*s));
    int error;

    if (!c || !s)
        exit(1);
    *out = c;
    c->state = s;
    s->options = *options;
    error = open_cpus(s);
    c->cpu = &s->cpus[2];
    if (!error && options->device)
        error = open_mirror(c);
    if (error || options->peak)
        return error;
    printf("seed %llu, %s\n", (unsigned long long)options->seed,
           c->device ? c->device->info.name : tr_blas_bits(c->cpu->blas));
    if (options->bench && c->device)
        error = bench_measure_device(&s->peaks, c->device);
    else if (options->bench)
        bench_measure(&s->peaks, c->cpu, options->program);
    return error;
}

void check_run_op(struct check *c, const char *op, void (*fn)(struct check *c),
                  enum tr_cpu_tier tier)
{
    struct check_state *s = c->state;
    int passed = s->passed, failed = s->failed;

    c->op = op;
    c->tier = tier;
    c->compute = TR_F32;
    tr_cpu_kernels_init(&s->kernels, tier);
    fn(c);
    if (!s->options.bench)
        printf("%-14s %-7s %d passed, %d failed\n", op, check_where(c), s->passed - passed,
               s->failed - failed);
    fflush(stdout);
}

int check_finds_fault(struct check *c, const char *op, void (*fn)(struct check *c))
{
    struct check_state *s = c->state;
    const char *kept = c->op;

    c->op = op;
    s->planted = 1;
    s->found = 0;
    fn(c);
    s->planted = 0;
    c->op = kept;
    return s->found;
}

int check_close_all(struct check *c)
{
    struct check_state *s = c->state;
    int failed = s->failed;

    if (s->passed + failed)
        printf("%d passed, %d failed\n", s->passed, s->failed);
    mirror_close(&s->mirror);
    for (int threads = 1; threads <= CHECK_MAX_THREADS; threads++)
        tr_pool_close(s->cpus[threads].pool);
    free(s->cpus[1].scratch);
    free(s);
    free(c);
    return failed;
}
