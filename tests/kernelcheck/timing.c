/* SPDX-License-Identifier: Apache-2.0
 *
 * The loop behind CHECK_BENCH and its line.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/kernelcheck/state.h"

#define BENCH_SECONDS 0.3

struct check_bench check_bench_begin(struct check *c, double bytes, double flops)
{
    return (struct check_bench){.c = c, .bytes = bytes, .flops = flops, .runs = -1, .best = 1e9};
}

/* The time of this case in tier C, kept when this is tier C; 0 where it was not run. */
static double in_tier_c(struct check *c, double seconds)
{
    struct check_state *s = c->state;
    char name[200];

    snprintf(name, sizeof(name), "%s %s", c->op, s->case_name);
    if (c->tier == TR_TIER_C && s->n_results < CHECK_MAX_RESULTS) {
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

    printf("%-7s %-14s %-44s %9.1f us +- %2.0f %%", tr_cpu_tier_name(b->c->tier), b->c->op,
           s->case_name, b->best * 1e6, 100 * spread);
    if (b->bytes > 0)
        printf("  %6.1f GB/s %3.0f %%", b->bytes / b->best * 1e-9,
               100 * b->bytes / b->best / s->peaks.bytes);
    if (b->flops > 0)
        printf("  %6.1f GFLOP/s %3.0f %%", b->flops / b->best * 1e-9,
               100 * b->flops / b->best / s->peaks.flops);
    if (c_seconds > 0)
        printf("  x %.2f of c", c_seconds / b->best);
    printf("\n");
}

/* Run -1 warms up; then until the time is used, at least three. */
int check_bench_next(struct check_bench *b)
{
    double now = bench_now(), seconds = now - b->start;

    if (!b->c->state->options.bench)
        return 0;
    if (b->runs > 0) {
        b->total += seconds;
        b->sum2 += seconds * seconds;
        b->best = seconds < b->best ? seconds : b->best;
    }
    if (b->runs >= 3 && (b->total > BENCH_SECONDS || b->runs >= 10000)) {
        print_bench(b);
        return 0;
    }
    b->runs++;
    b->start = bench_now();
    return 1;
}
