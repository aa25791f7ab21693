/* SPDX-License-Identifier: Apache-2.0
 *
 * tailrace eval: loss and perplexity on held-out data, and the share of prompts whose greedy
 * continuation is exactly the expected one; or the accuracy on a task by log-likelihood.
 */
#include "tools/cli.h"

#include <math.h>

struct eval {
    struct tr_eval_params params;
    int64_t show;
    int64_t shown;
    int json;
};

#define AT(member) offsetof(struct eval, params.member)

static const struct tr_option options[] = {
    {"model", "DIR|RUN", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(model), NULL,
     "Hugging Face folder, which is copied below TMPDIR, or else /var/tmp, for the time; or a run"},
    {"adapter", "DIR", TR_OPTION_PATH, 0, AT(adapter), "none",
     "adapters of a PEFT folder, or of a run's OUT/model, beside the model"},
    {"tokenizer", "DIR", TR_OPTION_PATH, 0, AT(tokenizer), "the model's",
     "folder with tokenizer.json"},
    {"data", "FILE", TR_OPTION_PATH, TR_OPTION_REQUIRED, AT(data), NULL,
     "text, or JSON records as train takes them"},
    {"template", "NAME|FILE", TR_OPTION_PATH, 0, AT(chat_template), "the run's, or the model's",
     "chat template of conversations: built in (as train has them), or a file; with "
     "--exact-match a prompt is a turn of the user then"},
    {"samples", "N", TR_OPTION_COUNT, 0, AT(samples), "all",
     "with --exact-match or --task: questions to answer at most"},
    {"task", "NAME", TR_OPTION_CHOICE, 0, AT(task), "none",
     "the data is this task's JSONL: rte, cb, boolq, copa, wic, wsc or multirc of SuperGLUE, or "
     "choice (context, choices, answer); choices are weighed by log-likelihood",
     .choices = tr_task_choices},
    {"exact-match", NULL, TR_OPTION_SWITCH, 0, AT(exact_match), NULL,
     "answer each prompt, or the last turn of each conversation, and compare"},
    {"show", "N", TR_OPTION_COUNT, 0, offsetof(struct eval, show), "0",
     "with --exact-match: answers to print"},
    {"max-tokens", "N", TR_OPTION_COUNT, 0, AT(max_tokens),
     "1.5 times the longest right answer's, at least 32", "tokens of an answer at most"},
    {"batch-size", "N", TR_OPTION_COUNT, 0, AT(batch_size), "8", "rows computed at once"},
    {"seq-len", "N", TR_OPTION_COUNT, 0, AT(seq_len), "min(2048, the model's)",
     "tokens of a row at most"},
    {"threads", "N", TR_OPTION_COUNT, 0, AT(threads), "the cores of this process",
     "threads that compute"},
    {"device", "NAME", TR_OPTION_TEXT, 0, AT(device), "the first GPU, else the cpu",
     "what computes: cpu, cuda or cuda:N"},
    {"device-memory", "SIZE", TR_OPTION_SIZE, 0, AT(device_memory), "80%; cuda: 90%",
     "budget of device memory: 24GiB, 512MiB, or a share of what is free"},
    {"json", NULL, TR_OPTION_SWITCH, 0, offsetof(struct eval, json), NULL,
     "one JSON object on stdout"},
    {NULL},
};

/* The library hands over every answer; how many are wanted is a matter of this program. */
static void print_answer(void *arg, const char *line)
{
    struct eval *eval = arg;
    FILE *f = eval->json ? stderr : stdout;

    if (eval->shown++ >= eval->show)
        return;
    for (; *line; line++) /* an answer may have lines of its own */
        fputc(*line == '\n' ? ' ' : *line, f);
    fputc('\n', f);
}

static void print_member(const char *key, double value)
{
    fputs(", ", stdout);
    cli_json_real(stdout, key, value);
}

static void print_cut_json(const struct tr_eval_report *r)
{
    if (r->truncated)
        printf(", \"truncated\": %lld", (long long)r->truncated);
}

static void print_cut(const struct tr_eval_report *r, const char *what)
{
    if (r->truncated)
        printf("cut          %lld %s, to --seq-len\n", (long long)r->truncated, what);
}

static void print_task_json(const struct tr_eval_report *r)
{
    printf("{\"samples\": %lld", (long long)r->samples);
    print_member("accuracy", r->accuracy[0]);
    print_member("accuracy_per_token", r->accuracy[1]);
    print_member("accuracy_per_byte", r->accuracy[2]);
    print_member("interval_low", r->interval[0]);
    print_member("interval_high", r->interval[1]);
    print_member("majority", r->majority);
    print_member("f1", r->f1);
    print_member("exact", r->exact);
    print_cut_json(r);
    puts("}");
}

static void print_task(const struct tr_eval_report *r)
{
    printf("questions    %lld\n"
           "accuracy     %.1f %% (95 %%: %.1f to %.1f); per token %.1f %%, per byte %.1f %%\n"
           "majority     %.1f %%\n",
           (long long)r->samples, 100 * r->accuracy[0], 100 * r->interval[0], 100 * r->interval[1],
           100 * r->accuracy[1], 100 * r->accuracy[2], 100 * r->majority);
    if (!isnan(r->f1))
        printf("F1           %.1f %%\n", 100 * r->f1);
    if (!isnan(r->exact))
        printf("exact        %.1f %%\n", 100 * r->exact);
    print_cut(r, "questions");
}

static void print_json(const struct eval *eval, const struct tr_eval_report *report)
{
    putchar('{');
    cli_json_real(stdout, "loss", report->loss);
    print_member("perplexity", report->perplexity);
    if (report->bits_per_byte > 0)
        print_member("bits_per_byte", report->bits_per_byte);
    printf(", \"samples\": %lld, \"tokens\": %lld, \"targets\": %lld", (long long)report->samples,
           (long long)report->tokens, (long long)report->targets);
    print_cut_json(report);
    if (eval->params.exact_match)
        printf(", \"matched\": %lld", (long long)report->matched);
    puts("}");
}

static void print_plain(const struct eval *eval, const struct tr_eval_report *report)
{
    printf("loss         %.4f\nperplexity   %.2f\ntargets      %lld of %lld tokens\n", report->loss,
           report->perplexity, (long long)report->targets, (long long)report->tokens);
    if (report->bits_per_byte > 0)
        printf("bits a byte  %.4f\n", report->bits_per_byte);
    print_cut(report, "samples");
    if (eval->params.exact_match)
        printf("exact match  %.1f %% (%lld of %lld)\n",
               report->samples ? 100.0 * (double)report->matched / (double)report->samples : 0.0,
               (long long)report->matched, (long long)report->samples);
}

static int run(void *arg)
{
    struct eval *eval = arg;
    struct tr_eval_report report = {0};

    if (eval->show && !eval->params.exact_match) {
        cli_error("--show needs --exact-match");
        return CLI_USAGE;
    }
    eval->params.log = print_answer;
    eval->params.log_arg = eval;
    if (tr_eval_data(&eval->params, &report) < 0)
        return cli_fail();
    if (eval->params.task && eval->json)
        print_task_json(&report);
    else if (eval->params.task)
        print_task(&report);
    else if (eval->json)
        print_json(eval, &report);
    else
        print_plain(eval, &report);
    return CLI_DONE;
}

const struct cli_command cmd_eval = {
    .name = "eval",
    .brief = "measure loss and exact match on held-out data",
    .doc =
        "Measures loss and perplexity of a model on a data file; with --exact-match also the share "
        "of prompts that it continues exactly as the data does, with --task the accuracy on a "
        "task.",
    .options = {options},
    .params_size = sizeof(struct eval),
    .run = run,
};
