/* SPDX-License-Identifier: Apache-2.0
 *
 * The public calls about damage: what in a run is not as it was written, and the way back.
 */
#include <stdio.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/infer/infer.h"
#include "src/options/options.h"
#include "src/plan/plan_file.h"
#include "src/run/torn.h"

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

/* 1: a record that was durable once is damaged, and verifying the store did not know. */
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
    return torn < 0 && !tr_store_torn_damaged(store);
}

static int is_damaged(int r, FILE *f)
{
    if (r != -EBADMSG && r != -EINVAL)
        return r;
    found_damage(f, tr_error_message());
    return 1;
}

/* Of run.yaml and plan.json, how many are not as they were written. */
static int verify_papers(const char *run, FILE *f)
{
    char *path = tr_path(run, "run.yaml");
    struct tr_plan_file plan;
    int options = path ? is_damaged(tr_run_file_check(path), f) : -ENOMEM;
    int placed = options < 0 ? options : is_damaged(tr_plan_file_read(run, &plan), f);

    tr_free(TR_MEM_MISC, path);
    return placed < 0 ? placed : options + placed;
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

/* An error keeps what has been found so far: it may have taken hours, and a drive that fails is the
 * likeliest reason for both. */
int64_t tr_verify_run(const char *run, const char *folder, char **out)
{
    struct tr_store *store = NULL;
    uint64_t damaged = 0;
    size_t bytes;
    FILE *f;
    int kept = 0, torn = 0, papers = 0, r;

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
        r = papers = verify_papers(run, f);
    if (r >= 0)
        r = kept = verify_kept(run, store, f);
    if (f && fclose(f) != 0 && r >= 0)
        r = tr_error(-ENOMEM, "out of memory");
    tr_store_close(store);
    return r < 0 ? r : (int64_t)damaged + torn + papers + kept;
}

int64_t tr_fall_back_run(const char *run, const char *folder)
{
    struct tr_store *store = NULL;
    struct tr_cursor cursor;
    int r;

    if ((r = tr_need(run, "run")) < 0 ||
        (r = run_store_open(run, folder, TR_STORE_WRITE, &store)) < 0)
        return r;
    r = tr_store_check_all(store);
    if (r == 0)
        r = tr_error(-EINVAL, "%s: all that its newest commit names is whole: it does not go back",
                     run);
    else if (r != -ENOMEM && (r = tr_store_fall_back(store)) == 0)
        r = tr_cursor_read(store, &cursor);
    tr_store_close(store);
    return r < 0 ? r : (int64_t)cursor.step;
}
