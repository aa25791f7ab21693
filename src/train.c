/* SPDX-License-Identifier: Apache-2.0
 *
 * The public face of a training run: step, finish, close, tables.
 */
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/export.h"
#include "src/open.h"

int tr_train_step(tr_run *run, struct tr_step_report *report)
{
    char remark[512];
    int r;

    if ((int64_t)run->cursor.step >= run->steps)
        return 0;
    r = run_step(run, report);
    run->trained |= r == 0;
    if (r == 0 && tr_offload_remark(run->offload, remark, sizeof(remark)))
        run_log(run, "%s", remark);
    return r < 0 ? r : 1;
}

/* The last commit, made durable: with less than step durability it may not have been started. */
static int commit_rest(struct tr_run *run)
{
    unsigned char payload[TR_CURSOR_BYTES];
    int r = tr_offload_commit_wait(run->offload);

    if (r < 0)
        return r;
    if (run->params.durability != TR_KEEP_STEP) {
        tr_cursor_pack(&run->cursor, payload);
        if ((r = tr_offload_commit(run->offload, payload, sizeof(payload))) < 0 ||
            (r = tr_offload_commit_wait(run->offload)) < 0)
            return r;
        metrics_commit_started(&run->metrics);
    }
    return metrics_commit_durable(&run->metrics);
}

/* RUN/model, or RUN/model-STEP where a run that was finished before has been taken further: what is
 * there is left as it is (invariant 7). */
static char *model_folder(const struct tr_run *run)
{
    char *out = tr_path(run->params.out, "model"), name[48];

    if (!out || !run->trained || tr_folder_is_empty(out) != 0)
        return out;
    tr_free(TR_MEM_MISC, out);
    snprintf(name, sizeof(name), "model-%llu", (unsigned long long)run->cursor.step);
    return tr_path(run->params.out, name);
}

static int export_model(struct tr_run *run)
{
    char *keep = tr_path(run->params.out, "source"), *out = model_folder(run);
    int r = keep && out ? 0 : -ENOMEM, there = r == 0 && tr_folder_is_empty(out) == 0;

    if (r == 0 && !there)
        r = tr_export(
            &(struct tr_export_params){.store = run->store, .keep = keep, .out = out, .dtype = -1});
    if (r == 0)
        run_log(run, "model     %s%s", out, there ? " (as it was)" : "");
    tr_free(TR_MEM_MISC, keep);
    tr_free(TR_MEM_MISC, out);
    return r;
}

int tr_train_finish(tr_run *run)
{
    int r = commit_rest(run);

    if (r == 0)
        r = run_record_choices(run);
    if (r < 0 || (int64_t)run->cursor.step < run->steps || run->params.export_model == TR_NO)
        return r;
    tr_offload_close(run->offload); /* the export reads the store by itself */
    run->offload = NULL;
    return export_model(run);
}

void tr_train_close(tr_run *run)
{
    if (!run)
        return;
    run_stop_machine(run);
    metrics_close(&run->metrics);
    tr_data_close(run->valid);
    tr_data_close(run->data);
    tr_tokenizer_close(run->tokenizer);
    tr_store_close(run->store);
    tr_import_close(run->import);
    tr_keep_close(run->kept);
    if (run->lock >= 0)
        close(run->lock);
    run_free_params(run);
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
