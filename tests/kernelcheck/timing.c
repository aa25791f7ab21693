/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop behind CHECK_BENCH and its line.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/kernelcheck/state.h"

#define BENCH_SECONDS 0.3

/* A device answers only at a sync: its runs are timed in batches of this many seconds. */
#define BATCH_SECONDS 0.005
#define MAX_BATCH     200

struct check_bench check_bench_begin(struct check *c, double bytes, double flops)
{
    if (check_bench_on(c) && c->device) {
        c->device->shift = 0;
        check_ok(c, mirror_fill(c->device, &c->state->buffers->memory));
        c->device->resident = 1;
    }
    return (struct check_bench){
        .c = c, .bytes = bytes, .flops = flops, .runs = -1, .best = 1e9, .batch = 1};
}

/* The time of this case in tier C, kept when this is tier C; 0 where it was not run. */
static double in_tier_c(struct check *c, double seconds)
{
    struct check_state *s = c->state;
    char name[200];

    snprintf(name, sizeof(name), "%s %s", c->op, s->case_name);
    if (!c->device && c->tier == TR_TIER_C && s->n_results < CHECK_MAX_RESULTS) {
        snprintf(s->results[s->n_results].name, sizeof(name), "%s", name);
        s->results[s->n_results++].seconds = seconds;
    }
    for (int i = 0; i < s->n_results; i++)
        if (!strcmp(s->results[i].name, name))
            return s->results[i].seconds;
    return 0;
}

static void print_bench(const struct check_bench *b)
{
    struct check_state *s = b->c->state;
    double mean = b->total / b->runs, c_seconds = in_tier_c(b->c, b->best);
    double spread = sqrt(fmax(b->sum2 / b->runs - mean * mean, 0)) / mean;

    printf("%-7s %-14s %-44s %9.1f us +- %2.0f %%", check_where(b->c), b->c->op, s->case_name,
           b->best * 1e6, 100 * spread);
    if (b->bytes > 0)
        printf("  %6.1f GB/s %3.0f %%", b->bytes / b->best * 1e-9,
               100 * b->bytes / b->best / s->peaks.bytes);
    if (b->flops > 0)
        printf("  %6.1f GFLOP/s %3.0f %%", b->flops / b->best * 1e-9,
               100 * b->flops / b->best / s->peaks.flops[b->c->compute]);
    if (c_seconds > 0)
        printf("  x %.2f of c", c_seconds / b->best);
    printf("\n");
}

static void end_bench(struct check_bench *b)
{
    print_bench(b);
    if (b->c->device)
        b->c->device->resident = 0;
}

/* Run -1 warms up, run 0 sets the batch; then until the time is used, at least three. */
int check_bench_next(struct check_bench *b)
{
    struct mirror *m = b->c->device;
    double seconds;

    if (!check_bench_on(b->c))
        return 0;
    if (b->left > 0) {
        b->left--;
        return 1;
    }
    if (m)
        check_ok(b->c, m->device->ops->sync(m->device, TR_STREAM_COMPUTE));
    seconds = (bench_now() - b->start) / b->batch;
    if (b->runs > 0) {
        b->total += seconds;
        b->sum2 += seconds * seconds;
        b->best = seconds < b->best ? seconds : b->best;
    }
    if (b->runs >= 3 && (b->total * b->batch > BENCH_SECONDS || b->runs >= 10000)) {
        end_bench(b);
        return 0;
    }
    if (m && b->runs == 0)
        b->batch = (int)fmin(fmax(BATCH_SECONDS / seconds, 1), MAX_BATCH);
    b->runs++;
    b->left = b->batch - 1;
    b->start = bench_now();
    return 1;
}
