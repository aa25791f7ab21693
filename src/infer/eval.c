/* SPDX-License-Identifier: Apache-2.0
 *
 * Evaluation for the public API. Loss runs over a data set as training would read
 * it, in file order; the questions of a task are task_set.c's, exact match is match.c's.
 */
#include <math.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/infer/match.h"
#include "src/infer/task_set.h"

int infer_encode_prompt(const struct tr_tokenizer *t, const char *text, struct tr_ids *ids)
{
    int r = tr_tokenizer_adds_bos(t) ? tr_ids_push(ids, tr_tokenizer_bos(t)) : 0;

    return r < 0 ? r : tr_tokenizer_encode(t, text, strlen(text), ids);
}

static int mean_loss(struct infer *f, const struct tr_eval_params *p, int64_t batch, int64_t seq,
                     struct tr_eval_report *report)
{
    struct tr_data_info info;
    struct tr_data *data;
    char *template;
    int r = infer_template(p->model, p->chat_template, &template);

    if (r < 0)
        return r;
    r = tr_data_open(&data,
                     &(struct tr_data_params){.path = p->data,
                                              .held_out = 1,
                                              .template_name = template,
                                              .tokenizer = f->run.tokenizer,
                                              .vocab = f->run.model->config.vocab,
                                              .seq_len = (int)seq,
                                              .packing = 1,
                                              .batch_size = (int)batch,
                                              .grain_tokens = f->run.device_info.grain_tokens,
                                              .host_bytes = f->run.params.host_memory});
    tr_free(TR_MEM_MISC, template);
    if (r < 0)
        return r;
    tr_data_info(data, &info);
    report->tokens = (int64_t)info.tokens;
    report->samples = p->exact_match ? 0 : (int64_t)info.samples; /* else the questions, later */
    r = run_evaluate(&f->run, data, &report->loss, &report->targets);
    report->perplexity = exp(report->loss);
    report->truncated = (int64_t)info.truncated;
    if (info.bytes && !info.truncated && !info.without_target) /* bytes are of the whole texts */
        report->bits_per_byte =
            report->loss * (double)report->targets / (log(2) * (double)info.bytes);
    tr_data_close(data);
    return r;
}

static int read_config(const char *model, struct tr_model_config *c)
{
    char *path = tr_path(model, run_is_folder(model) ? "source/config.json" : "config.json");
    int r = path ? run_refuse_adapters(model) : -ENOMEM;

    if (r == 0)
        r = tr_config_read(path, c);
    tr_free(TR_MEM_MISC, path);
    return r;
}

int infer_positions(const char *model, int64_t wanted, int64_t *out)
{
    struct tr_model_config c;
    int64_t most;
    int r = read_config(model, &c);

    if (r < 0)
        return r;
    most = tr_config_positions(&c);
    most = most < INT32_MAX / 2 ? most : INT32_MAX / 2;
    wanted = wanted > TR_ROW_TOKENS ? wanted : tr_config_row_tokens(&c);
    *out = wanted < most ? wanted : most;
    return 0;
}

int infer_row_tokens(const char *model, int64_t asked, int64_t rows, int64_t *out)
{
    struct tr_model_config c;
    int r = read_config(model, &c);

    if (r < 0)
        return r;
    *out = asked ? asked : tr_config_row_tokens(&c);
    if (*out > tr_config_positions(&c))
        return tr_error(-EINVAL, "--seq-len %lld: the model has %lld positions", (long long)asked,
                        (long long)tr_config_positions(&c));
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
        memcpy(report->interval, m.interval, sizeof(m.interval));
        report->f1 = m.f1;
        report->exact = m.exact;
        report->samples = s->n_questions;
        report->tokens = (int64_t)s->ids.n;
        report->truncated = task_set_cut(s, (int32_t)seq);
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

static int check(const struct tr_eval_params *p)
{
    int r;

    if (p->task && p->exact_match)
        return tr_error(-EINVAL, "--task and --exact-match exclude each other");
    if ((r = tr_need(p->model, "model")) < 0 || (r = tr_need(p->data, "data")) < 0 ||
        (r = infer_check_texts(p->tokenizer, p->adapter, p->device, p->chat_template)) < 0)
        return r;
    if (p->samples > 0 && !p->task && !p->exact_match)
        return tr_error(-EINVAL, "--samples: is for --task and --exact-match; a loss is of all");
    if (p->max_tokens > 0 && !p->exact_match)
        return tr_error(-EINVAL, "--max-tokens: is for --exact-match");
    if ((r = tr_task_check(p->task, p->chat_template)) < 0 ||
        (r = tr_need_count(p->batch_size, "batch-size")) < 0 ||
        (r = tr_need_count(p->seq_len, "seq-len")) < 0 ||
        (r = tr_need_count(p->samples, "samples")) < 0 ||
        (r = tr_need_count(p->max_tokens, "max-tokens")) < 0)
        return r;
    return tr_need_threads(p->threads);
}

int tr_eval_data(const struct tr_eval_params *p, struct tr_eval_report *report)
{
    int64_t batch = p->batch_size ? p->batch_size : 8, seq;
    struct infer *f;
    int r;

    memset(report, 0, sizeof(*report));
    if ((r = check(p)) < 0 || (r = infer_row_tokens(p->model, p->seq_len, batch, &seq)) < 0)
        return r;
    r = open_for(&f, p, batch, seq);
    if (r < 0)
        return r;
    r = p->task ? eval_task(f, p, seq, report) : mean_loss(f, p, batch, seq, report);
    if (r == 0 && p->exact_match)
        r = tr_match(f, p, report);
    infer_close(f);
    return r;
}
