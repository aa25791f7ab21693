/* SPDX-License-Identifier: Apache-2.0
 *
 * `plan`: the options of a run resolved as training does it, without data, on this machine or on
 * one that only exists as figures; nothing is written. Then the same plan, the same visits and the
 * same prediction as of a run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/json.h"
#include "src/options/options.h"
#include "src/plan/counter.h"
#include "src/run/open.h"
#include "src/text/task.h"

#define MAX_TOKENS (INT32_MAX / 2)

_Static_assert(TR_MOST_DRIVES == TR_STORE_FOLDERS, "each drive has a folder of the store");

struct foretell {
    const struct tr_foretell_params *p;
    struct tr_run *run;
    struct tr_figures figures;
    struct tr_memory memory;
    int elsewhere; /* the figures are of a machine that is not this one */
    int timed;
    struct tr_batch batch;
    struct tr_prediction prediction;
};

/* A file has a slash, or is there. */
static int read_machine(struct foretell *f)
{
    const struct tr_foretell_params *p = f->p;
    struct tr_figures_changes changes = {
        .pcie = p->pcie, .drives = p->drives, .host_bytes = p->machine_memory};
    int changed = p->pcie > 0 || p->drive_read[0] > 0 || p->drive_write[0] > 0 || p->drives ||
                  p->machine_memory;

    memcpy(changes.drive_read, p->drive_read, sizeof(p->drive_read));
    memcpy(changes.drive_write, p->drive_write, sizeof(p->drive_write));
    if (p->machine_memory & TR_SHARE(0))
        return tr_error(-EINVAL, "--ram: is said in bytes, as there is no other to be a share of");
    if (p->machine && !strchr(p->machine, '/') && access(p->machine, F_OK) < 0) {
        f->elsewhere = f->timed = 1;
        return tr_figures_named(p->machine, &changes, &f->figures);
    }
    if (changed)
        return tr_error(-EINVAL, "--pcie, --ram, --drives, --drive-read and --drive-write: can be "
                                 "said of a machine by name only");
    if (!p->machine)
        return 0;
    f->elsewhere = f->timed = 1;
    return tr_figures_read(p->machine, &f->figures);
}

/* Elsewhere the store has a folder on each drive that there is. */
static int find_machine(struct foretell *f)
{
    int r = read_machine(f);

    if (r < 0 || !f->elsewhere)
        return r;
    f->figures.elsewhere = 1;
    run_all_drives(&f->figures);
    return 0;
}

static int check_lives(const struct foretell *f)
{
    const double *life = f->p->drive_life;
    uint32_t n = 0, drives = f->prediction.sim.n_drives;

    while (n < TR_MOST_DRIVES && life[n] > 0)
        n++;
    return n <= 1 || n == drives
               ? 0
               : tr_error(-EINVAL, "--drive-life: %u lives for %u drives", n, drives);
}

/* Elsewhere the device is one that counts. */
static int choose_device(struct foretell *f)
{
    struct tr_train_params *p = &f->run->params;
    struct tr_counter *counter;
    struct tr_device_info info;
    int r;

    if (!f->elsewhere)
        return run_open_device(f->run);
    if ((r = tr_counter_info(&f->figures, p->device_memory,
                             run_most_pinned(f->run, f->figures.host_bytes), &info)) < 0 ||
        (r = tr_counter_open(&counter, &f->figures, &info)) < 0)
        return r;
    f->run->device = &counter->device;
    f->run->device_info = info;
    return 0;
}

static struct tr_memory memory_of(const struct tr_figures *f)
{
    return (struct tr_memory){.device = f->device_bytes,
                              .host = f->host_bytes,
                              .device_share = TR_SHARE(90),
                              .most_device = f->device_bytes,
                              .most_host = f->host_bytes};
}

static int resolve(struct foretell *f)
{
    struct tr_run *run = f->run;
    struct tr_train_params *p = &run->params;
    int r;

    *p = *f->p->train;
    if ((r = tr_options_check(p)) < 0 || (r = tr_task_check(p->task, p->chat_template)) < 0 ||
        (r = run_check_source(p)) < 0)
        return r;
    if (!p->device)
        p->device = f->elsewhere ? "cpu" : tr_devices_default();
    if ((r = tr_devices_parse(p->device, &run->choice)) < 0)
        return r;
    if (f->elsewhere) {
        f->memory = memory_of(&f->figures);
        run->elsewhere = &f->memory;
        run->choice = (struct tr_device_choice){0}; /* none is opened */
        p->threads = f->figures.threads;
    }
    if ((r = run_open_source(run)) < 0 || (r = run_resolve(run)) < 0)
        return r;
    return choose_device(f);
}

static int64_t min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Full rows: no batch of data has more tokens, nor larger grains. */
static int place(struct foretell *f)
{
    struct tr_run *run = f->run;
    int64_t rows = run->params.batch_size, row = run->params.seq_len, n = rows * row;
    int64_t grain = run->device_info.grain_tokens;
    int r;

    if (n > MAX_TOKENS)
        return tr_error(-EINVAL, "%lld tokens a step are too many", (long long)n);
    if ((r = run_make_any_plan(run, (int32_t)n, (int32_t)min64(grain - 1 + row, n))) < 0 ||
        (r = run_place(run)) < 0)
        return r;
    return tr_predict_batch(rows, row, (int32_t)grain, &f->batch);
}

static int predict(struct foretell *f)
{
    const struct tr_figures *figures;
    int r;

    if (!f->elsewhere)
        f->timed = run_figures(f->run, &f->figures) == 0;
    figures = f->timed ? &f->figures : NULL;
    if ((r = run_choose(f->run, figures, &f->batch, 1)) == 0)
        r = run_predict(f->run, figures, &f->batch, &f->prediction);
    return r < 0 ? r : run_predict_limits(f->run, figures, &f->batch, &f->prediction);
}

/* ---- what is said ---- */

static void print_device(FILE *out, const struct foretell *f)
{
    const struct tr_run *run = f->run;
    struct tr_plan_row rows[TR_PLAN_ROWS];
    int n = tr_plan_table(&run->plan, rows);

    fputs("device memory\n", out);
    for (int i = 0; i < n; i++)
        fprintf(out, "  %-52s %14llu  %9.3f GB\n", rows[i].kind, (unsigned long long)rows[i].bytes,
                (double)rows[i].bytes * 1e-9);
    fprintf(out, "  %-52s %14llu  %9.3f GB\n", "the device itself",
            (unsigned long long)run->device_info.workspace_bytes,
            (double)run->device_info.workspace_bytes * 1e-9);
    fprintf(out, "  %-52s %14llu  %9.3f GB\n", "peak",
            (unsigned long long)f->prediction.device_bytes,
            (double)f->prediction.device_bytes * 1e-9);
}

static void print_passes(FILE *out, const struct tr_run *run)
{
    char clip[160];

    if (*run_clip_text(run, clip, sizeof(clip)))
        fprintf(out, "clip      %s\n", clip);
    if (*run_sweeps_text(run))
        fprintf(out, "sweeps    %s\n", run_sweeps_text(run));
}

static void print_text(FILE *out, const struct foretell *f)
{
    const struct tr_run *run = f->run;
    const struct tr_plan *p = &run->plan;

    fprintf(out,
            "model     %s, %.2f G parameters, %d layers, %s\n"
            "step      %lld rows of %lld tokens = %lld, in micro-batches of up to %d, %d of %d "
            "blocks keep activations\n",
            run->model->config.architecture, (double)run->model->n_params * 1e-9,
            run->model->config.layers, tr_dtype_name(run->model->dtype),
            (long long)run->params.batch_size, (long long)run->params.seq_len,
            (long long)f->prediction.tokens, p->micro_tokens, p->keep, run->model->config.layers);
    print_passes(out, run);
    print_device(out, f);
    tr_prediction_print(out, &f->prediction, f->p->drive_life);
    run_print_durability(out, run);
    if (!f->timed)
        fputs("no seconds: this device has not been measured; run `tailrace bench`, or name a "
              "machine\n",
              out);
}

static json_t *device_json(const struct foretell *f)
{
    json_t *list = tr_plan_table_json(&f->run->plan);

    tr_json_append(&list, json_pack("{s:s, s:I}", "kind", "the device itself", "bytes",
                                    (json_int_t)f->run->device_info.workspace_bytes));
    return list;
}

static int print_json(FILE *out, const struct foretell *f)
{
    const struct tr_run *run = f->run;
    json_t *predicted = tr_prediction_json(&f->prediction, f->p->drive_life), *o;
    char *text, clip[160];

    tr_json_add(&predicted, "durability", run_durability_json(run));
    o = json_pack("{s:s, s:I, s:i, s:s, s:I, s:I, s:i, s:i, s:i, s:s, s:s, s:o, s:o}",
                  "architecture", run->model->config.architecture, "parameters",
                  (json_int_t)run->model->n_params, "layers", (int)run->model->config.layers,
                  "dtype", tr_dtype_name(run->model->dtype), "batch_size",
                  (json_int_t)run->params.batch_size, "seq_len", (json_int_t)run->params.seq_len,
                  "micro_tokens", (int)run->plan.micro_tokens, "kept_blocks", (int)run->plan.keep,
                  "kept_on_device", (int)run->plan.slots[TR_SLOTS_FRAME], "clip",
                  run_clip_text(run, clip, sizeof(clip)), "sweeps", run_sweeps_text(run),
                  "device_memory", device_json(f), "predicted", predicted);
    text = o ? tr_json_text(o, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(o);
    if (!text)
        return tr_error(-ENOMEM, "out of memory");
    fprintf(out, "%s\n", text);
    free(text);
    return 0;
}

static int print(const struct foretell *f, char **out)
{
    size_t bytes;
    FILE *file = open_memstream(out, &bytes);
    int r = 0;

    if (!file)
        return tr_error(-ENOMEM, "out of memory");
    if (f->p->json)
        r = print_json(file, f);
    else
        print_text(file, f);
    if (fclose(file) != 0 && r == 0)
        r = tr_error(-ENOMEM, "out of memory");
    if (r < 0) {
        free(*out);
        *out = NULL;
    }
    return r;
}

static void close_run(struct foretell *f)
{
    struct tr_run *run = f->run;

    tr_predict_batch_free(&f->batch);
    run_stop_machine(run);
    tr_import_close(run->import);
    tr_free(TR_MEM_MISC, run);
}

int tr_foretell(const struct tr_foretell_params *params, char **out)
{
    struct foretell f = {.p = params, .run = tr_alloc(TR_MEM_MISC, sizeof(*f.run))};
    int r;

    *out = NULL;
    if (!f.run)
        return -ENOMEM;
    if (!params->train) {
        tr_free(TR_MEM_MISC, f.run);
        return tr_error(-EINVAL, "the options of the run are missing (train)");
    }
    f.run->lock = -1;
    tr_mem_restart_peaks();
    if ((r = find_machine(&f)) == 0 && (r = resolve(&f)) == 0 && (r = place(&f)) == 0 &&
        (r = predict(&f)) == 0 && (r = check_lives(&f)) == 0)
        r = print(&f, out);
    close_run(&f);
    return r;
}
