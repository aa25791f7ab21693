/* SPDX-License-Identifier: Apache-2.0
 *
 * The public calls about folders and stores: each checks what is missing and hands on. No logic.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "build_config.h"
#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/checkpoint/gguf.h"
#include "src/infer/infer.h"

const char *tr_version(void)
{
    return TR_VERSION;
}

const char *tr_message(void)
{
    return tr_error_message();
}

void tr_free_text(char *text)
{
    free(text);
}

int tr_export_run(const struct tr_export_run_params *p, int64_t *step)
{
    struct tr_cursor cursor = {0};
    struct tr_store *store = NULL;
    char *keep, *tokenizer = NULL;
    int r;

    if (p->out && p->gguf)
        return tr_error(-EINVAL, "--out and --gguf exclude each other");
    if ((r = tr_dtype_check((int)p->dtype - 1)) < 0 || (r = tr_need(p->run, "run")) < 0 ||
        (r = tr_need(p->gguf ? p->gguf : p->out, "out")) < 0 ||
        (r = run_settle_folder(p->run, p->store)) < 0 ||
        (r = run_store_open(p->run, p->store, TR_STORE_READ, &store)) < 0)
        return r;
    keep = tr_path(p->run, "source");
    r = tr_cursor_read(store, &cursor);
    if (r == 0)
        r = infer_tokenizer(p->run, &tokenizer);
    if (r == 0)
        r = keep ? (p->gguf ? tr_gguf : tr_export)(
                       &(struct tr_export_params){.store = store,
                                                  .keep = keep,
                                                  .tokenizer = tokenizer,
                                                  .out = p->gguf ? p->gguf : p->out,
                                                  .dtype = (int)p->dtype - 1,
                                                  .merge = p->merge})
                 : -ENOMEM;
    if (step)
        *step = (int64_t)cursor.step;
    tr_free(TR_MEM_MISC, keep);
    tr_free(TR_MEM_MISC, tokenizer);
    tr_store_close(store);
    return r;
}
