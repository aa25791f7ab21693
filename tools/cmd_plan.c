/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace plan: what a training run would take, before anything is made.
 */
#include <errno.h>

#include "tools/cli.h"

struct plan {
    struct tr_train_params train; /* first: tr_train_options has its offsets in it */
    const char *machine, *config;
    double pcie, read[TR_MOST_DRIVES], write[TR_MOST_DRIVES], life[TR_MOST_DRIVES]; /* GB/s, TB */
    int64_t drives;
    uint64_t memory;
    int json;
};

#define AT(member) offsetof(struct plan, member)

static const struct tr_option own_options[] = {
    {"machine", "NAME|FILE", TR_OPTION_TEXT, 0, AT(machine), "this machine, as bench found it",
     "rtx-3090, rtx-4090, rtx-5090, h200, or a file that bench wrote", .section = "This command:"},
    {"pcie", "GB/S", TR_OPTION_REAL, TR_OPTION_ABOVE_MIN, AT(pcie), "25; gen5: 52",
     "of a named machine: copies to the device, each way"},
    {"drive-read", "GB/S[,...]", TR_OPTION_REALS, TR_OPTION_ABOVE_MIN, AT(read), "7",
     "of a named machine: what one drive reads, or each of several side by side"},
    {"drive-write", "GB/S[,...]", TR_OPTION_REALS, TR_OPTION_ABOVE_MIN, AT(write), "6",
     "of a named machine: what one drive writes, or each"},
    {"drives", "N", TR_OPTION_COUNT, 0, AT(drives), "as many as speeds are said",
     "of a named machine: drives side by side"},
    {"ram", "SIZE", TR_OPTION_SIZE, 0, AT(memory), "128GiB",
     "of a named machine: host memory that there is"},
    {"drive-life", "TB[,...]", TR_OPTION_REALS, TR_OPTION_ABOVE_MIN, AT(life), NULL,
     "how much may be written to a drive, or to each: says for how many steps that is"},
    {"config", "FILE", TR_OPTION_PATH, 0, AT(config), NULL,
     "options from a YAML file such as a run's run.yaml; those given here come first"},
    {"json", NULL, TR_OPTION_SWITCH, 0, AT(json), NULL, "one JSON object"},
    {NULL},
};

static int prepare(void *arg)
{
    struct plan *plan = arg;

    return plan->config ? tr_options_read(plan->config, &plan->train) : 0;
}

static int run(void *arg)
{
    const struct plan *plan = arg;
    struct tr_foretell_params params = {.train = &plan->train,
                                        .machine = plan->machine,
                                        .pcie = plan->pcie * 1e9,
                                        .drives = plan->drives,
                                        .machine_memory = plan->memory,
                                        .json = plan->json};
    char *text;

    for (int i = 0; i < TR_MOST_DRIVES; i++) {
        params.drive_read[i] = plan->read[i] * 1e9;
        params.drive_write[i] = plan->write[i] * 1e9;
        params.drive_life[i] = plan->life[i] * 1e12;
    }
    if (tr_foretell(&params, &text) < 0)
        return cli_fail();
    cli_print_text(text);
    return CLI_DONE;
}

const struct cli_command cmd_plan = {
    .name = "plan",
    .brief = "say what a training run would take",
    .doc = "Plans a run and predicts its steps: memory by kind, seconds by phase, bytes moved, and "
           "what limits it. Takes the options of train; data is not needed, a step is --batch-size "
           "full rows of --seq-len tokens. Writes nothing.",
    .options = {tr_train_options, own_options},
    .optional = {"data", "out"},
    .params_size = sizeof(struct plan),
    .prepare = prepare,
    .run = run,
};
