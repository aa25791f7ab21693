/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine of a run: device, offload engine, and what the pass needs beside the plan. Opened
 * when store, model table and plan stand; closed in reverse order.
 */
#include "src/run/run.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "src/base/pages.h"
#include "src/base/sysmem.h"

static int is_all_f32(const struct tr_model *m)
{
    int all = 1;

    for (int32_t i = 0; i < m->n_tensors; i++)
        all &= m->tensors[i].dtype == TR_F32;
    return all;
}

static int place_pages(const struct tr_run *run)
{
    struct tr_folders f = {.n = 0};
    int r = run->params.store ? tr_folders_parse(&f, run->params.store) : 0;

    if (r == 0)
        tr_pages_place(run->choice.cuda, f.path[0]);
    tr_folders_free(&f);
    return r;
}

int run_open_device(struct tr_run *run)
{
    int r = place_pages(run);

    if (r < 0)
        return r;
    r = tr_devices_open(
        &run->device, &run->choice,
        &(struct tr_device_params){.memory_bytes = run->params.device_memory,
                                   .host_bytes = run_most_pinned(run, tr_installed_memory()),
                                   .threads = (int)run->params.threads,
                                   .f32_only = is_all_f32(run->model),
                                   .delay_seed = run->params.delay_seed});
    if (r < 0)
        return r;
    run->device->ops->info(run->device, &run->device_info);
    return 0;
}

uint64_t run_rope_bytes(const struct tr_run *run)
{
    return (uint64_t)run->plan.in.positions * (uint64_t)run->model->config.head_dim * sizeof(float);
}

static int copy_rope_tables(struct tr_run *run)
{
    const struct tr_plan *plan = &run->plan;
    int64_t n = plan->in.positions, half = run->model->config.head_dim / 2;
    float *cos = tr_alloc_array(TR_MEM_BATCH, (size_t)n, 2 * (size_t)half * sizeof(float));
    float *sin = cos + n * half;
    char *arena = run->pass.arena;
    size_t bytes = (size_t)(n * half) * sizeof(float);
    int r;

    if (!cos)
        return -ENOMEM;
    if ((r = tr_rope_tables(&run->model->config, n, cos, sin)) == 0 &&
        (r = run->device->ops->copy_in(run->device, TR_STREAM_COMPUTE, arena + plan->cos.offset,
                                       cos, bytes)) == 0 &&
        (r = run->device->ops->copy_in(run->device, TR_STREAM_COMPUTE, arena + plan->sin.offset,
                                       sin, bytes)) == 0)
        r = run->device->ops->sync(run->device, TR_STREAM_COMPUTE);
    tr_free(TR_MEM_BATCH, cos);
    return r;
}

static int hash_names(struct tr_run *run)
{
    uint32_t *names = tr_alloc_array(TR_MEM_MISC, (size_t)run->model->n_tensors, sizeof(*names));

    if (!names)
        return -ENOMEM;
    for (int32_t i = 0; i < run->model->n_tensors; i++) {
        const char *name = run->model->tensors[i].name;

        names[i] = (uint32_t)XXH3_64bits(name, strlen(name));
    }
    run->pass.update.names = names;
    if (!run->model->lora.trains_base)
        return 0;
    run->pass.adapter.measured = tr_alloc(TR_MEM_MISC, run->plan.sumsq.bytes / 8 + 1);
    return run->pass.adapter.measured ? 0 : -ENOMEM;
}

void run_set_update(struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    struct tr_update *u = &run->pass.update;

    u->optimizer = p->optimizer;
    u->weight_decay = (float)p->weight_decay;
    u->clip_value = (float)p->clip_value;
    u->beta1 = p->optimizer == TR_OPT_SGD ? p->momentum : p->beta1;
    u->beta2 = p->beta2;
    u->eps = (float)p->eps;
    u->rounding = p->rounding == TR_ROUNDING_STOCHASTIC ? TR_ROUND_STOCHASTIC : TR_ROUND_NEAREST;
    u->seed = (uint32_t)p->seed;
    run->pass.adapter.is = run->model->lora.trains_base;
    run->pass.adapter.optimizer = p->lora_optimizer;
    run->pass.adapter.beta1 = p->lora_optimizer == TR_OPT_SGD ? p->momentum : p->beta1;
    run->pass.drop = p->lora_dropout > 0 ? (float)p->lora_dropout : 0;
}

int run_open_offload(struct tr_run *run)
{
    static const enum tr_io_kind io[] = {[TR_ENGINE_AUTO] = TR_IO_AUTO,
                                         [TR_ENGINE_URING] = TR_IO_URING,
                                         [TR_ENGINE_THREADS] = TR_IO_THREADS};
    struct tr_slot_pool pools[TR_SLOT_POOLS];
    int r = run_deal_out_spills(run, tr_store_stripes(run->store), &run->spills);

    run_name_pools(run, pools);
    if (r < 0)
        return r;
    return tr_offload_open(
        &run->offload,
        &(struct tr_offload_params){.store = run->store,
                                    .device = run->device,
                                    .pools = pools,
                                    .n_pools = TR_SLOT_POOLS,
                                    .io = io[run->params.io],
                                    .durability = run_durability(run),
                                    .prefetch = (uint32_t)run->params.prefetch,
                                    .staging_bytes = run->staging_bytes,
                                    .in_host = run->in_host,
                                    .scratch = run->scratch,
                                    .n_scratch = tr_plan_scratch(&run->plan),
                                    .scratch_stripes = run->spills.n ? &run->spills : NULL,
                                    .serial = run->params.serial});
}

/* What a step reads back lies in pinned memory, so that its copies wait for nobody. */
static size_t nll_bytes(const struct tr_run *run)
{
    return tr_round_up((size_t)run->plan.in.batch_tokens * sizeof(float), TR_STORE_ALIGN);
}

static size_t sumsq_bytes(const struct tr_run *run)
{
    return tr_round_up(run->plan.sumsq.bytes + 1, TR_STORE_ALIGN);
}

uint64_t run_buffer_bytes(const struct tr_run *run)
{
    return nll_bytes(run) + sumsq_bytes(run);
}

int run_start_machine(struct tr_run *run)
{
    int r;

    run->pass.device = run->device;
    run->pass.model = run->model;
    run->pass.plan = &run->plan;
    run->pass.arena = run->device->ops->arena(run->device);
    run->step.nll = run->device->ops->host_alloc(run->device, nll_bytes(run));
    run->step.sumsq = run->device->ops->host_alloc(run->device, sumsq_bytes(run));
    if (!run->step.nll || !run->step.sumsq)
        return -ENOMEM;
    if ((r = run_mark_arena(run)) < 0 || (r = hash_names(run)) < 0 ||
        (r = copy_rope_tables(run)) < 0 || (run->plan.in.apart && (r = run_open_apart(run)) < 0))
        return r;
    run_set_update(run);
    return run_open_offload(run);
}

void run_close_offload(struct tr_run *run)
{
    if (run->device) /* what is queued still uses the slots */
        run->device->ops->sync(run->device, TR_STREAM_COMPUTE);
    tr_offload_close(run->offload);
    run->offload = NULL;
    run->step.begun = RUN_NOTHING;
}

void run_stop_machine(struct tr_run *run)
{
    run_close_offload(run); /* what is queued uses the batch, too */
    run_unplace(run);
    run_close_apart(run);
    tr_pass_free(&run->pass);
    tr_free(TR_MEM_MISC, run->pass.update.names);
    tr_free(TR_MEM_MISC, run->pass.adapter.measured);
    if (run->step.nll)
        run->device->ops->host_free(run->device, run->step.nll, nll_bytes(run));
    if (run->step.sumsq)
        run->device->ops->host_free(run->device, run->step.sumsq, sumsq_bytes(run));
    if (run->device)
        run->device->ops->close(run->device);
    run->step.nll = NULL;
    run->step.sumsq = NULL;
    run->device = NULL;
}
