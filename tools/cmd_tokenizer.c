/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace tokenizer: learns a tokenizer.json from text.
 */
#include "tools/cli.h"

#define AT(member) offsetof(struct tr_learn_params, member)

static const struct tr_option options[] = {
    {"data", "FILE|DIR", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(data), NULL,
     "text, or JSON records as train takes them; of those, their texts and messages"},
    {"vocab", "N", TR_OPTION_COUNT, TR_OPTION_REQUIRED, AT(vocab), NULL,
     "tokens in all, with 3 special ones and 256 bytes; 261 at least"},
    {"out", "DIR", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(out), NULL, "folder to make"},
    {NULL},
};

static int run(void *arg)
{
    const struct tr_learn_params *params = arg;

    if (tr_learn_tokenizer(params) < 0)
        return cli_fail();
    printf("tokenizer in %s\n", params->out);
    return CLI_DONE;
}

const struct cli_command cmd_tokenizer = {
    .name = "tokenizer",
    .brief = "learn a tokenizer from text",
    .doc = "Learns a byte-pair tokenizer with byte fallback and writes tokenizer.json.",
    .options = {options},
    .params_size = sizeof(struct tr_learn_params),
    .run = run,
};
