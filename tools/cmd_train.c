/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace train: opens a run, steps it to its end, and says what it is doing. With --json stdout
 * carries one object a step, one at the end and nothing else; what is meant for people goes to
 * stderr then. Where that last one is missing the command has failed, or was killed.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "tools/cli.h"
#include "tools/progress.h"

struct train {
    struct tr_train_params params; /* first: tr_train_options has its offsets in it */
    const char *config, *resume;
    int json;
    struct progress progress;
    struct tr_step_report last;
    double first_loss;
    double seconds;
    uint64_t spilled_bytes;
    int64_t steps, skipped; /* of this process */
};

#define AT(member) offsetof(struct train, member)

static const struct tr_option own_options[] = {
    {"config", "FILE", TR_OPTION_PATH, 0, AT(config), NULL,
     "options from a YAML file such as a run's run.yaml; those given here come first",
     .section = "This command:", .rival = "resume"},
    {"resume", "RUN", TR_OPTION_PATH, 0, AT(resume), NULL,
     "continue this run with the options of its run.yaml", .rival = "config"},
    {"force", NULL, TR_OPTION_SWITCH, 0, AT(params.force), NULL,
     "continue a run although settings or data that decide its bits have changed"},
    {"json", NULL, TR_OPTION_SWITCH, 0, AT(json), NULL,
     "one JSON object a step on stdout, and at the end one whose \"ended\" is \"done\" or "
     "\"interrupted\""},
    {NULL},
};

/* Everything from run.yaml but where it lies. */
static int read_run_file(struct train *train)
{
    char *path = NULL;
    int rc;

    if (asprintf(&path, "%s/run.yaml", train->resume) < 0)
        return -ENOMEM;
    rc = (train->params.force ? tr_options_read : tr_run_file_read)(path, &train->params);
    free(path);
    /* The folder may have been moved since run.yaml was written. */
    if (rc == 0)
        rc = tr_option_set(tr_train_options, tr_option_find(tr_train_options, "out"),
                           &train->params, train->resume);
    return rc;
}

static int prepare(void *arg)
{
    struct train *train = arg;

    if (train->resume)
        return read_run_file(train);
    return train->config ? tr_options_read(train->config, &train->params) : 0;
}

static void print_notice(void *arg, const char *line)
{
    progress_say(arg, line);
}

static int on_import(void *arg, uint64_t done, uint64_t total)
{
    struct train *train = arg;

    progress_import(&train->progress, done, total);
    return cli_interrupted();
}

static int is_stopped(void *arg)
{
    (void)arg;
    return cli_interrupted();
}

static void print_memory(const struct train *train, const tr_run *run)
{
    int n = tr_train_memory(run, NULL, 0);
    struct tr_memory_row *rows = n > 0 ? calloc((size_t)n, sizeof(*rows)) : NULL;
    char size[32];

    if (!rows)
        return;
    tr_train_memory(run, rows, n);
    fputs("memory\n", train->progress.out);
    for (int i = 0; i < n; i++)
        fprintf(train->progress.out, "  %-48s %12s\n", rows[i].kind, cli_size(size, rows[i].bytes));
    free(rows);
}

static void print_start(const struct train *train, const tr_run *run)
{
    const char *summary = tr_train_summary(run);

    if (summary)
        fputs(summary, train->progress.out);
    print_memory(train, run);
    fflush(train->progress.out);
}

static void print_json(const struct tr_step_report *r)
{
    const struct {
        const char *key;
        double value;
    } reals[] = {{"loss", r->loss},
                 {"lr", r->lr},
                 {"grad_norm", r->grad_norm},
                 {"seconds", r->seconds},
                 {"tokens_per_s", r->tokens_per_s},
                 {"wait_load_s", r->wait_load_s},
                 {"wait_commit_s", r->wait_commit_s},
                 {"eval_loss", r->eval_loss},
                 {"eval_accuracy", r->eval_accuracy}};

    printf("{\"step\": %lld, \"steps\": %lld, ", (long long)r->step, (long long)r->steps);
    for (size_t i = 0; i < sizeof(reals) / sizeof(*reals); i++) {
        cli_json_real(stdout, reals[i].key, reals[i].value);
        fputs(", ", stdout);
    }
    printf("\"tokens\": %lld, \"targets\": %lld, \"skipped\": %s, \"read_bytes\": %llu, "
           "\"written_bytes\": %llu, \"spilled_bytes\": %llu, \"device_peak_bytes\": %llu, "
           "\"host_peak_bytes\": %llu}\n",
           (long long)r->tokens, (long long)r->targets, r->skipped ? "true" : "false",
           (unsigned long long)r->read_bytes, (unsigned long long)r->written_bytes,
           (unsigned long long)r->spilled_bytes, (unsigned long long)r->device_peak_bytes,
           (unsigned long long)r->host_peak_bytes);
    fflush(stdout);
}

/* With --json the numbers go to stdout, and a person at a terminal still sees a moving line. */
static void take_report(struct train *train, const struct tr_step_report *report)
{
    if (train->steps++ == 0)
        train->first_loss = report->loss;
    train->skipped += report->skipped;
    train->last = *report;
    train->seconds += report->seconds;
    train->spilled_bytes += report->spilled_bytes;
    if (train->json)
        print_json(report);
    if (!train->json || train->progress.live)
        progress_step(&train->progress, report);
}

static void print_peak(FILE *f, const char *name, uint64_t peak, uint64_t budget)
{
    char text[32];

    fprintf(f, "%-9s %s peak", name, cli_size(text, peak));
    if (budget && !(budget & TR_SHARE(0)))
        fprintf(f, " of a budget of %s", cli_size(text, budget));
    fputc('\n', f);
}

static void print_end(const struct train *train, const tr_run *run)
{
    const struct tr_step_report *last = &train->last;
    FILE *f = train->progress.out;
    uint64_t read, written;
    char text[32];

    if (!train->steps) {
        fputs("nothing left to do: every step of this run is done\n", f);
        return;
    }
    fprintf(f, "%lld steps in %s", (long long)train->steps, cli_time(text, train->seconds));
    fprintf(f, ", loss %.4f -> %.4f\n", train->first_loss, last->loss);
    if (train->skipped)
        fprintf(f, "skipped   %lld steps: loss or gradient was not finite, nothing was updated\n",
                (long long)train->skipped);
    tr_train_moved(run, &read, &written);
    fprintf(f, "disk      %s read", cli_size(text, read));
    fprintf(f, ", %s written\n", cli_size(text, written));
    if (train->spilled_bytes)
        fprintf(f, "spill     %s of activations left the device\n",
                cli_size(text, train->spilled_bytes));
    print_peak(f, "device", last->device_peak_bytes, train->params.device_memory);
    print_peak(f, "host", last->host_peak_bytes, train->params.host_memory);
    fputs(tr_train_outcome(run), f);
}

/* Of this process, as what it says to people. */
static void print_json_end(const struct train *train, const tr_run *run, int code)
{
    uint64_t read = 0, written = 0;

    if (!train->json)
        return;
    if (run)
        tr_train_moved(run, &read, &written);
    printf("{\"ended\": \"%s\", ", code == CLI_DONE ? "done" : "interrupted");
    if (train->steps)
        printf("\"step\": %lld, \"steps\": %lld, ", (long long)train->last.step,
               (long long)train->last.steps);
    printf("\"done_steps\": %lld, \"skipped_steps\": %lld, ", (long long)train->steps,
           (long long)train->skipped);
    cli_json_real(stdout, "seconds", train->seconds);
    printf(", \"read_bytes\": %llu, \"written_bytes\": %llu, \"spilled_bytes\": %llu}\n",
           (unsigned long long)read, (unsigned long long)written,
           (unsigned long long)train->spilled_bytes);
    fflush(stdout);
}

/* A signal that came during the last step has interrupted nothing. */
static int is_interrupted(const struct train *train)
{
    return cli_interrupted() && (train->steps == 0 || train->last.step < train->last.steps);
}

/* What stands before this process's first step is not its to say. */
static void say_interrupted(const struct train *train)
{
    if (train->steps)
        cli_error("interrupted; the same command continues after step %lld",
                  (long long)train->last.step);
    else
        cli_error("interrupted; the same command continues");
}

static int run_steps(struct train *train, tr_run *run)
{
    struct tr_step_report report;
    int rc = 1;

    while (!cli_interrupted() && (rc = tr_train_step(run, &report)) == 1)
        take_report(train, &report);
    progress_end(&train->progress);
    if (rc >= 0 || rc == -EINTR)
        rc = tr_train_finish(run);
    if (rc < 0)
        return cli_fail();
    return is_interrupted(train) ? CLI_INTERRUPTED : CLI_DONE;
}

static int run(void *arg)
{
    struct train *train = arg;
    tr_run *run = NULL;
    int code;

    cli_catch_signals();
    progress_start(&train->progress, train->json ? stderr : stdout);
    train->params.log = print_notice;
    train->params.log_arg = &train->progress;
    train->params.importing = on_import;
    train->params.importing_arg = train;
    train->params.stop = is_stopped;
    code = tr_train_open(&run, &train->params);
    progress_end(&train->progress);
    if (code < 0) {
        cli_fail();
        if (code != -EINTR)
            return CLI_FAILED;
        print_json_end(train, NULL, CLI_INTERRUPTED);
        return CLI_INTERRUPTED;
    }
    print_start(train, run);
    code = run_steps(train, run);
    if (code == CLI_DONE)
        print_end(train, run);
    if (code != CLI_FAILED)
        print_json_end(train, run, code);
    tr_train_close(run);
    if (code == CLI_INTERRUPTED)
        say_interrupted(train);
    return code;
}

const struct cli_command cmd_train = {
    .name = "train",
    .brief = "fine-tune a model",
    .doc = "Fine-tunes all parameters of a model. The parameters stay on disk and stream layer by "
           "layer through the device; a run that was interrupted is continued by the same command.",
    .options = {tr_train_options, own_options},
    .params_size = sizeof(struct train),
    .prepare = prepare,
    .run = run,
};
