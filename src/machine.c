/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine of a run: device, offload engine, and what the pass needs beside the plan. Opened
 * when store, model table and plan stand; closed in reverse order.
 */
#include "src/run.h"

#include <string.h>
#include <xxhash.h>

#include "src/base/err.h"
#include "src/base/mem.h"

int run_open_device(struct tr_run *run)
{
    int r = tr_device_open_cpu(&run->device,
                               &(struct tr_device_params){.memory_bytes = run->params.device_memory,
                                                          .threads = (int)run->params.threads,
                                                          .delay_seed = run->params.delay_seed});

    if (r < 0)
        return r;
    run->device->ops->info(run->device, &run->device_info);
    return 0;
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
    return 0;
}

static void set_update(struct tr_run *run)
{
    const struct tr_train_params *p = &run->params;
    struct tr_update *u = &run->pass.update;

    u->adamw = p->optimizer == TR_OPT_ADAMW;
    u->weight_decay = (float)p->weight_decay;
    u->clip_value = (float)p->clip_value;
    u->beta1 = p->beta1;
    u->beta2 = p->beta2;
    u->eps = (float)p->eps;
    u->rounding = p->rounding == TR_ROUNDING_STOCHASTIC ? TR_ROUND_STOCHASTIC : TR_ROUND_NEAREST;
    u->seed = (uint32_t)p->seed;
}

static int open_offload(struct tr_run *run)
{
    static const enum tr_io_kind io[] = {
        [TR_IO_BEST] = TR_IO_AUTO, [TR_IO_RING] = TR_IO_URING, [TR_IO_POOL] = TR_IO_THREADS};
    static const enum tr_durability durability[] = {[TR_KEEP_AUTO] = TR_DURABLE_STEP,
                                                    [TR_KEEP_STEP] = TR_DURABLE_STEP,
                                                    [TR_KEEP_CHECKPOINT] = TR_DURABLE_CHECKPOINT,
                                                    [TR_KEEP_NONE] = TR_DURABLE_NONE};
    struct tr_slot_pool pools[TR_SLOT_POOLS];

    for (int i = 0; i < TR_SLOT_POOLS; i++)
        pools[i] = (struct tr_slot_pool){.base = run->pass.arena + run->plan.pool[i].offset,
                                         .slot_bytes = run->plan.slot_bytes[i],
                                         .n_slots = run->plan.slots[i]};
    return tr_offload_open(
        &run->offload, &(struct tr_offload_params){.store = run->store,
                                                   .device = run->device,
                                                   .pools = pools,
                                                   .n_pools = TR_SLOT_POOLS,
                                                   .io = io[run->params.io],
                                                   .durability = durability[run->params.durability],
                                                   .prefetch = (uint32_t)run->params.prefetch,
                                                   .serial = run->params.serial});
}

int run_start_machine(struct tr_run *run)
{
    int train = run->plan.in.train, r;

    run->pass.device = run->device;
    run->pass.model = run->model;
    run->pass.plan = &run->plan;
    run->pass.arena = run->device->ops->arena(run->device);
    run->nll = tr_alloc_array(TR_MEM_BATCH, (size_t)run->plan.in.batch_tokens, sizeof(float));
    run->sumsq = tr_alloc(TR_MEM_BATCH, run->plan.sumsq.bytes);
    if (!run->nll || !run->sumsq)
        return -ENOMEM;
    if ((r = hash_names(run)) < 0 ||
        (r = tr_visits_make(&run->visits, &(struct tr_visits_params){.model = run->model,
                                                                     .train = train,
                                                                     .norm_pass = run->plan.in.norm,
                                                                     .parked = run->plan.parked})) <
            0 ||
        (r = copy_rope_tables(run)) < 0)
        return r;
    set_update(run);
    return open_offload(run);
}

void run_stop_machine(struct tr_run *run)
{
    if (run->device) /* what is queued still uses the batch and the slots */
        run->device->ops->sync(run->device, TR_STREAM_COMPUTE);
    tr_offload_close(run->offload);
    tr_visits_free(&run->visits);
    tr_pass_free(&run->pass);
    tr_free(TR_MEM_MISC, run->pass.update.names);
    tr_free(TR_MEM_BATCH, run->nll);
    tr_free(TR_MEM_BATCH, run->sumsq);
    if (run->device)
        run->device->ops->close(run->device);
    run->offload = NULL;
    run->device = NULL;
}
