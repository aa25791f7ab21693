/* SPDX-License-Identifier: Apache-2.0
 *
 * kernelcheck [--op=NAME] [--tier=c|avx2|avx512] [--device=cpu|cuda[:N] [--large]] [--seed=N|clock]
 *             [--list] [--bench]
 * Without --device the functions of the cpu device are checked tier by tier, with it the ops of
 * that device, through its table. Inputs are drawn from seed 1, so that a failure comes again;
 * another seed, or the clock's, draws others. Exit status 0: all passed; 1: something differed;
 * 2: wrong usage; 77: there is no such device, or the CPU lacks the tier.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "src/base/err.h"
#include "tests/kernelcheck/bench.h"
#include "tests/kernelcheck/check.h"
#include "tests/tiers.h"

static const struct {
    const char *name;
    void (*fn)(struct check *c);
} ops[] = {
#define ENTRY(op) {#op, check_##op},
    CHECK_OPS(ENTRY)
#undef ENTRY
        {"harness", check_harness}, /* last: it plants what the others have run */
};

#define N_OPS (sizeof(ops) / sizeof(ops[0]))

static int known(const char *op)
{
    for (size_t i = 0; i < N_OPS; i++)
        if (!strcmp(ops[i].name, op))
            return 1;
    return 0;
}

static int usage(const char *why)
{
    fprintf(stderr,
            "kernelcheck: %s\nusage: kernelcheck [--op=NAME] [--tier=c|avx2|avx512]"
            " [--device=cpu|cuda[:N] [--large]] [--seed=N|clock] [--list] [--bench]\n",
            why);
    return 2;
}

static int list(void)
{
    for (size_t i = 0; i < N_OPS; i++)
        puts(ops[i].name);
    return 0;
}

static int read_tier(const char *name, int *out)
{
    enum tr_cpu_tier tier;
    int r = tr_cpu_tier_parse(name, &tier);

    if (r == -ENOTSUP) {
        printf("skipped: %s\n", tr_error_message());
        return 77;
    }
    if (r < 0)
        return usage(tr_error_message());
    *out = (int)tier;
    return 0;
}

/* 0 to go on, else the exit status + 1. */
static int parse(int argc, char **argv, struct check_options *o)
{
    static const struct option known_options[] = {
        {"op", required_argument, NULL, 'o'},
        {"tier", required_argument, NULL, 't'},
        {"device", required_argument, NULL, 'd'},
        {"large", no_argument, NULL, 'L'},
        {"seed", required_argument, NULL, 's'},
        {"list", no_argument, NULL, 'l'},
        {"bench", no_argument, NULL, 'b'},
        {"peak", no_argument, NULL, 'p'},
        {NULL, 0, NULL, 0},
    };
    int key, stop;

    while ((key = getopt_long(argc, argv, "", known_options, NULL)) != -1) {
        if (key == 'l')
            return list() + 1;
        if (key == 't' && (stop = read_tier(optarg, &o->tier)))
            return stop + 1;
        if (key == 'o' && !known(optarg))
            return usage("no such op (see --list)") + 1;
        if (key == '?')
            return usage("unknown option") + 1;
        if (key == 'o')
            o->op = optarg;
        else if (key == 'd')
            o->device = optarg;
        else if (key == 'L')
            o->large = 1;
        else if (key == 's')
            o->seed = strcmp(optarg, "clock") ? strtoull(optarg, NULL, 0) : (uint64_t)time(NULL);
        else if (key == 'b')
            o->bench = 1;
        else if (key == 'p')
            o->peak = 1;
    }
    return 0;
}

static void run_all(struct check *c, const struct check_options *o)
{
    enum tr_cpu_tier best = tr_cpu_tier_best();

    for (size_t i = 0; i < N_OPS; i++) {
        if (o->op && strcmp(o->op, ops[i].name))
            continue;
        for (enum tr_cpu_tier t = o->device ? best : TR_TIER_C; t <= best; t++)
            if (o->device || o->tier < 0 || o->tier == (int)t)
                check_run_op(c, ops[i].name, ops[i].fn, t);
    }
}

int main(int argc, char **argv)
{
    struct check_options o = {.tier = -1, .seed = 1, .program = argv[0]};
    struct check *c;
    int stop = parse(argc, argv, &o), error;

    if (stop)
        return stop - 1;
    error = check_open(&c, &o);
    if (error) {
        fprintf(stderr, "kernelcheck: %s\n", tr_error_message());
        check_close_all(c);
        return error == -ENODEV ? 77 : 1;
    }
    if (o.peak) {
        printf("%.0f\n", bench_gemm(check_cpu(c, 2)));
        check_close_all(c);
        return 0;
    }
    run_all(c, &o);
    if (!o.device && o.tier < 0)
        say_missing_tiers();
    return check_close_all(c) ? 1 : 0;
}
