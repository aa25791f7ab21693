/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace bench: measures the machine, once, for plan and for the predictions of train.
 */
#include "tools/cli.h"

#define AT(member) offsetof(struct tr_bench_params, member)

static const struct tr_option options[] = {
    {"device", "NAME", TR_OPTION_TEXT, 0, AT(device), "the first GPU, else the cpu",
     "what computes: cpu, cuda or cuda:N"},
    {"store", "DIR[:DIR...]", TR_OPTION_PATH, 0, AT(store), "the current folder",
     "folder on the drive that is to be measured, or on each of several, which are measured one by "
     "one and all at once; 1 GiB of each is used meanwhile"},
    {"out", "FILE", TR_OPTION_PATH, 0, AT(out), "~/.cache/tailrace/machine.json",
     "where the figures are kept"},
    {"threads", "N", TR_OPTION_COUNT, 0, AT(threads), "the cores of this process",
     "threads that compute"},
    {"quick", NULL, TR_OPTION_SWITCH, 0, AT(quick), NULL,
     "a few seconds instead of a minute, and figures to match"},
    {"json", NULL, TR_OPTION_SWITCH, 0, AT(json), NULL, "the figures as JSON"},
    {NULL},
};

static void print_notice(void *arg, const char *line)
{
    fprintf(arg, "%s\n", line);
}

static int run(void *arg)
{
    struct tr_bench_params *params = arg;
    char *text;

    params->log = print_notice;
    params->log_arg = stderr;
    if (tr_bench_machine(params, &text) < 0)
        return cli_fail();
    cli_print_text(text);
    return CLI_DONE;
}

const struct cli_command cmd_bench = {
    .name = "bench",
    .brief = "measure this machine",
    .doc = "Measures what plan and train predict from: the drive, memory, copies, and each op of "
           "the device. Nothing else should run meanwhile.",
    .options = {options},
    .params_size = sizeof(struct tr_bench_params),
    .run = run,
};
