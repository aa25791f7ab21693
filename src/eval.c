/* SPDX-License-Identifier: Apache-2.0
 *
 * Evaluation for the public API. Loss runs over a data set as training would read
 * it, in file order. Exact match takes prompt/completion data: each prompt is continued greedily
 * and the text compared with the completion, white space at both ends apart.
 */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/mem.h"
#include "src/infer.h"
#include "src/task_set.h"

/* One prompt/completion line. */
struct pair {
    char *prompt, *completion;
};

struct pairs {
    struct pair *v;
    size_t n, room;
};

static void pairs_free(struct pairs *p)
{
    for (size_t i = 0; i < p->n; i++) {
        tr_free(TR_MEM_TEXT, p->v[i].prompt);
        tr_free(TR_MEM_TEXT, p->v[i].completion);
    }
    tr_free(TR_MEM_TEXT, p->v);
}

static int add_pair(struct pairs *p, const json_t *line, const char *where)
{
    const char *prompt = json_string_value(json_object_get(line, "prompt"));
    const char *completion = json_string_value(json_object_get(line, "completion"));

    if (!prompt || !completion)
        return tr_error(-EINVAL, "%s: exact match needs \"prompt\" and \"completion\"", where);
    if (p->n == p->room) {
        size_t room = 2 * p->room + 64;
        struct pair *v = tr_realloc(TR_MEM_TEXT, p->v, room * sizeof(*v));

        if (!v)
            return -ENOMEM;
        p->v = v;
        p->room = room;
    }
    p->v[p->n].prompt = tr_strdup(TR_MEM_TEXT, prompt);
    p->v[p->n].completion = tr_strdup(TR_MEM_TEXT, completion);
    return p->v[p->n].prompt && p->v[p->n++].completion ? 0 : -ENOMEM;
}

static int read_pairs(const char *path, int64_t most, struct pairs *out)
{
    FILE *f = fopen(path, "re");
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    int r = 0;

    if (!f)
        return tr_error(-errno, "%s: cannot open: %s", path, strerror(errno));
    for (long number = 1; r == 0 && (n = getline(&line, &room, f)) > 0; number++) {
        char where[4200];
        json_t *json;

        if (most > 0 && (int64_t)out->n >= most)
            break;
        if (strspn(line, " \t\r\n") == (size_t)n)
            continue;
        snprintf(where, sizeof(where), "%s:%ld", path, number);
        r = tr_json_parse(line, (size_t)n, where, &json);
        if (r == 0) {
            r = add_pair(out, json, where);
            json_decref(json);
        }
    }
    free(line);
    fclose(f);
    return r < 0 ? r : out->n ? 0 : tr_error(-ENODATA, "%s: no samples", path);
}

static int same_text(const char *a, const char *b)
{
    size_t na, nb;

    while (isspace((unsigned char)*a))
        a++;
    while (isspace((unsigned char)*b))
        b++;
    na = strlen(a);
    nb = strlen(b);
    while (na && isspace((unsigned char)a[na - 1]))
        na--;
    while (nb && isspace((unsigned char)b[nb - 1]))
        nb--;
    return na == nb && !memcmp(a, b, na);
}

int infer_encode_prompt(const struct tr_tokenizer *t, const char *text, struct tr_ids *ids)
{
    int r = tr_tokenizer_adds_bos(t) ? tr_ids_push(ids, tr_tokenizer_bos(t)) : 0;

    return r < 0 ? r : tr_tokenizer_encode(t, text, strlen(text), ids);
}

static void log_answer(const struct tr_eval_params *p, const struct pair *pair, const char *answer,
                       int ok)
{
    char line[1024];

    if (!p->log)
        return;
    snprintf(line, sizeof(line), "%s %s -> %s (expected %s)", ok ? "ok  " : "miss", pair->prompt,
             answer, pair->completion);
    p->log(p->log_arg, line);
}

static int judge(struct infer *f, const struct tr_eval_params *p, const struct pair *pair,
                 const struct tr_ids *ids, size_t prompt, struct tr_eval_report *report)
{
    char *answer;
    int ok, r = tr_tokenizer_decode(f->run.tokenizer, ids->v + prompt, ids->n - prompt, &answer);

    if (r < 0)
        return r;
    ok = same_text(answer, pair->completion);
    report->matched += ok;
    report->samples++;
    log_answer(p, pair, answer, ok);
    tr_free(TR_MEM_TEXT, answer);
    return 0;
}

static int match_pairs(struct infer *f, const struct tr_eval_params *p, const struct pairs *pairs,
                       struct tr_eval_report *report)
{
    struct tr_ids *ids = tr_alloc_array(TR_MEM_TEXT, pairs->n, sizeof(*ids));
    size_t *prompt = tr_alloc_array(TR_MEM_TEXT, pairs->n, sizeof(*prompt));
    int r = ids && prompt ? 0 : -ENOMEM;

    for (size_t i = 0; i < pairs->n && r == 0; i++) {
        r = infer_encode_prompt(f->run.tokenizer, pairs->v[i].prompt, &ids[i]);
        prompt[i] = ids[i].n;
    }
    if (r == 0)
        r = infer_greedy(f, ids, (int32_t)pairs->n, p->max_tokens ? p->max_tokens : 16);
    for (size_t i = 0; i < pairs->n && r == 0; i++)
        r = judge(f, p, &pairs->v[i], &ids[i], prompt[i], report);
    for (size_t i = 0; ids && i < pairs->n; i++)
        tr_ids_free(&ids[i]);
    tr_free(TR_MEM_TEXT, ids);
    tr_free(TR_MEM_TEXT, prompt);
    return r;
}

static int exact_match(struct infer *f, const struct tr_eval_params *p,
                       struct tr_eval_report *report)
{
    struct pairs pairs = {0};
    int r = f->run.tokenizer
                ? read_pairs(p->data, p->samples, &pairs)
                : tr_error(-EINVAL, "%s: has no tokenizer.json; give --tokenizer", p->model);

    if (r == 0)
        r = match_pairs(f, p, &pairs, report);
    pairs_free(&pairs);
    return r;
}

static int mean_loss(struct infer *f, const struct tr_eval_params *p, int64_t batch, int64_t seq,
                     struct tr_eval_report *report)
{
    struct tr_data_info info;
    struct tr_data *data;
    int r = tr_data_open(&data,
                         &(struct tr_data_params){.path = p->data,
                                                  .held_out = 1,
                                                  .tokenizer = f->run.tokenizer,
                                                  .vocab = f->run.model->config.vocab,
                                                  .seq_len = (int)seq,
                                                  .packing = 1,
                                                  .batch_size = (int)batch,
                                                  .grain_tokens = f->run.device_info.grain_tokens,
                                                  .host_bytes = f->run.params.host_memory});

    if (r < 0)
        return r;
    tr_data_info(data, &info);
    report->tokens = (int64_t)info.tokens;
    r = run_evaluate(&f->run, data, &report->loss, &report->targets);
    report->perplexity = exp(report->loss);
    if (info.bytes)
        report->bits_per_byte =
            report->loss * (double)report->targets / (log(2) * (double)info.bytes);
    tr_data_close(data);
    return r;
}

int infer_row_tokens(const char *model, int64_t asked, int64_t rows, int64_t *out)
{
    char *path = tr_path(model, infer_is_run(model) ? "source/config.json" : "config.json");
    struct tr_model_config c;
    int r = path ? tr_config_read(path, &c) : -ENOMEM;

    tr_free(TR_MEM_MISC, path);
    if (r < 0)
        return r;
    *out = asked ? asked : c.max_position < 2048 ? c.max_position : 2048;
    if (*out > c.max_position)
        return tr_error(-EINVAL, "--seq-len %lld: the model has %lld positions", (long long)asked,
                        (long long)c.max_position);
    if (rows > INT32_MAX / 2 / *out)
        return tr_error(-EINVAL, "--batch-size %lld of --seq-len %lld: too many tokens a batch",
                        (long long)rows, (long long)*out);
    return 0;
}

static int eval_task(struct infer *f, const struct tr_eval_params *p, int64_t seq,
                     struct tr_eval_report *report)
{
    struct task_set *s = NULL;
    struct task_metrics m;
    int r = f->run.tokenizer
                ? task_set_open(&s, &(struct task_set_params){.task = p->task,
                                                              .path = p->data,
                                                              .tokenizer = f->run.tokenizer,
                                                              .vocab = f->run.model->config.vocab,
                                                              .samples = p->samples})
                : tr_error(-EINVAL, "%s: has no tokenizer.json; give --tokenizer", p->model);

    if (r == 0)
        r = task_set_answer(&f->run, s, (int32_t)seq);
    if (r == 0) {
        task_set_metrics(s, &m);
        memcpy(report->accuracy, m.accuracy, sizeof(m.accuracy));
        report->majority = m.majority;
        report->interval = m.interval;
        report->f1 = m.f1;
        report->exact = m.exact;
        report->samples = s->n_questions;
        report->tokens = (int64_t)s->ids.n;
    }
    task_set_close(s);
    return r;
}

/* Answers keep their keys and values where those fit. */
static int open_for(struct infer **f, const struct tr_eval_params *p, int64_t batch, int64_t seq)
{
    struct infer_shape shape = {.batch_tokens = batch * seq,
                                .positions = seq,
                                .logit_rows = p->exact_match ? 256 : 0,
                                .cache_tokens = p->exact_match ? batch * seq : 0};
    int r = infer_open_model(f, &(struct infer_params){.model = p->model,
                                                       .adapter = p->adapter,
                                                       .tokenizer = p->tokenizer,
                                                       .threads = p->threads,
                                                       .device = p->device,
                                                       .device_memory = p->device_memory});

    if (r < 0)
        return r;
    if (infer_fits(*f, &shape) == -ENOMEM)
        shape.cache_tokens = 0;
    if ((r = infer_start(*f, &shape)) < 0)
        infer_close(*f);
    return r;
}

int tr_eval_data(const struct tr_eval_params *p, struct tr_eval_report *report)
{
    int64_t batch = p->batch_size ? p->batch_size : 8, seq;
    struct infer *f;
    int r;

    memset(report, 0, sizeof(*report));
    if (p->task && p->exact_match)
        return tr_error(-EINVAL, "--task and --exact-match exclude each other");
    if (!p->model || !p->data)
        return tr_error(-EINVAL, "--%s is missing", p->model ? "data" : "model");
    if ((r = infer_row_tokens(p->model, p->seq_len, batch, &seq)) < 0)
        return r;
    r = open_for(&f, p, batch, seq);
    if (r < 0)
        return r;
    r = p->task ? eval_task(f, p, seq, report) : mean_loss(f, p, batch, seq, report);
    if (r == 0 && p->exact_match)
        r = exact_match(f, p, report);
    infer_close(f);
    return r;
}
