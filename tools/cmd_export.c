/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace export: the parameters of a run as a Hugging Face folder, or as a GGUF file.
 */
#include "tools/cli.h"

#define AT(member) offsetof(struct tr_export_run_params, member)

static const struct tr_option argument[] = {{"run", "RUN", TR_OPTION_PATH, 0, AT(run)}, {NULL}};

static const struct tr_option options[] = {
    {"out", "DIR", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(out), NULL, "folder to make",
     .rival = "gguf"},
    {"gguf", "FILE", TR_OPTION_PATH, 0, AT(gguf), NULL,
     "or a file to make, in the format of llama.cpp (Llama, Mistral, Qwen2, Qwen3)",
     .rival = "out"},
    {"store", "DIR[:DIR...]", TR_OPTION_PATH, 0, AT(store), "as the run says",
     "where the run keeps its parameters"},
    {"dtype", "TYPE", TR_OPTION_CHOICE, 0, AT(dtype), "as stored", "f32, bf16 or f16",
     .choices = tr_type_choices},
    {"merge", NULL, TR_OPTION_SWITCH, 0, AT(merge), NULL,
     "of a run with adapters: a model like any other, with the adapters in it (a GGUF file always "
     "is)"},
    {NULL},
};

static int run(void *arg)
{
    const struct tr_export_run_params *params = arg;
    int64_t step;

    if (tr_export_run(params, &step) < 0)
        return cli_fail();
    printf("model of step %lld in %s\n", (long long)step,
           params->gguf ? params->gguf : params->out);
    return CLI_DONE;
}

const struct cli_command cmd_export = {
    .name = "export",
    .brief = "write a run's model as a Hugging Face folder or a GGUF file",
    .doc = "Writes the newest whole commit of RUN, and says of which step it is, as a Hugging Face "
           "folder: the tensor names, shapes, "
           "shards and other files of the model that the run started from; or as one GGUF file, "
           "with its "
           "tokenizer and chat template.",
    .options = {options},
    .argument = argument,
    .params_size = sizeof(struct tr_export_run_params),
    .run = run,
};
