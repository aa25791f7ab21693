/* SPDX-License-Identifier: Apache-2.0
 *
 * The memory budgets of a run: shares of what there is, on this machine or on one that only exists
 * as figures, and never more than that.
 */
#include "src/run/run.h"

#include "src/base/err.h"
#include "src/base/sysmem.h"

static int look_here(const struct tr_run *run, struct tr_memory *m)
{
    int r = tr_free_memory(&m->host);

    if (r < 0 || (r = tr_devices_free_memory(&run->choice, &m->device)) < 0)
        return r;
    m->device_share = run->choice.cuda ? TR_SHARE(90) : TR_SHARE(80);
    m->most_host = tr_most_memory();
    m->shared = !run->choice.cuda;
    m->most_device = run->choice.cuda ? UINT64_MAX : m->most_host; /* a GPU is asked itself */
    return 0;
}

static uint64_t share_of(uint64_t asked, uint64_t by_default, uint64_t all)
{
    if (!asked)
        asked = by_default;
    if (!(asked & TR_SHARE(0)))
        return asked;
    return (uint64_t)((double)all * (double)(asked & ~TR_SHARE(0)) / 100e3);
}

/* A budget beyond what there is would be kept only until the kernel ends the run for it. */
static int check_there_is(const char *option, uint64_t asked, uint64_t most)
{
    return asked <= most ? 0
                         : tr_error(-EINVAL, "%s: %llu bytes are more than the %llu there are",
                                    option, (unsigned long long)asked, (unsigned long long)most);
}

int run_resolve_memory(struct tr_run *run)
{
    struct tr_train_params *p = &run->params;
    struct tr_memory m;
    int r = 0;

    if (run->elsewhere)
        m = *run->elsewhere;
    else
        r = look_here(run, &m);
    if (r < 0)
        return r;
    p->device_memory = share_of(p->device_memory, m.device_share, m.device);
    run->host_left = !p->host_memory && m.shared; /* else the two would be more than all */
    if (run->host_left)
        m.host -= p->device_memory < m.host ? p->device_memory : m.host;
    p->host_memory = share_of(p->host_memory, TR_SHARE(80), m.host);
    r = check_there_is("--device-memory", p->device_memory, m.most_device);
    return r < 0 ? r : check_there_is("--host-memory", p->host_memory, m.most_host);
}

/* Homes of all that is stored, as much again for updates beside the GPU, and the buffers on the
 * way. Whether gradients are parked may be chosen later: they are counted. */
uint64_t run_most_pinned(const struct tr_run *run, uint64_t host_bytes)
{
    const struct tr_model *m = run->model;
    uint64_t parked = m->parked == TR_PARKED_NONE ? 4 * m->n_trained : 0;
    uint64_t most = 2 * (tr_layout_bytes(&m->layout) + parked) + TR_STAGING_BYTES;

    return most < host_bytes ? most : host_bytes;
}
