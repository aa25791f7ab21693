/* SPDX-License-Identifier: Apache-2.0
 *
 * The run folder: run.yaml (options, resolved), plan.json (which store, what the plan placed
 * where).
 */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/err.h"
#include "src/base/file.h"
#include "src/base/json.h"
#include "src/base/pages.h"
#include "src/options/options.h"
#include "src/run/open.h"

void run_log(const struct tr_run *run, const char *fmt, ...)
{
    char line[1024];
    va_list ap;

    if (!run->params.log)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    run->params.log(run->params.log_arg, line);
}

/* Budgets as they were asked for: what a share is in bytes is another machine's business, if the
 * run goes on there, or this one's of today. They decide no bits. */
int run_write_options(const struct tr_run *run)
{
    struct tr_train_params p = run->params;
    char *path = tr_path(run->params.out, "run.yaml");
    int r;

    p.device_memory = run->device_asked;
    p.host_memory = run->host_asked;
    r = path ? tr_options_write(path, &p) : -ENOMEM;
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* Forced, a run may go on with other data, batches or rates; what its store holds stays. */
static int check_same(const struct tr_run *run, const struct tr_train_params *before)
{
    char text[512];
    const struct tr_option_names names = {text, sizeof(text)};
    int forced = run->params.force;

    if (forced && tr_options_compare(before, &run->params, TR_OPTION_STORED, &names) > 0)
        return tr_error(-EINVAL, "%s: the store was made with other settings (%s differ)",
                        run->params.out, text);
    if (tr_options_compare(before, &run->params, TR_OPTION_FIXED, &names) == 0)
        return 0;
    if (!forced)
        return tr_error(-EINVAL,
                        "%s: is a run with other settings (%s differ); give the same, or another "
                        "--out, or --force",
                        run->params.out, text);
    run_log(run, "%s: goes on with other settings than before (%s)", run->params.out, text);
    return 0;
}

static void hash_text(const struct tr_run *run, char text[24])
{
    snprintf(text, 24, "%016llx", (unsigned long long)run->data_hash);
}

/* The options name the data by its path alone. It is held against the tokens that the run has been
 * learning, so another tokenizer or template in the old one's place is seen as well. */
static int check_same_data(const struct tr_run *run)
{
    const char *out = run->params.out, *data = run->params.data;
    struct tr_plan_file plan;
    char now[24];

    hash_text(run, now);
    if (tr_plan_file_read(out, &plan) < 0 || !plan.data_hash[0] || !strcmp(plan.data_hash, now))
        return 0;
    if (!run->params.force)
        return tr_error(-EINVAL,
                        "%s: is a run with other data: %s, or the tokenizer or template that it is "
                        "read with, has changed; bring back the old, or give another --out, or "
                        "--force",
                        out, data);
    run_log(run, "%s: goes on with other data than before: %s has changed", out, data);
    return 0;
}

int run_check_options(struct tr_run *run)
{
    char *path = tr_path(run->params.out, "run.yaml");
    struct tr_train_params before = {0};
    int r = path ? tr_run_file_check(path) : -ENOMEM;

    if (r == -EBADMSG && run->params.force) {
        run_log(run, "%s", tr_error_message());
        r = 0;
    }
    if (r == 0)
        r = tr_options_read(path, &before);
    if (r == 0 && run->params.lr == TR_REAL_AUTO) /* it has been found, or is still to be */
        run->params.lr = before.lr;
    if (before.lr == TR_REAL_AUTO) /* none was found: no step has been done at any */
        before.lr = run->params.lr;
    if (before.clip_method == TR_CLIP_AUTO && before.clip_norm > 0) /* from before it was asked */
        before.clip_method = TR_CLIP_TWO_PASS;
    if (r == 0)
        r = check_same(run, &before);
    if (r == 0)
        r = check_same_data(run);
    tr_options_free(&before);
    tr_free(TR_MEM_MISC, path);
    return r;
}

static json_t *plan_json(const struct tr_run *run)
{
    const struct tr_plan *p = &run->plan;
    json_t *predicted = tr_prediction_json(&run->foreseen, NULL);
    char hash[24];

    hash_text(run, hash);
    tr_json_add(&predicted, "durability", run_durability_json(run));
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:i, s:s, s:i, s:i, s:I, s:I, s:o, s:o}",
        "store_uuid", tr_store_uuid(run->store), "device", run->device_info.name, "bits",
        run->device_info.bits, "data_hash", hash, "device_bytes",
        (json_int_t)(p->peak + run->device_info.workspace_bytes), "steps", (json_int_t)run->steps,
        "model_step", (json_int_t)run->model_step, "micro_tokens", (int)p->micro_tokens,
        "kept_blocks", (int)p->keep, "kept_on_device", (int)p->slots[TR_SLOTS_FRAME], "streaming",
        p->by_parts ? "matrices" : "blocks", "block_slots", (int)p->slots[TR_SLOTS_BLOCK],
        "block_input_slots", (int)p->slots[TR_SLOTS_BOUNDARY], "spill_host_bytes",
        (json_int_t)run->spill_host_bytes, "spill_disk_bytes", (json_int_t)run->spill_bytes,
        "memory", tr_plan_table_json(p), "predicted", predicted);
}

int run_write_plan(const struct tr_run *run)
{
    char *path = tr_path(run->params.out, "plan.json");
    json_t *json = plan_json(run);
    int r = path && json ? tr_json_write(path, json) : tr_error(-ENOMEM, "out of memory");

    json_decref(json);
    tr_free(TR_MEM_MISC, path);
    return r;
}

/* What is in RUN/model when a run goes on is of no step that is still to come: a record that says
 * so, or none, is of a run that has gone back, or is older than the record. */
void run_recall(struct tr_run *run)
{
    int64_t step = (int64_t)run->cursor.step;
    struct tr_plan_file plan;
    char *out = run_model_folder(run, 0);

    if (tr_plan_file_read(run->params.out, &plan) == 0)
        run->model_step = plan.model_step;
    if (out && step < run->steps && tr_folder_is_empty(out) == 0 &&
        (run->model_step < 0 || run->model_step > step))
        run->model_step = step;
    tr_free(TR_MEM_MISC, out);
}

/* Invariant 1 holds on one tier and BLAS, or one GPU model and library; a run that goes on
 * elsewhere is told. */
void run_note_bits(const struct tr_run *run)
{
    struct tr_plan_file plan;
    int r = tr_plan_file_read(run->params.out, &plan);

    if (r == -EINVAL)
        run_log(run, "%s; it is made anew, for the store %s", tr_error_message(),
                run->params.store);
    if (r == 0 && plan.bits[0] && strcmp(plan.bits, run->device_info.bits))
        run_log(run, "%s: was computed by %s so far, now by %s: the bits may differ",
                run->params.out, plan.bits, run->device_info.bits);
}

void run_unmake(struct tr_run *run, int folder)
{
    char *kept = tr_strdup(TR_MEM_MISC, tr_error_message());
    char *path = tr_path(run->params.out, "run.yaml");

    if (path)
        unlink(path);
    tr_free(TR_MEM_MISC, path);
    if (folder)
        rmdir(run->params.out);
    if (kept) /* the reason of the failure, not of the tidying */
        tr_error(-EIO, "%s", kept);
    tr_free(TR_MEM_MISC, kept);
}

void run_note_places(const struct tr_run *run)
{
    const char *line = tr_store_remark(run->store);
    char memory[512];

    for (size_t n; *line; line += n + (line[n] == '\n')) {
        n = strcspn(line, "\n");
        run_log(run, "%.*s", (int)n, line);
    }
    tr_pages_remark(memory, sizeof(memory));
    if (*memory)
        run_log(run, "host memory: %s", memory);
    if (run->device_info.host_visible && *run->device_info.remark)
        run_log(run, "device: %s", run->device_info.remark);
}

/* Empty where all block inputs and activations stay on the device. */
static void spill_text(const struct tr_run *run, char *text, size_t room)
{
    const struct tr_plan *p = &run->plan;

    if (!run->spill_bytes && !run->spill_host_bytes)
        return;
    snprintf(text, room,
             "spill: of %u block inputs of %.1f MiB and activations of %d blocks of %.1f MiB, "
             "%.1f MiB spill to pinned memory, %.1f to disk\n",
             tr_plan_boundaries(p), (double)p->slot_bytes[TR_SLOTS_BOUNDARY] / 1048576, p->keep,
             (double)p->slot_bytes[TR_SLOTS_FRAME] / 1048576,
             (double)run->spill_host_bytes / 1048576, (double)run->spill_bytes / 1048576);
}

static void update_text(const struct tr_run *run, char *text, size_t room)
{
    if (run->plan.in.apart)
        snprintf(text, room,
                 "update: on the cpu, with %.1f MiB of pinned memory for state, gradients and "
                 "weights\n",
                 (double)run->plan.host_bytes / 1048576);
}

static void clip_text(const struct tr_run *run, char *text, size_t room)
{
    char how[160];

    if (*run_clip_text(run, how, sizeof(how)))
        snprintf(text, room, "clip: %s\n", how);
}

static void durability_text(const struct tr_run *run, char *text, size_t room)
{
    char why[256];

    if (run->durability_auto)
        snprintf(text, room, "durable: %s\n", run_durability_text(run, why, sizeof(why)));
}

void run_make_summary(struct tr_run *run)
{
    const struct tr_plan *p = &run->plan;
    const struct tr_model *m = run->model;
    char text[2560], host[384] = "", spill[192] = "", clip[192] = "", update[128] = "",
                     frozen[64] = "", durable[288] = "", foreseen[256];

    run->device->ops->info(run->device, &run->device_info); /* its remark may have come by now */
    if (!run->device_info.host_visible)
        snprintf(host, sizeof(host),
                 "host: %.1f of %.1f MiB stay in pinned memory, %.1f MiB of staging buffers%s%s\n",
                 (double)run->tier_bytes / 1048576, (double)tr_layout_bytes(&m->layout) / 1048576,
                 (double)run->staging_bytes / 1048576, *run->device_info.remark ? "; " : "",
                 run->device_info.remark);
    spill_text(run, spill, sizeof(spill));
    if (m->lora.rank)
        snprintf(frozen, sizeof(frozen), ", %.3f M %s train", (double)m->n_trained / 1e6,
                 m->lora.trains_base ? "with adapters" : "of adapters");
    else if (m->n_trained < m->n_params)
        snprintf(frozen, sizeof(frozen), ", of which %.1f M train", (double)m->n_trained / 1e6);
    clip_text(run, clip, sizeof(clip));
    update_text(run, update, sizeof(update));
    durability_text(run, durable, sizeof(durable));
    snprintf(
        text, sizeof(text),
        "model: %s, %.1f M parameters%s, %d layers, %s\n"
        "device: %s, %.1f of %.1f MiB\n"
        "%sdisk: %s, %.1f MiB a generation\n"
        "%sstep: up to %d tokens in micro-batches of up to %d, %d of %d blocks keep activations\n"
        "%s%s%ssteps: %lld of %lld done\n%s",
        m->config.architecture, (double)m->n_params / 1e6, frozen, m->config.layers,
        tr_dtype_name(m->dtype), run->device_info.name,
        (double)(p->peak + run->device_info.workspace_bytes) / 1048576,
        (double)run->params.device_memory / 1048576, host, tr_offload_io_name(run->offload),
        (double)tr_layout_bytes(&m->layout) / 1048576, spill, p->in.batch_tokens, p->micro_tokens,
        p->keep, m->config.layers, clip, update, durable, (long long)run->cursor.step,
        (long long)run->steps, tr_prediction_line(&run->foreseen, foreseen, sizeof(foreseen)));
    tr_free(TR_MEM_MISC, run->summary);
    run->summary = tr_strdup(TR_MEM_MISC, text);
}
