/* SPDX-License-Identifier: Apache-2.0
 *
 * What may happen to a run between two steps: a model is exported because somebody has made the
 * file RUN/checkpoint, or the run goes back one commit because bytes of the newest one are damaged;
 * not where the damage was to bytes within a step, which are spilled and read again.
 * Both need the store for themselves: the engine is closed, and opened again afterwards.
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/checkpoint/export.h"
#include "src/checkpoint/unfinished.h"
#include "src/run/open.h"
#include "src/run/torn.h"

char *run_model_folder(const struct tr_run *run, int numbered)
{
    char name[48] = "model";

    if (numbered)
        snprintf(name, sizeof(name), "model-%llu", (unsigned long long)run->cursor.step);
    return tr_path(run->params.out, name);
}

int run_export(struct tr_run *run, const char *out)
{
    struct tr_export_params p = {.store = run->store, .out = out, .dtype = -1};
    char *keep = tr_path(run->params.out, "source");
    int r = keep ? 0 : -ENOMEM, there = tr_folder_is_empty(out) == 0;

    p.keep = keep;
    if (r == 0)
        r = (there ? tr_export_same : tr_export)(&p);
    if (r == 0)
        run_log(run, "model     %s%s", out, there ? " (as it was)" : "");
    tr_free(TR_MEM_MISC, keep);
    return r;
}

/* The names that tr_out_folder_begin makes of those of run_model_folder: "model", "model-STEP". */
static int is_unfinished(const char *name)
{
    static const char word[] = "model";
    size_t n = sizeof(word) - 1, digits = 0;

    if (strncmp(name, word, n))
        return 0;
    if (name[n] == '-' && (digits = strspn(name + n + 1, "0123456789")))
        n += 1 + digits;
    return tr_unfinished_is(name + n, "");
}

void run_sweep_exports(const struct tr_run *run)
{
    DIR *d = opendir(run->params.out);
    struct dirent *e;

    while (d && (e = readdir(d))) {
        char *path = is_unfinished(e->d_name) ? tr_path(run->params.out, e->d_name) : NULL;

        if (path && tr_remove_tree(path) < 0)
            run_log(run, "%s", tr_error_message());
        tr_free(TR_MEM_MISC, path);
    }
    if (d)
        closedir(d);
}

static int export_between(struct tr_run *run, const char *out)
{
    run_measure_engine(run);
    run_close_offload(run);
    if (run_export(run, out) < 0)
        run_log(run, "no snapshot was made: %s", tr_error_message());
    return run_open_offload(run);
}

/* A snapshot that fails, for want of space perhaps, is no reason to end a run of days. */
static int take_snapshot(struct tr_run *run)
{
    char *out = run_model_folder(run, 1);
    int r = out ? run_commit_rest(run) : -ENOMEM;

    if (r == 0 && run_check_snapshot(run) < 0)
        run_log(run, "no snapshot was made: %s", tr_error_message());
    else if (r == 0)
        r = export_between(run, out);
    tr_free(TR_MEM_MISC, out);
    return r;
}

/* By a file: a folder of that name is somebody's own. One that cannot be removed asks once. */
static int is_asked(const struct tr_run *run, const char *path)
{
    struct stat st;

    return !run->snapshot_stays && lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

int run_snapshot_if_asked(struct tr_run *run)
{
    char *path = tr_path(run->params.out, "checkpoint");
    int r = path ? 0 : -ENOMEM, asked = r == 0 && is_asked(run, path);

    if (asked)
        r = take_snapshot(run);
    if (asked && r == 0 && unlink(path) < 0 && errno != ENOENT) {
        run->snapshot_stays = 1;
        run_log(run, "%s: cannot remove, asks no more: %s", path, strerror(errno));
    }
    tr_free(TR_MEM_MISC, path);
    return r;
}

void run_note_torn(const struct tr_run *run)
{
    char text[1024];

    if (run_torn(run->params.out, run->store, run->cursor.step, text, sizeof(text)))
        run_log(run, "%s", text);
}

/* To the newest commit, or, where that is not whole any more, to the one before. */
static int go_back(struct tr_run *run, int whole)
{
    int r = whole ? 0 : tr_store_fall_back(run->store);

    if (r < 0 || (r = tr_cursor_read(run->store, &run->cursor)) < 0)
        return r;
    run->last = run->cursor;
    return metrics_rewind(&run->metrics, run->cursor.step);
}

int run_fall_back(struct tr_run *run)
{
    char damage[512];
    int r, whole;

    snprintf(damage, sizeof(damage), "%s", tr_error_message());
    run_close_offload(run);
    whole = tr_store_check_all(run->store) == 0;
    r = go_back(run, whole);
    if (r == -ENODATA || r == -EBADMSG)
        return tr_error(-EBADMSG, "%s; the step before is not whole any more either", damage);
    if (r < 0)
        return r;
    run_log(run, "%s", damage);
    run_log(run, "%s: %s is whole: goes on after step %llu", run->params.out,
            whole ? "all that the newest commit names" : "the step before",
            (unsigned long long)run->cursor.step);
    return run_open_offload(run);
}
