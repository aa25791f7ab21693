/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace preview: samples as the trainer sees them.
 */
#include "tools/cli.h"

#define AT(member) offsetof(struct tr_preview_data_params, member)

static const struct tr_option options[] = {
    {"data", "FILE|DIR", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(data), NULL,
     "text, or JSON records as train takes them"},
    {"model", "DIR", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(model), NULL,
     "take the tokenizer of this model folder", .rival = "tokenizer"},
    {"tokenizer", "DIR", TR_OPTION_PATH, 0, AT(tokenizer), NULL, "folder with tokenizer.json",
     .rival = "model"},
    {"template", "NAME|FILE", TR_OPTION_PATH, 0, AT(chat_template), "the tokenizer folder's",
     "chat template of conversations: built in (as train has them), or a file"},
    {"task", "NAME", TR_OPTION_CHOICE, 0, AT(task), "none",
     "the data is this task's JSONL, as train --task takes it", .choices = tr_task_choices},
    {"samples", "N", TR_OPTION_COUNT, 0, AT(samples), "4", "how many to show"},
    {"seq-len", "N", TR_OPTION_COUNT, 0, AT(seq_len), "as train", "tokens of a sample at most"},
    {"json", NULL, TR_OPTION_SWITCH, 0, AT(json), NULL,
     "one JSON object a line: input_ids, and labels (-100 where nothing is learnt)"},
    {NULL},
};

static int run(void *arg)
{
    struct tr_preview_data_params *params = arg;
    char *text = NULL;

    if (tr_preview_data(params, &text) < 0)
        return cli_fail();
    cli_print_text(text);
    return CLI_DONE;
}

const struct cli_command cmd_preview = {
    .name = "preview",
    .brief = "show samples as tokens, with what is learnt of them",
    .doc = "Shows the first samples of a data file as the tokens that training sees, and which of "
           "them carry a loss.",
    .options = {options},
    .params_size = sizeof(struct tr_preview_data_params),
    .run = run,
};
