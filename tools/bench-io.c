/* SPDX-License-Identifier: Apache-2.0
 *
 * bench-io: what the offload engine gets from a drive. Opens a run as train does and plays its
 * schedule on its store: all visits of a step, with their loads, write-backs and the commit, and
 * none of the arithmetic. tools/bench runs fio with the same phases, block size and depth on the
 * same folder beside it. What the steps write is what they have read.
 *
 * The first two steps are not told: they write both generations for the first time, and space that
 * was only allocated reads and writes differently.
 */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "offload/queue.h"
#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/options/options.h"
#include "src/run/run.h"

#define WARM_STEPS 2

struct options {
    struct tr_train_params train;
    int steps, unchecked;
};

/* A point in a step. */
struct point {
    double time, cpu; /* cpu: of all threads of the process, those of the kernel for it included */
    struct tr_offload_stats stats;
};

static void look(struct point *p, struct tr_offload *e)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    p->time = tr_now();
    p->cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
             1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    tr_offload_stats(e, &p->stats);
}

static void print_phase(const char *name, const struct point *a, const struct point *b)
{
    double reads = (double)(b->stats.read_bytes - a->stats.read_bytes) * 1e-9;
    double writes = (double)(b->stats.written_bytes - a->stats.written_bytes) * 1e-9;
    double time = b->time - a->time;

    printf("%-9s read %6.3f GB  write %6.3f GB  %6.3f s  core %5.2f %% per GB/s  %6.3f GB/s\n",
           name, reads, writes, time, 100 * (b->cpu - a->cpu) / (reads + writes),
           (reads + writes) / time);
}

/* at: the step's begin, the turn to the backward pass, the end of the last write. */
static int visit_all(struct tr_run *run, struct point at[3])
{
    const struct tr_visits *v;
    uint32_t n = run_visits(run, RUN_TRAIN, &v);
    int r = run_begin(run, RUN_TRAIN);

    run->step.begun = RUN_NOTHING; /* the next step begins another one */
    look(&at[0], run->offload);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        if (i == v->forward)
            look(&at[1], run->offload);
        r = run_visit(run, v, i, NULL, NULL);
    }
    if (r == 0)
        r = tr_offload_drain(run->offload);
    look(&at[2], run->offload);
    return r;
}

static int play_step(struct tr_run *run, int told)
{
    struct point at[3];
    int r = visit_all(run, at);

    if (r == 0)
        r = tr_offload_commit(run->offload, "", 0);
    if (r == 0)
        r = tr_offload_commit_wait(run->offload);
    if (r < 0 || !told)
        return r;
    print_phase("forward", &at[0], &at[1]);
    print_phase("backward", &at[1], &at[2]);
    printf("commit    %.3f s\n", tr_now() - at[2].time);
    return 0;
}

static int play(const struct options *o)
{
    tr_run *run;
    int r = tr_train_open(&run, &o->train);

    if (r < 0)
        return r;
    if (o->unchecked)
        tr_offload_uncheck(run->offload);
    printf("engine    %s, blocks of %u KiB, depth %u\n", tr_offload_io_name(run->offload),
           TR_IO_CHUNK >> 10, TR_IO_DEPTH);
    for (int i = 0; r == 0 && i < WARM_STEPS + o->steps; i++)
        r = play_step(run, i >= WARM_STEPS);
    tr_train_close(run);
    return r;
}

static void set_option(struct argp_state *state, struct options *o, char *arg)
{
    char *value = strchr(arg, '=');
    const struct tr_option *option;

    if (value)
        *value++ = 0;
    option = tr_option_find(tr_train_options, arg);
    if (!value || !option)
        argp_error(state, "%s: is no option of train with its value", arg);
    else if (tr_option_set(tr_train_options, option, &o->train, value) < 0)
        argp_error(state, "%s: %s", arg, tr_error_message());
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    if (key == 'n')
        o->steps = atoi(arg);
    else if (key == 'u')
        o->unchecked = 1;
    else if (key == ARGP_KEY_ARG)
        set_option(state, o, arg);
    else if (key == ARGP_KEY_NO_ARGS)
        argp_usage(state);
    else
        return ARGP_ERR_UNKNOWN;
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp_option table[] = {
        {"steps", 'n', "N", 0, "Steps to play (3)", 0},
        {"unchecked", 'u', NULL, 0, "No checksums: what they cost is the difference", 0},
        {0}};
    static const struct argp argp = {table,
                                     parse,
                                     "NAME=VALUE...",
                                     "Plays the disk traffic of training steps. Options of train, "
                                     "as model=DIR data=FILE out=DIR; the run in DIR is a new one, "
                                     "is of no use afterwards, and stays.",
                                     0,
                                     0,
                                     0};
    struct options o = {.steps = 3};
    int r;

    if (argp_parse(&argp, argc, argv, 0, NULL, &o))
        return 2;
    r = play(&o);
    if (r < 0)
        fprintf(stderr, "bench-io: %s\n", tr_error_message());
    tr_options_free(&o.train);
    return r < 0;
}
