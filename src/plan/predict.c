/* SPDX-License-Identifier: Apache-2.0 */
#include "src/plan/predict.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "src/base/mem.h"
#include "src/plan/play.h"
#include "src/run/run.h"

/* Where every span has a home the engine needs no other memory on the way. */
static int all_at_home(const struct tr_run *run)
{
    uint32_t n = 0;

    while (n < run->n_spans && run->in_host[n])
        n++;
    return n == run->n_spans;
}

static uint64_t parked_bytes(const struct tr_layout *l)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < l->n_spans; i++)
        bytes += l->spans[i].pool >= TR_SLOTS_BLOCK_PARKED && l->spans[i].pool < TR_SLOTS_ADAPTER
                     ? l->spans[i].bytes
                     : 0;
    return bytes;
}

static void fill_memory(const struct tr_run *run, struct tr_prediction *out)
{
    uint64_t generations = run_generations(run);

    out->device_bytes = run->plan.peak + run->device_info.workspace_bytes;
    out->staging_bytes = all_at_home(run) ? 0 : run->staging_bytes;
    out->tier_bytes = run->tier_bytes;
    out->apart = run->plan.in.apart;
    out->apart_bytes = run->plan.host_bytes;
    out->least_host = run_least_host(run);
    out->buffer_bytes = run_buffer_bytes(run);
    out->disk_bytes = generations * tr_layout_bytes(&run->model->layout) + run->spill_bytes;
    out->parked_disk_bytes = generations * parked_bytes(&run->model->layout);
    out->spill_disk_bytes = run->spill_bytes;
    out->spill_host_bytes = run->spill_host_bytes;
}

#define AFTER_COMMIT 2 /* steps */

/* The steps behind those that are played anyway, with a commit before them and without. */
static int play_commit(const struct play *y, struct tr_prediction *out)
{
    struct tr_sim_params p = y->p;
    struct tr_sim_result without, with;
    double first;
    int r;

    if (p.durability != TR_DURABLE_CHECKPOINT || !out->timed)
        return 0;
    p.steps = TR_PREDICT_STEPS + AFTER_COMMIT;
    p.most = 0;
    if ((r = tr_simulate(&p, &without)) < 0)
        return r;
    p.commit_after = TR_PREDICT_STEPS;
    if ((r = tr_simulate(&p, &with)) < 0)
        return r;
    first = with.step_seconds[TR_PREDICT_STEPS] - without.step_seconds[TR_PREDICT_STEPS];
    out->after_commit = out->sim.seconds + first;
    for (uint32_t i = TR_PREDICT_STEPS; i < p.steps; i++)
        out->commit_extra += with.step_seconds[i] - without.step_seconds[i];
    return 0;
}

/* Of a long path the end, which tells more, from a whole character on: half of one is no JSON. */
static const char *end_of(const char *path, size_t room)
{
    size_t n = strlen(path);

    if (n > room)
        path += n - room;
    while ((*path & 0xc0) == 0x80)
        path++;
    return path;
}

static void name_drives(const struct tr_figures *f, struct tr_prediction *out)
{
    for (uint32_t i = 0; f && i < f->n_drives; i++)
        strcpy(out->drive[i], end_of(f->drive[i].folder, sizeof(out->drive[i]) - 1));
    if (!f)
        return;
    out->strangers = f->strangers;
    out->n_folders = f->n_folders;
    memcpy(out->drive_of, f->drive_of, sizeof(out->drive_of));
}

int run_predict(struct tr_run *run, const struct tr_figures *figures, const struct tr_batch *batch,
                struct tr_prediction *out)
{
    struct play y;
    int r;

    memset(out, 0, sizeof(*out));
    run_set_update(run);
    fill_memory(run, out);
    out->timed = figures != NULL;
    out->tokens = batch->n_tokens;
    out->commit_every = run->params.durability == TR_KEEP_STEP ? 1
                        : run->params.durability == TR_KEEP_CHECKPOINT
                            ? run->params.checkpoint_every
                            : 0;
    snprintf(out->machine, sizeof(out->machine), "%s", figures ? figures->name : "");
    r = play_open(&y, run, figures, batch);
    y.p.steps = TR_PREDICT_STEPS;
    y.p.most = figures ? TR_SIM_STEPS : 0;
    if (r == 0)
        r = tr_simulate(&y.p, &out->sim);
    if (r == 0)
        r = play_commit(&y, out);
    if (r == 0)
        r = run_predict_settle(run, y.pools, out->settle);
    for (uint32_t i = 0; r == 0 && i < y.p.n; i++)
        out->arithmetic += y.seconds[i];
    name_drives(figures, out);
    tr_prediction_name_limit(out);
    play_close(&y);
    return r;
}

static uint64_t read_in(uint64_t first, uint64_t last, uint64_t total, int64_t steps)
{
    if (steps <= 1)
        return steps == 1 ? first : 0;
    return steps < TR_PREDICT_STEPS ? total - last
                                    : total + (uint64_t)(steps - TR_PREDICT_STEPS) * last;
}

uint64_t tr_prediction_read(const struct tr_prediction *p, int64_t steps)
{
    const struct tr_sim_result *s = &p->sim;

    return read_in(s->first_read_bytes, s->read_bytes, s->total_read_bytes, steps);
}

static uint64_t written_in(const uint64_t written[TR_SIM_STEPS], uint64_t last, int64_t steps)
{
    uint64_t bytes = 0;

    for (int64_t k = 0; k < TR_PREDICT_STEPS && k < steps; k++)
        bytes += written[k];
    if (steps > TR_PREDICT_STEPS)
        bytes += (uint64_t)(steps - TR_PREDICT_STEPS) * last;
    return bytes;
}

uint64_t tr_prediction_written(const struct tr_prediction *p, int64_t steps)
{
    return written_in(p->sim.written, p->sim.written_bytes, steps);
}

struct tr_drive_bytes tr_prediction_drive(const struct tr_prediction *p, uint32_t drive,
                                          int64_t steps)
{
    const struct tr_sim_drive *d = &p->sim.drive[drive];

    return (struct tr_drive_bytes){
        read_in(d->first_read_bytes, d->read_bytes, d->total_read_bytes, steps),
        written_in(d->written, d->written_bytes, steps)};
}

/* The step (from 1) that was played, or the last one, which stands for all behind it: from 0. */
static int64_t played(int64_t step)
{
    if (step < 1)
        return 0;
    return (step < TR_PREDICT_STEPS ? step : TR_PREDICT_STEPS) - 1;
}

uint64_t tr_prediction_kept(const struct tr_prediction *p, int64_t step)
{
    return p->sim.kept[played(step)];
}

const struct tr_settle_bytes *tr_prediction_settle(const struct tr_prediction *p, int64_t steps)
{
    return &p->settle[played(steps)];
}

double tr_prediction_seconds(const struct tr_prediction *p)
{
    double extra = p->commit_every ? p->commit_extra / (double)p->commit_every : 0;

    return p->sim.seconds + extra;
}

double tr_prediction_drive_wear(const struct tr_prediction *p, uint32_t drive)
{
    const struct tr_sim_drive *d = &p->sim.drive[drive];

    return (double)d->written_bytes +
           (p->commit_every ? (double)d->kept_bytes / (double)p->commit_every : 0);
}

double tr_prediction_life(const struct tr_prediction *p, const double life[TR_STORE_FOLDERS])
{
    double least = 0;

    for (uint32_t d = 0; life && d < p->sim.n_drives; d++) {
        double wear = tr_prediction_drive_wear(p, d);
        double steps = wear > 0 ? life[life[1] > 0 ? d : 0] / wear : 0;

        if (steps > 0 && (!(least > 0) || steps < least))
            least = steps;
    }
    return least;
}

/* ---- a batch without data ---- */

static void fill_batch(struct tr_batch *b, int32_t *at, float *weight, int64_t row_tokens,
                       int32_t grain_tokens)
{
    int32_t *grain = at, *row = grain + b->n_rows + 1;
    int32_t *ids = row + b->n_rows + 1;

    for (int32_t i = 0; i < b->n_rows; i++) {
        row[i + 1] = row[i] + (int32_t)row_tokens;
        if (row[i + 1] - grain[b->n_grains] >= grain_tokens)
            grain[++b->n_grains] = row[i + 1];
    }
    if (grain[b->n_grains] < b->n_tokens)
        grain[++b->n_grains] = b->n_tokens;
    b->grain_start = grain;
    b->row_start = b->doc_start = row;
    b->ids = b->targets = b->position = ids; /* zeros, which are never looked at */
    b->weight = weight;
    b->weight_sum = 1;
}

int tr_predict_batch(int64_t rows, int64_t row_tokens, int32_t grain_tokens, struct tr_batch *batch)
{
    size_t n = (size_t)(rows * row_tokens);
    int32_t *at = tr_alloc_array(TR_MEM_BATCH, 2 * (size_t)rows + 2 + n, sizeof(*at));
    float *weight = tr_alloc_array(TR_MEM_BATCH, n, sizeof(*weight));

    memset(batch, 0, sizeof(*batch));
    if (!at || !weight) {
        tr_free(TR_MEM_BATCH, at);
        tr_free(TR_MEM_BATCH, weight);
        return -ENOMEM;
    }
    batch->n_tokens = (int32_t)n;
    batch->n_rows = batch->n_docs = (int32_t)rows;
    fill_batch(batch, at, weight, row_tokens, grain_tokens);
    return 0;
}

void tr_predict_batch_free(struct tr_batch *batch)
{
    tr_free(TR_MEM_BATCH, (void *)batch->grain_start);
    tr_free(TR_MEM_BATCH, (void *)batch->weight);
}
