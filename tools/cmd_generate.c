/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace generate: a continuation of a prompt, or of many prompts together; or a conversation,
 * a line of stdin being a turn.
 */
#include "tools/cli.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct generate {
    struct tr_generate_params params;
    int json, asked;
    char *line; /* of stdin */
    size_t room;
};

#define AT(member) offsetof(struct generate, params.member)

static const struct tr_choice_name cache_choices[] = {
    {"auto", TR_AUTO}, {"yes", TR_YES}, {"no", TR_NO}, {NULL, 0}};

static const struct tr_option options[] = {
    {"model", "DIR|RUN", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(model), NULL,
     "Hugging Face folder, which is copied below TMPDIR, or else /var/tmp, for the time; or a run"},
    {"adapter", "DIR", TR_OPTION_PATH, 0, AT(adapter), "none",
     "adapters of a PEFT folder, or of a run's OUT/model, beside the model"},
    {"tokenizer", "DIR", TR_OPTION_PATH, 0, AT(tokenizer), "the model's",
     "folder with tokenizer.json"},
    {"prompt", "TEXT", TR_OPTION_TEXT, 0, AT(prompt), NULL, "text to continue", .rival = "prompts"},
    {"prompts", "FILE", TR_OPTION_PATH, 0, AT(prompts), NULL,
     "or a text a line (JSONL: \"prompt\"); all grow together, a token in each pass over the "
     "model; prints JSONL",
     .rival = "prompt"},
    {"chat", NULL, TR_OPTION_SWITCH, 0, AT(chat), NULL,
     "a prompt is a turn of the user, and the answer ends with the turn; without --prompt and "
     "--prompts, lines of stdin are a conversation"},
    {"template", "NAME|FILE", TR_OPTION_PATH, 0, AT(chat_template), "the run's, or the model's",
     "chat, by this template: built in (as train has them), or a file"},
    {"max-tokens", "N", TR_OPTION_COUNT, 0, AT(max_tokens), "64",
     "tokens to add at most (a conversation: 512 an answer)"},
    {"temperature", "T", TR_OPTION_REAL, 0, AT(temperature), "0",
     "draw tokens, the unlikely ones more often the higher; 0: always the likeliest", .max = 100},
    {"top-p", "P", TR_OPTION_REAL, TR_OPTION_ABOVE_MIN, AT(top_p), "1",
     "draw among the likeliest tokens whose probabilities reach this", .max = 1},
    {"seed", "N", TR_OPTION_SEED, 0, AT(seed), "0", "of the draws"},
    {"kv-cache", "WHEN", TR_OPTION_CHOICE, 0, AT(kv_cache), "auto",
     "keep keys and values in device memory: yes, no, or auto: where they fit",
     .choices = cache_choices},
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

static void print_piece(void *arg, const char *text)
{
    (void)arg;
    fputs(text, stdout);
    fflush(stdout);
}

/* The next line that says something; the answer before it is ended, and a person is asked. */
static const char *ask(void *arg)
{
    struct generate *generate = arg;

    if (generate->asked++)
        fputs("\n", stdout);
    for (;;) {
        ssize_t n;

        if (isatty(STDIN_FILENO))
            fputs("> ", stdout);
        fflush(stdout);
        n = getline(&generate->line, &generate->room, stdin);
        if (n < 0)
            return NULL;
        while (n && strchr("\r\n", generate->line[n - 1]))
            generate->line[--n] = 0;
        if (n)
            return generate->line;
    }
}

static void print_out(const struct generate *generate, int live, char *text)
{
    int one = generate->json && !generate->params.prompts;

    if (live)
        putchar('\n');
    if (!live && !one) {
        cli_print_text(text);
        return;
    }
    if (one) {
        putchar('{');
        cli_json_text(stdout, "text", text);
        puts("}");
    }
    tr_free_text(text);
}

static int run(void *arg)
{
    struct generate *generate = arg;
    struct tr_generate_params *p = &generate->params;
    int talk = p->chat && !p->prompt && !p->prompts;
    int live = talk || (p->prompt && !generate->json && isatty(STDOUT_FILENO)), r;
    char *text = NULL;

    if (!p->prompt && !p->prompts && !p->chat) {
        cli_error("--prompt or --prompts is missing");
        return CLI_USAGE;
    }
    if (talk && generate->json) {
        cli_error("--json needs --prompt or --prompts");
        return CLI_USAGE;
    }
    if (talk) {
        p->ask = ask;
        p->ask_arg = generate;
    }
    if (live)
        p->piece = print_piece;
    r = tr_generate_text(p, &text);
    free(generate->line);
    if (r < 0)
        return cli_fail();
    print_out(generate, live, text);
    return CLI_DONE;
}

const struct cli_command cmd_generate = {
    .name = "generate",
    .brief = "continue a prompt, or many together, or talk",
    .doc = "Continues a prompt with the likeliest tokens, or with drawn ones; with --chat it is an "
           "answer. The model is "
           "streamed from disk as in training, a pass for each token of all prompts.",
    .options = {options},
    .params_size = sizeof(struct generate),
    .run = run,
};
