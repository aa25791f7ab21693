/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace verify: every commit and every checksum of a run.
 */
#include "tools/cli.h"

struct verify {
    const char *run, *store;
    int json, fall_back;
};

#define AT(member) offsetof(struct verify, member)

static const struct tr_option argument[] = {{"run", "RUN", TR_OPTION_PATH, 0, AT(run)}, {NULL}};

static const struct tr_option options[] = {
    {"store", "DIR[:DIR...]", TR_OPTION_PATH, 0, AT(store), "as the run says",
     "where the run keeps its parameters"},
    {"fall-back", NULL, TR_OPTION_SWITCH, 0, AT(fall_back), NULL,
     "where something is damaged: go back to the commit before, if that one is whole"},
    {"json", NULL, TR_OPTION_SWITCH, 0, AT(json), NULL, "one JSON object on stdout"},
    {NULL},
};

/* Frees the text. */
static void print_report(const struct verify *params, int64_t damaged, char *text)
{
    int noted;

    if (params->json) {
        printf("{\"damaged\": %lld, ", (long long)damaged);
        cli_json_text(stdout, "report", text ? text : "");
        puts("}");
        tr_free_text(text);
        return;
    }
    noted = text && *text;
    cli_print_text(text);
    if (!damaged)
        printf("%s: whole, every checksum %s right\n", params->run, noted ? "is" : "and commit is");
}

static int fall_back(const struct verify *params)
{
    int64_t step = tr_fall_back_run(params->run, params->store);

    if (step < 0)
        return cli_fail();
    if (!params->json)
        printf("%s: stands at step %lld again\n", params->run, (long long)step);
    return CLI_DONE;
}

static int run(void *arg)
{
    const struct verify *params = arg;
    char *text = NULL;
    int64_t damaged = tr_verify_run(params->run, params->store, &text);

    if (damaged < 0) { /* what was found until then is no report, but no secret either */
        fputs(text ? text : "", params->json ? stderr : stdout);
        tr_free_text(text);
        return cli_fail();
    }
    print_report(params, damaged, text);
    if (damaged && params->fall_back)
        return fall_back(params);
    return damaged ? CLI_FAILED : CLI_DONE;
}

const struct cli_command cmd_verify = {
    .name = "verify",
    .brief = "read back every checksum and commit of a run",
    .doc = "Reads all parameters of RUN and checks every commit and every checksum. Exit 1 where "
           "something is damaged; each damaged piece is named, and whether the commit before is "
           "whole.",
    .options = {options},
    .argument = argument,
    .params_size = sizeof(struct verify),
    .run = run,
};
