/* SPDX-License-Identifier: Apache-2.0
 *
 * Where updates run, on the device or on the cpu (src/train/apart.h): the bits are the same, so the
 * machine may decide, at every start anew.
 *
 * On the device optimizer state comes and goes with every update; on the cpu gradients and weights
 * do, and state stays where it is cheaper: in host memory, which is large, and has slots for more
 * of it, so that the drive can be early and late. Where there is hardly any state there is nothing
 * to be gained. What the options leave open is chosen by predicted time (src/run/choose.c).
 */
#include "src/base/err.h"
#include "src/run/open.h"
#include "src/train/apart.h"

static int has_much_state(const struct tr_run *run)
{
    return run->model->has_state && run->model->state != TR_STATE_ADALOMO;
}

int run_may_update(const struct tr_run *run, int apart)
{
    enum tr_update_on on = run->params.update_on;

    /* Adapters and their state are on the device for good: nothing of them ever moves. */
    if (run->device_info.host_visible || tr_lora_freezes(&run->model->lora) ||
        on == TR_UPDATE_DEVICE)
        return !apart;
    return on == TR_UPDATE_CPU ? apart : !apart || has_much_state(run);
}

/* A device that is too small for state may do without; what is refused is refused for the smaller
 * of the two. */
int run_make_any_plan(struct tr_run *run, int32_t batch_tokens, int32_t grain_tokens)
{
    uint64_t least;
    int r;

    run->apart = !run_may_update(run, 0);
    r = run_make_plan(run, batch_tokens, grain_tokens);
    if (r != -ENOMEM || run->apart || !run_may_update(run, 1))
        return r;
    least = run->plan.least;
    run->apart = 1;
    r = run_make_plan(run, batch_tokens, grain_tokens);
    if (r != -ENOMEM || (run->plan.least && run->plan.least < least))
        return r;
    run->apart = 0;
    return run_make_plan(run, batch_tokens, grain_tokens);
}

static struct tr_device_params cpu_params(const struct tr_run *run)
{
    struct tr_device_params p = {.threads = (int)run->params.threads};

    p.memory_bytes = tr_device_cpu_workspace(&p) + TR_STORE_ALIGN;
    return p;
}

uint64_t run_cpu_bytes(const struct tr_run *run)
{
    return cpu_params(run).memory_bytes;
}

int run_open_apart(struct tr_run *run)
{
    struct tr_device_params p = cpu_params(run);
    int r;

    run->host = run->device->ops->host_alloc(run->device, run->plan.host_bytes);
    if (!run->host)
        return -ENOMEM;
    if ((r = tr_device_open_cpu(&run->cpu, &p)) < 0)
        return r;
    return tr_apart_open(&run->pass.apart, &(struct tr_apart_params){.device = run->device,
                                                                     .cpu = run->cpu,
                                                                     .plan = &run->plan,
                                                                     .memory = run->host});
}

void run_close_apart(struct tr_run *run)
{
    tr_apart_close(run->pass.apart);
    if (run->cpu)
        run->cpu->ops->close(run->cpu);
    if (run->host)
        run->device->ops->host_free(run->device, run->host, run->plan.host_bytes);
    run->pass.apart = NULL;
    run->cpu = NULL;
    run->host = NULL;
}
