/* SPDX-License-Identifier: Apache-2.0
 *
 * The finished parameters of a run that was cut off between a step and its update
 * (src/train/pending.c). Whoever wants to read them finds the store as the last commit has it; so
 * the update is made first, by the run's own pass of updates on the cpu, whose updates have the
 * same bits as any device's, and committed. For that the store is locked for a moment and written;
 * a run that ended by itself has no such update left, and is only read.
 */
#include <string.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/thread.h"
#include "src/options/options.h"
#include "src/run/find.h"
#include "src/run/open.h"

static int is_pending(const char *folder, const char *store)
{
    struct tr_cursor cursor;
    struct tr_store *s;
    int r = run_store_open(folder, store, TR_STORE_READ, &s);

    if (r < 0)
        return r;
    r = tr_cursor_read(s, &cursor);
    tr_store_close(s);
    return r < 0 ? r : (int)cursor.pending.is;
}

/* The options of the run are those of its update; the budgets are this machine's. */
static int read_options(struct tr_run *run, const char *folder)
{
    char *yaml = tr_path(folder, "run.yaml");
    int r = yaml ? tr_run_file_read(yaml, &run->params) : -ENOMEM;

    tr_free(TR_MEM_MISC, yaml);
    run->params.device_memory = run->params.host_memory = 0;
    if (r < 0 || (r = tr_devices_parse("cpu", &run->choice)) < 0)
        return r;
    run->params.threads = tr_thread_cores();
    return run_resolve_memory(run);
}

static int open_machine(struct tr_run *run)
{
    int r = run_open_device(run);

    if (r < 0)
        return r;
    r = tr_plan_make(
        &run->plan, &(struct tr_plan_params){.model = run->model,
                                             .batch_tokens = 1,
                                             .grain_tokens = 1,
                                             .positions = 1,
                                             .compute = run->device_info.compute[run->model->dtype],
                                             .train = 1,
                                             .norm = 1,
                                             .frames = TR_FRAMES_FIRST,
                                             .budget = run->device_info.arena_bytes,
                                             .workspace = run->device_info.workspace_bytes});
    if (r < 0 || (r = run_place(run)) < 0)
        return r;
    return run_start_machine(run);
}

static int settle(struct tr_run *run, const char *folder, const char *store)
{
    int r = run_store_open(folder, store, TR_STORE_WRITE, &run->store);

    if (r < 0 || (r = run_keep_open(folder, run->store, &run->kept)) < 0)
        return r;
    run->model = run->kept->model;
    if ((r = tr_cursor_read(run->store, &run->cursor)) < 0 || (r = read_options(run, folder)) < 0 ||
        (r = open_machine(run)) < 0 || (r = run_settle(run)) < 0 || (r = run_commit(run)) < 0)
        return r;
    return run_commit_wait(run);
}

int run_settle_folder(const char *folder, const char *store)
{
    int r = is_pending(folder, store);
    struct tr_run *run;

    if (r <= 0)
        return r;
    run = tr_alloc(TR_MEM_MISC, sizeof(*run));
    if (!run)
        return -ENOMEM;
    run->lock = -1;
    r = settle(run, folder, store);
    run_stop_machine(run);
    tr_store_close(run->store);
    tr_keep_close(run->kept);
    tr_options_free(&run->params);
    tr_free(TR_MEM_MISC, run);
    return r < 0 ? tr_error_prefix(r, "%s: its last step is not applied yet", folder) : 0;
}
