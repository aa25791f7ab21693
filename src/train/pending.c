/* SPDX-License-Identifier: Apache-2.0
 *
 * Exact clipping in one backward pass. A global norm is known when the last gradient is; to have
 * them all applied with it, either the backward pass comes twice, or the gradients wait. Here they
 * wait in the store: the backward pass measures each one (in f32) and parks it beside the
 * parameters and the state of its unit, and the next step's forward pass, which loads the
 * parameters anyway, loads it with them and applies it first. So a step costs the bytes of its
 * gradients, once each way, instead of a second backward pass, and its numbers are the same to the
 * last bit. An untied embedding, whose gradient is the last one, does not wait (tr_embeds_at_once).
 *
 * In between the step is finished, but the parameters are not: "the parameters from before, their
 * gradients, the clip's coefficient, the learning rate and the loss scale" is what its commit names
 * (struct tr_pending), and the update may be made as often as a run is killed before the next
 * commit. Where finished parameters are wanted (a validation, an export, the end of the run), it is
 * made by a pass of nothing but updates, which changes no bit either. A step that is skipped leaves
 * nothing, and the next one's updates pass through.
 */
#include "offload/schedule.h"
#include "src/base/err.h"
#include "src/base/mem.h"
#include "src/run/run.h"
#include "src/train/lr.h"

void run_take_pending(struct tr_run *run)
{
    const struct tr_pending *p = &run->cursor.pending;
    struct tr_update *u = &run->pass.update;

    u->lr = p->lr;
    u->t = run->cursor.t;
    u->coefficient = p->coefficient;
    u->unscale = p->unscale;
    run->pass.adapter.lr = p->adapter_lr;
    run->pass.adapter.coefficient = p->adapter_coefficient;
}

/* The cursor has counted the step, but not its update: the loss scale is the step's own still. */
void run_leave_pending(struct tr_run *run, double lr, int skip)
{
    const struct tr_pass_state *pass = &run->pass;

    run->cursor.pending =
        (struct tr_pending){.is = !skip,
                            .coefficient = pass->update.coefficient,
                            .unscale = (float)(1 / run->cursor.loss_scale),
                            .lr = lr,
                            .adapter_coefficient = pass->adapter.coefficient,
                            .adapter_lr = run_adapter_rate(run, (int64_t)run->cursor.step)};
}

static void count_settled(struct tr_run *run)
{
    struct tr_measured *m = &run->measured;
    const struct tr_settle_bytes *s = tr_prediction_settle(&run->foreseen, m->walked);

    m->settled++;
    m->foreseen_read += s->read;
    m->foreseen_bytes += s->written;
    if (run->step.since_commit == RUN_TRAIN)
        m->foreseen_bytes -= s->spared;
}

int run_settle(struct tr_run *run)
{
    int r;

    if (!run->cursor.pending.is)
        return 0;
    run_take_pending(run);
    r = run_walk(run, RUN_SETTLE, run_queue, run);
    if (r < 0 || (r = run->device->ops->sync(run->device, TR_STREAM_COMPUTE)) < 0)
        return r;
    run->cursor.pending = (struct tr_pending){0};
    count_settled(run);
    if (run->step.since_commit == RUN_NOTHING)
        run->step.since_commit = RUN_SETTLE;
    return 0;
}

struct held { /* by the slots */
    uint32_t n, *span;
    unsigned char *newer; /* than the store */
};

static int is_lazy(const struct tr_run *run)
{
    return run->params.durability != TR_KEEP_STEP;
}

/* Bytes that are newer when the list begins, and are changed before they are dropped. */
static uint64_t changed_again(const struct tr_run *run, const struct tr_schedule *s,
                              const struct tr_schedule_params *p)
{
    uint64_t bytes = 0;

    for (uint32_t v = 0; v < p->n; v++)
        for (uint32_t k = 0; k < p->visits[v].n_spans; k++) {
            uint32_t span = p->visits[v].span[k], slot = tr_schedule_slot(s, v, k);

            if (p->visits[v].changed >> k & 1 && p->newer[slot] && p->holds[slot] == span)
                bytes += s->carried[slot] ? 0 : run->spans[span].bytes;
        }
    return bytes;
}

/* What the list writes of what it changes, or leaves in homes. */
static void count_changes(const struct tr_run *run, const struct tr_schedule *s,
                          const struct tr_visits *v, struct tr_settle_bytes *out)
{
    out->written = out->kept = 0;
    for (uint32_t i = 0; i < v->n; i++)
        for (uint32_t k = 0; k < v->spans[i].n_spans; k++) {
            uint32_t span = v->spans[i].span[k];
            int kept = run->in_host[span] && is_lazy(run);

            if ((v->spans[i].changed & ~s->again[i]) >> k & 1)
                *(kept ? &out->kept : &out->written) += run->spans[span].bytes;
        }
}

/* Plays a list from what the slots hold; then they hold what it leaves. out->read: its bytes from
 * disk, where every home in host memory has been filled. */
static int play(const struct tr_run *run, enum run_begun what, const struct tr_slot_pool *pools,
                struct held *held, struct tr_settle_bytes *out)
{
    const struct tr_visits *v;
    uint32_t n = run_visits(run, what, &v);
    struct tr_schedule_params p = {.visits = v->spans,
                                   .n = n,
                                   .next = v->spans,
                                   .n_next = n,
                                   .spans = run->spans,
                                   .n_spans = run->n_spans,
                                   .n_scratch = tr_plan_scratch(&run->plan),
                                   .pools = pools,
                                   .n_pools = TR_SLOT_POOLS,
                                   .holds = held->span,
                                   .lazy = is_lazy(run),
                                   .newer = held->newer};
    struct tr_schedule s;
    int r = tr_schedule_make(&s, &p);

    if (r < 0)
        return r;
    out->read = 0;
    for (uint32_t i = 0; i < s.n_loads; i++) {
        const struct tr_load *l = &s.loads[i];

        out->read += l->fresh || run->in_host[l->span] ? 0 : run->spans[l->span].bytes;
    }
    out->spared = changed_again(run, &s, &p);
    if (what == RUN_SETTLE)
        count_changes(run, &s, v, out);
    tr_schedule_leave(&s, &p, held->span, is_lazy(run) ? held->newer : NULL);
    for (uint32_t i = 0; i < held->n; i++)
        held->newer[i] &= held->span[i] != TR_NONE && !run->in_host[held->span[i]];
    tr_schedule_free(&s);
    return 0;
}

/* What finishes the last step, from what the slots hold then, which this leaves as it is. */
static int play_settle(const struct tr_run *run, const struct tr_slot_pool *pools,
                       const struct held *after, struct held *held, struct tr_settle_bytes *out)
{
    memcpy(held->span, after->span, held->n * (sizeof(*held->span) + 1));
    return play(run, RUN_SETTLE, pools, held, out);
}

static int open_held(struct held *held, uint32_t n)
{
    held->span = tr_alloc_array(TR_MEM_MISC, n, sizeof(*held->span) + 1);
    if (!held->span)
        return -ENOMEM;
    held->n = n;
    held->newer = (unsigned char *)(held->span + n);
    for (uint32_t i = 0; i < n; i++)
        held->span[i] = TR_NONE;
    return 0;
}

int run_predict_settle(const struct tr_run *run, const struct tr_slot_pool *pools,
                       struct tr_settle_bytes out[TR_PREDICT_STEPS])
{
    struct held held = {.n = 0}, last = {.n = 0};
    struct tr_settle_bytes step;
    uint32_t n = 0;
    int r;

    memset(out, 0, TR_PREDICT_STEPS * sizeof(*out));
    if (!run->settle.n)
        return 0;
    for (int i = 0; i < TR_SLOT_POOLS; i++)
        n += pools[i].n_slots;
    if ((r = open_held(&held, n)) == 0)
        r = open_held(&last, n);
    for (int k = 0; k < TR_PREDICT_STEPS && r == 0; k++)
        if ((r = play(run, RUN_TRAIN, pools, &held, &step)) == 0)
            r = play_settle(run, pools, &held, &last, &out[k]);
    tr_free(TR_MEM_MISC, held.span);
    tr_free(TR_MEM_MISC, last.span);
    return r;
}
