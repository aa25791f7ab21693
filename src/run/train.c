/* SPDX-License-Identifier: Apache-2.0
 *
 * The public face of a training run: step, finish, close, tables.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/infer/task_set.h"
#include "src/options/options.h"
#include "src/run/open.h"
#include "src/run/range.h"

/* After an error parameters may be half updated and the cursor ahead of them: nothing of that is to
 * be committed or exported, by whatever is called next. What is committed is whole, and opening the
 * run anew goes on from there. */
static int fail(struct tr_run *run, int code)
{
    run->failed = code;
    snprintf(run->failure, sizeof(run->failure), "%s", tr_error_message());
    return code;
}

static int failed_before(const struct tr_run *run)
{
    return run->failed ? tr_error(run->failed, "%s", run->failure) : 0;
}

/* What the device says of itself only now: the first step has pinned the homes. */
static void note_device(struct tr_run *run)
{
    char before[sizeof(run->device_info.remark)];

    memcpy(before, run->device_info.remark, sizeof(before));
    run->device->ops->info(run->device, &run->device_info);
    if (strcmp(before, run->device_info.remark))
        run_log(run, "%s", run->device_info.remark);
}

/* Damage that the first step of this process meets is older than the process, and while nothing
 * has been written yet, the commit before may still be whole. */
static int step(struct tr_run *run, struct tr_step_report *report)
{
    char remark[512];
    int r;

    if (run->params.lr == TR_REAL_AUTO && (r = run_find_rate(run)) < 0)
        return r;
    r = run_step(run, report);
    if (r == -EBADMSG && !run->trained && (r = run_fall_back(run)) == 0)
        r = run_step(run, report);
    if (r < 0)
        return r;
    if (!run->trained)
        note_device(run);
    run->trained = 1;
    if (tr_offload_remark(run->offload, remark, sizeof(remark)))
        run_log(run, "%s", remark);
    run_measure_step(run, report);
    return run_snapshot_if_asked(run);
}

int tr_train_step(tr_run *run, struct tr_step_report *report)
{
    int r = failed_before(run);

    if (r < 0 || (int64_t)run->cursor.step >= run->steps)
        return r;
    r = step(run, report);
    if (r == -EINTR) /* the range test: the run stands where it stood */
        return r;
    return r < 0 ? fail(run, r) : 1;
}

/* Steps, skipped ones too, and parameters that no commit has. */
static int has_news(const struct tr_run *run)
{
    return run->step.since_commit != RUN_NOTHING || run->cursor.step != run->last.step ||
           run->cursor.pending.is != run->last.pending.is;
}

/* The last commit, made durable: with less than step durability it may not have been started, and
 * one that left an update to the next step is followed by one of the finished parameters. One
 * without news would take the place of the commit before, and with it the way back. */
int run_commit_rest(struct tr_run *run)
{
    int r = run_settle(run);

    if (r < 0 || (r = run_commit_wait(run)) < 0 || !has_news(run))
        return r;
    r = run_commit(run);
    return r < 0 ? r : run_commit_wait(run);
}

/* RUN/model, or RUN/model-STEP where a run that was finished before has been taken further: what is
 * there is left as it is (invariant 7). Of which step RUN/model is stands in plan.json before it is
 * there, so that no kill leaves a model of an unknown step. */
static int last_model_folder(struct tr_run *run, char **out)
{
    int64_t step = (int64_t)run->cursor.step;
    int there, r = 0;

    *out = run_model_folder(run, 0);
    if (!*out)
        return -ENOMEM;
    there = tr_folder_is_empty(*out) == 0;
    if (there && (run->trained || tr_plan_model_is_other(run->params.out, run->model_step, step))) {
        tr_free(TR_MEM_MISC, *out);
        *out = run_model_folder(run, 1);
    } else if (!there && run->model_step != step) {
        run->model_step = step;
        r = run_write_plan(run);
    }
    return *out ? r : -ENOMEM;
}

/* All is durable then, and measured. Without the engine it has been done: that is closed for the
 * export, and for nothing else that is not followed by an error. */
static int end_training(struct tr_run *run)
{
    int r;

    if (!run->offload)
        return 0;
    if ((r = run_commit_rest(run)) < 0)
        return fail(run, r);
    r = run_record_choices(run);
    if (r == 0)
        r = run_record_times(run);
    return r < 0 ? r : run_measure_end(run);
}

static int export_last(struct tr_run *run)
{
    char *out;
    int r;

    run_close_offload(run); /* the export reads the store by itself */
    r = last_model_folder(run, &out);
    if (r == 0)
        r = run_export(run, out);
    run->exported = r == 0;
    tr_free(TR_MEM_MISC, out);
    return r;
}

int tr_train_finish(tr_run *run)
{
    int r = failed_before(run);

    if (r < 0 || (r = end_training(run)) < 0)
        return r;
    if ((int64_t)run->cursor.step < run->steps || run->params.export_model == TR_NO ||
        run->exported)
        return 0;
    return export_last(run);
}

void tr_train_close(tr_run *run)
{
    if (!run)
        return;
    if (run->offload) /* which waits for the commit under way, if there is no error */
        run_commit_wait(run);
    run_stop_machine(run);
    metrics_close(&run->metrics);
    task_set_close(run->questions);
    tr_data_close(run->valid);
    tr_data_close(run->data);
    tr_tokenizer_close(run->tokenizer);
    tr_store_close(run->store);
    tr_import_close(run->import);
    tr_keep_close(run->kept);
    if (run->lock >= 0)
        close(run->lock);
    run_free_params(run);
    tr_free(TR_MEM_MISC, run->measured.text);
    tr_free(TR_MEM_MISC, run->summary);
    tr_free(TR_MEM_MISC, run);
}

int tr_train_memory(const tr_run *run, struct tr_memory_row *rows, int n)
{
    struct tr_plan_row *table = ((struct tr_run *)run)->rows;
    int count = tr_plan_table(&run->plan, table);

    for (int i = 0; i < count && i < n; i++)
        rows[i] = (struct tr_memory_row){table[i].kind, table[i].bytes};
    if (count < n) /* the device's own */
        rows[count] = (struct tr_memory_row){"workspace", run->device_info.workspace_bytes};
    return count + 1;
}

const char *tr_train_summary(const tr_run *run)
{
    return run->summary ? run->summary : "";
}

void tr_train_moved(const tr_run *run, uint64_t *read, uint64_t *written)
{
    *read = run->measured.moved.read;
    *written = run->measured.moved.written;
}

const char *tr_train_outcome(const tr_run *run)
{
    return run->measured.text ? run->measured.text : "";
}
