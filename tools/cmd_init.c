/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace init: a random model as a Hugging Face folder.
 */
#include "tools/cli.h"

#define AT(member) offsetof(struct tr_init_params, member)

static const struct tr_option options[] = {
    {"arch", "NAME|FILE", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(arch), NULL,
     "a shape by name, such as tinyllama-1.1b or llama-7b, or a config.json"},
    {"tokenizer", "DIR", TR_OPTION_PATH, 0, AT(tokenizer), "none",
     "folder whose tokenizer files are copied"},
    {"out", "DIR", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(out), NULL, "folder to make"},
    {"seed", "N", TR_OPTION_SEED, 0, AT(seed), "0", "decides the parameters"},
    {"dtype", "TYPE", TR_OPTION_CHOICE, 0, AT(dtype), "f32", "f32, bf16 or f16",
     .choices = tr_type_choices},
    {NULL},
};

static int run(void *arg)
{
    const struct tr_init_params *params = arg;

    if (tr_init_model(params) < 0)
        return cli_fail();
    printf("random model in %s\n", params->out);
    return CLI_DONE;
}

const struct cli_command cmd_init = {
    .name = "init",
    .brief = "make a random model",
    .doc = "Writes a model with random parameters as a Hugging Face folder.",
    .options = {options},
    .params_size = sizeof(struct tr_init_params),
    .run = run,
};
