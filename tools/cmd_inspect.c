/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace inspect: what is in a model folder, a run, or a safetensors file.
 */
#include "tools/cli.h"

struct inspect {
    const char *path;
    int json;
};

#define AT(member) offsetof(struct inspect, member)

static const struct tr_option argument[] = {{"path", "PATH", TR_OPTION_PATH, 0, AT(path)}, {NULL}};

static const struct tr_option options[] = {
    {"json", NULL, TR_OPTION_SWITCH, 0, AT(json), NULL, "one JSON object on stdout"},
    {NULL},
};

static int run(void *arg)
{
    const struct inspect *params = arg;
    char *text = NULL;

    if (tr_inspect_path(params->path, params->json, &text) < 0)
        return cli_fail();
    cli_print_text(text);
    return CLI_DONE;
}

const struct cli_command cmd_inspect = {
    .name = "inspect",
    .brief = "show what is in a model folder, run or file",
    .doc =
        "Shows architecture, tensors and sizes of a Hugging Face folder or a safetensors file, or "
        "the state of a run. Nothing is loaded and nothing is written.",
    .options = {options},
    .argument = argument,
    .params_size = sizeof(struct inspect),
    .run = run,
};
