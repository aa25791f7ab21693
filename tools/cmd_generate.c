/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace generate: the likeliest continuation of a prompt.
 */
#include "tools/cli.h"

struct generate {
    struct tr_generate_params params;
    int json;
};

#define AT(member) offsetof(struct generate, params.member)

static const struct tr_option options[] = {
    {"model", "DIR|RUN", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(model), NULL,
     "Hugging Face folder, or a run"},
    {"tokenizer", "DIR", TR_OPTION_PATH, 0, AT(tokenizer), "the model's",
     "folder with tokenizer.json"},
    {"prompt", "TEXT", TR_OPTION_TEXT, TR_OPTION_REQUIRED, AT(prompt), NULL, "text to continue"},
    {"max-tokens", "N", TR_OPTION_COUNT, 0, AT(max_tokens), "64", "tokens to add at most"},
    {"threads", "N", TR_OPTION_COUNT, 0, AT(threads), "the cores of this process",
     "threads that compute"},
    {"device", "NAME", TR_OPTION_TEXT, 0, AT(device), "the first GPU, else the cpu",
     "what computes: cpu, cuda or cuda:N"},
    {"device-memory", "SIZE", TR_OPTION_SIZE, 0, AT(device_memory), "80%; cuda: 90%",
     "budget of device memory: 24GiB, 512MiB, or a share of what is free"},
    {"json", NULL, TR_OPTION_SWITCH, 0, offsetof(struct generate, json), NULL,
     "one JSON object on stdout"},
    {NULL},
};

static int run(void *arg)
{
    struct generate *generate = arg;
    char *text = NULL;

    if (!generate->params.max_tokens)
        generate->params.max_tokens = 64;
    if (tr_generate_text(&generate->params, &text) < 0)
        return cli_fail();
    if (!generate->json) {
        cli_print_text(text);
        return CLI_DONE;
    }
    putchar('{');
    cli_json_text(stdout, "text", text);
    puts("}");
    tr_free_text(text);
    return CLI_DONE;
}

const struct cli_command cmd_generate = {
    .name = "generate",
    .brief = "continue a prompt with the likeliest tokens",
    .doc = "Continues a prompt, always with the likeliest token. The model is streamed from disk "
           "as in "
           "training.",
    .options = {options},
    .params_size = sizeof(struct generate),
    .run = run,
};
