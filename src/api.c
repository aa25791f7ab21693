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
#include "src/options/options.h"
#include "src/run/torn.h"

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

static void found_damage(void *arg, const char *text)
{
    fprintf(arg, "%s\n", text);
}

/* The step of the commit before the newest one, or that there is none to go back to. */
static int tell_before(struct tr_store *store, FILE *f)
{
    unsigned char payload[TR_PAYLOAD_BYTES];
    struct tr_cursor cursor;
    int n = tr_store_before(store, payload, sizeof(payload));

    if (n == -ENODATA || n == -EBADMSG)
        fprintf(f, "the commit before is no way out: %s\n", tr_error_message());
    if (n < 0)
        return n == -ENODATA || n == -EBADMSG ? 0 : n;
    n = tr_cursor_parse(payload, (size_t)n, &cursor);
    if (n == 0)
        fprintf(f, "the commit before, of step %llu, is whole\n", (unsigned long long)cursor.step);
    return n;
}

/* 1: a record that was durable once is damaged. */
static int tell_torn(const char *run, const struct tr_store *store, FILE *f)
{
    struct tr_cursor cursor;
    char text[1024];
    int r = tr_cursor_read(store, &cursor), torn;

    if (r < 0)
        return r;
    torn = run_torn(run, store, cursor.step, text, sizeof(text));
    if (torn)
        fprintf(f, "%s\n", text);
    return torn < 0;
}

/* 1: run.yaml is not as it was written. */
static int verify_options(const char *run, FILE *f)
{
    char *path = tr_path(run, "run.yaml");
    int r = path ? tr_run_file_check(path) : -ENOMEM;

    tr_free(TR_MEM_MISC, path);
    if (r != -EBADMSG)
        return r;
    found_damage(f, tr_error_message());
    return 1;
}

/* The files beside the weights. Damage to config.json is what opening them says. */
static int verify_kept(const char *run, const struct tr_store *store, FILE *f)
{
    char *keep = tr_path(run, "source");
    struct tr_kept *k = NULL;
    int r = keep ? tr_keep_open(&k, keep) : -ENOMEM;

    if (r == 0)
        r = tr_keep_check_store(k, store);
    if (r == 0)
        r = tr_keep_verify(k, keep, found_damage, f);
    else if (r != -ENOMEM) {
        found_damage(f, tr_error_message());
        r = 1;
    }
    tr_keep_close(k);
    tr_free(TR_MEM_MISC, keep);
    return r;
}

int64_t tr_verify_run(const char *run, const char *folder, char **out)
{
    struct tr_store *store = NULL;
    uint64_t damaged = 0;
    size_t bytes;
    FILE *f;
    int kept = 0, torn = 0, options = 0, r;

    *out = NULL;
    if ((r = tr_need(run, "run")) < 0 ||
        (r = run_store_open(run, folder, TR_STORE_READ, &store)) < 0)
        return r;
    f = open_memstream(out, &bytes);
    r = f ? tr_store_verify(store, found_damage, f, &damaged) : tr_error(-ENOMEM, "out of memory");
    if (r == 0 && damaged)
        r = tell_before(store, f);
    if (r == 0)
        r = torn = tell_torn(run, store, f);
    if (r >= 0)
        r = options = verify_options(run, f);
    if (r >= 0)
        r = kept = verify_kept(run, store, f);
    if (f)
        fclose(f);
    tr_store_close(store);
    return r < 0 ? r : (int64_t)damaged + torn + options + kept;
}

int64_t tr_fall_back_run(const char *run, const char *folder)
{
    struct tr_store *store = NULL;
    struct tr_cursor cursor;
    int r;

    if ((r = tr_need(run, "run")) < 0 ||
        (r = run_store_open(run, folder, TR_STORE_WRITE, &store)) < 0)
        return r;
    r = tr_store_fall_back(store);
    if (r == 0)
        r = tr_cursor_read(store, &cursor);
    tr_store_close(store);
    return r < 0 ? r : (int64_t)cursor.step;
}
