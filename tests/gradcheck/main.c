/* SPDX-License-Identifier: Apache-2.0
 *
 * gradcheck [--device=cpu|cuda[:N]] [SEED]. Without --device the cpu device's functions, best tier,
 * two threads. Exit status 0: all gradients agree and all mutants were caught; 77: there is no such
 * device.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/run.h"
#include "src/base/err.h"
#include "src/base/philox.h"
#include "tests/gradcheck/grad.h"
#include "tests/kernelcheck/fields.h"
#include "tests/kernelcheck/mirror.h"

#define SAMPLES 24
#define STEP    0x1p-5

static uint32_t seed = 1;
static uint64_t drawn;
static int failed, passed;

uint32_t grad_random(void)
{
    uint64_t i = drawn++;
    struct tr_philox c = {{(uint32_t)(i / 4), (uint32_t)(i / 4 >> 32), 0, 0}};

    return tr_philox4x32(c, seed, 0).v[i % 4];
}

static double normal(void)
{
    double u = (grad_random() + 0.5) * 0x1p-32, v = grad_random() * 0x1p-32;

    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Arrays are small and live to the end: chained, so that leak checkers stay quiet. */
static struct mirror_buffer *arrays;

static void out_of_memory(void)
{
    fprintf(stderr, "gradcheck: out of memory\n");
    exit(1);
}

float *grad_zeros(int64_t n)
{
    struct mirror_buffer *b = calloc(1, sizeof(*b));
    size_t bytes = (size_t)n * sizeof(float);

    if (!b || !(b->data = calloc(1, bytes)))
        out_of_memory();
    b->block = b->data;
    b->bytes = b->block_bytes = bytes;
    b->next = arrays;
    arrays = b;
    return (float *)b->data;
}

int32_t *grad_ints(const int32_t *values, int64_t n)
{
    return memcpy(grad_zeros(n), values, (size_t)n * sizeof(*values));
}

static void free_arrays(void)
{
    while (arrays) {
        struct mirror_buffer *next = arrays->next;

        free(arrays->data);
        free(arrays);
        arrays = next;
    }
}

float *grad_values(int64_t n)
{
    float *p = grad_zeros(n);

    for (int64_t i = 0; i < n; i++)
        p[i] = (float)normal();
    return p;
}

double grad_dot(const float *a, const float *b, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* ---- what runs the ops ---- */

static struct tr_cpu_context context;
static struct mirror mirror;

static void must(int error)
{
    if (!error)
        return;
    printf("FAIL: an op returned %d: %s\n", error, tr_error_message());
    exit(1);
}

void grad_run(enum tr_op_kind kind, const void *op)
{
    struct tr_op whole = {.kind = kind};

    memcpy(&whole.embed, op, field_list(kind)->bytes);
    must(mirror.device ? mirror_run(&mirror, arrays, &whole) : tr_cpu_run(&context.cpu, &whole));
}

static int open_tested(const char *device)
{
    if (device)
        return mirror_open(&mirror, &(struct mirror_params){device, NULL, 16 << 20});
    context.cpu.scratch = aligned_alloc(4096, 2 * (size_t)TR_CPU_SCRATCH_BYTES);
    return tr_cpu_context_open(&context, NULL, 2);
}

static void close_tested(void)
{
    mirror_close(&mirror);
    tr_cpu_context_close(&context);
    free(context.cpu.scratch);
}

/* ---- finite differences ---- */

/* The slope along direction (of array a), by steps h and h / 2. The moved values are f32, so the
 * step really taken is measured. */
static double slope(const struct grad_case *c, const struct grad_array *a, const float *direction)
{
    float *kept = grad_zeros(a->n);
    double d[2];

    memcpy(kept, a->value, (size_t)a->n * sizeof(float));
    for (int k = 0; k < 2; k++) {
        double h = STEP / (k + 1), loss[2];

        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < a->n; i++)
                a->value[i] = (float)(kept[i] + (side ? -h : h) * direction[i]);
            loss[side] = c->loss(c->arg);
        }
        d[k] = (loss[0] - loss[1]) / (2 * h);
    }
    memcpy(a->value, kept, (size_t)a->n * sizeof(float));
    return (4 * d[1] - d[0]) / 3;
}

struct probes {
    float *direction[SAMPLES + 1]; /* single elements, then all at once */
    double want[SAMPLES + 1];
    double scale; /* typical size of a slope */
};

static void probe(const struct grad_case *c, const struct grad_array *a, struct probes *p)
{
    double sum = 0;

    for (int s = 0; s <= SAMPLES; s++) {
        p->direction[s] = s < SAMPLES ? grad_zeros(a->n) : grad_values(a->n);
        if (s < SAMPLES)
            p->direction[s][(int64_t)(grad_random() % (uint64_t)a->n)] = 1;
        else
            for (int64_t i = 0; i < a->n; i++)
                p->direction[s][i] /= sqrtf((float)a->n);
        p->want[s] = slope(c, a, p->direction[s]);
        sum += p->want[s] * p->want[s];
    }
    p->scale = sqrt(sum / (SAMPLES + 1));
}

/* The largest disagreement, relative to the typical slope. */
static double distance(const struct grad_array *a, const struct probes *p, const float *gradient)
{
    double worst = 0;

    for (int s = 0; s <= SAMPLES; s++) {
        double off = fabs(grad_dot(gradient, p->direction[s], a->n) - p->want[s]);

        if (!isnan(worst) && !(off <= worst))
            worst = off;
    }
    return worst / p->scale;
}

/* The gradient 5 % too large must be seen, and that of the other sign. */
static int catches_mutants(const struct grad_array *a, const struct probes *p, double limit)
{
    float *wrong = grad_zeros(a->n);
    double all;

    for (int64_t i = 0; i < a->n; i++)
        wrong[i] = a->gradient[i] * 1.05f;
    all = distance(a, p, wrong);
    for (int64_t i = 0; i < a->n; i++)
        wrong[i] = -a->gradient[i];
    if (!(distance(a, p, wrong) > limit))
        all = 0;
    return all > limit;
}

void grad_judge(const struct grad_case *c)
{
    const double limit = 3e-3;

    for (const struct grad_array *a = c->arrays; a->name; a++) {
        struct probes p;
        double off;
        int caught;

        probe(c, a, &p);
        off = distance(a, &p, a->gradient);
        caught = catches_mutants(a, &p, limit);
        printf("%-34s %-10s off by %.1e%s%s\n", c->name, a->name, off, off <= limit ? "" : "  FAIL",
               caught ? "" : "  FAIL: a wrong gradient passes");
        if (off <= limit && caught)
            passed++;
        else
            failed++;
    }
}

int main(int argc, char **argv)
{
    const char *device = NULL;
    int error;

    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "--device=", 9))
            device = argv[i] + 9;
        else
            seed = (uint32_t)strtoul(argv[i], NULL, 0);
    error = open_tested(device);
    if (error) {
        fprintf(stderr, "gradcheck: %s\n", tr_error_message());
        return error == -ENODEV ? 77 : 1;
    }
    printf("seed %u, %s\n", seed, device ? mirror.info.name : tr_cpu_tier_name(context.tier));
    grad_embed();
    grad_matmul();
    grad_bias();
    grad_rmsnorm();
    grad_rope();
    grad_attention();
    grad_swiglu();
    grad_xent();
    free_arrays();
    close_tested();
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
