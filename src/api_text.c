/* SPDX-License-Identifier: Apache-2.0
 *
 * The public calls about texts: learning a tokenizer, previewing data. No logic.
 */
#include <stdio.h>
#include <stdlib.h>

#include "src/base/err.h"
#include "src/base/sysmem.h"
#include "src/infer/infer.h"
#include "src/text/preview.h"
#include "src/text/task.h"
#include "src/tailrace.h"

int tr_learn_tokenizer(const struct tr_learn_params *p)
{
    int r;

    if ((r = tr_need(p->data, "data")) < 0 || (r = tr_need(p->out, "out")) < 0)
        return r;
    return tr_tokenizer_train(
        &(struct tr_tokenizer_train_params){.data = p->data, .out = p->out, .vocab = p->vocab});
}

/* Lines gathered into one text. */
static int add_line(void *arg, const char *text, size_t bytes)
{
    FILE *f = arg;

    if (fwrite(text, 1, bytes, f) != bytes || fputc('\n', f) == EOF)
        return tr_error(-ENOMEM, "out of memory");
    return 0;
}

/* As train would cut them; more than can be asked for is as much as there may be. */
static int row_tokens(const struct tr_preview_data_params *p)
{
    int64_t n = p->seq_len ? p->seq_len : TR_ROW_TOKENS;

    if (!p->seq_len && p->model && infer_row_tokens(p->model, 0, 1, &n) < 0)
        n = TR_ROW_TOKENS;
    return n < INT32_MAX ? (int)n : INT32_MAX;
}

static int preview_text(const struct tr_preview_data_params *p, const struct tr_tokenizer *t,
                        char **out)
{
    struct tr_data *data = NULL;
    struct tr_data_info info;
    uint64_t free_bytes;
    size_t bytes;
    FILE *f;
    int r = tr_free_memory(&free_bytes);

    if (r < 0)
        return r;
    f = open_memstream(out, &bytes);
    if (!f)
        return tr_error(-ENOMEM, "out of memory");
    r = tr_data_open(&data, &(struct tr_data_params){
                                .path = p->data,
                                .tokenizer = t,
                                .template_name = p->chat_template,
                                .task = (int)p->task,
                                .vocab = t ? tr_tokenizer_vocab(t) : INT32_MAX,
                                .seq_len = row_tokens(p),
                                .batch_size = 1,
                                .grain_tokens = TR_GRAIN_CPU,
                                .host_bytes = free_bytes / 10 * 8,
                            });
    if (r == 0 && !p->json) {
        tr_data_info(data, &info);
        fprintf(f,
                "%s%s%s, %llu samples\n"
                "tokens are set apart by spaces, their own shown as the vocabulary has them; "
                "[what is learnt] stands in brackets\n",
                tr_data_format_name(info.format), *info.template_from ? ", template " : "",
                info.template_from, (unsigned long long)info.samples);
    }
    if (r == 0)
        r = tr_preview(&(struct tr_preview_sample_params){.data = data,
                                                          .tokenizer = t,
                                                          .samples = p->samples ? p->samples : 4,
                                                          .json = p->json,
                                                          .line = add_line,
                                                          .arg = f});
    tr_data_close(data);
    if (fclose(f) != 0 && r == 0)
        r = tr_error(-ENOMEM, "out of memory");
    if (r < 0) {
        free(*out);
        *out = NULL;
    }
    return r;
}

int tr_preview_data(const struct tr_preview_data_params *p, char **out)
{
    struct tr_tokenizer *t = NULL;
    const char *folder = p->tokenizer ? p->tokenizer : p->model;
    int r;

    *out = NULL;
    if ((r = tr_need(p->data, "data")) < 0 || (r = tr_need_count(p->samples, "samples")) < 0 ||
        (r = tr_need_count(p->seq_len, "seq-len")) < 0 ||
        (r = tr_task_check(p->task, p->chat_template)) < 0 ||
        (!p->tokenizer && (r = run_refuse_folder(p->model)) < 0) ||
        (folder && (r = tr_tokenizer_open(&t, folder)) < 0))
        return r;
    r = preview_text(p, t, out);
    tr_tokenizer_close(t);
    return r;
}
