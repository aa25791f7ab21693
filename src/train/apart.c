/* SPDX-License-Identifier: Apache-2.0 */
#include "src/train/apart.h"

#include <assert.h>
#include <pthread.h>

#include "src/base/clock.h"
#include "src/base/err.h"
#include "src/base/mem.h"

#define TENSORS (TR_ROLES + 1) /* of a visit, at most */

struct gradient {
    int32_t tensor;
    uint64_t first;
    float *at;
};

/* What a visit has left, or an update has fetched itself. */
struct set {
    struct gradient gradient[TENSORS];
    int n;
    uint64_t used; /* floats */
};

struct weight {
    void *slot;
    char *at;
    size_t bytes;
    int changes;
};

struct tr_apart {
    struct tr_device *device, *cpu;
    const struct tr_plan *plan;
    char *memory;
    struct tr_event *made, *fetched, *put[2];
    struct set set[2];
    uint64_t left, taken; /* sets, in this step */
    struct weight weight[TENSORS];
    int n_weights;
    size_t weight_bytes;
    struct tr_op ops[3 * TENSORS];
    int n_ops;
    uint64_t updates; /* visits */

    pthread_mutex_t lock; /* of what stands below */
    pthread_cond_t changed;
    uint64_t asked, arrived; /* copies of updates */
};

/* The set at hand: of the visit that leaves it, or of the update. */
static struct set *leaving(struct tr_apart *a)
{
    return &a->set[a->left % 2];
}

static struct set *taking(struct tr_apart *a)
{
    return &a->set[a->taken % 2];
}

static char *half(const struct tr_apart *a, const struct tr_place *place, uint64_t number)
{
    return a->memory + place->offset + number % 2 * (place->bytes / 2);
}

void tr_apart_restart(struct tr_apart *a)
{
    a->left = a->taken = 0;
}

int tr_apart_begin(struct tr_apart *a, const struct tr_unit_visit *u)
{
    a->n_ops = a->n_weights = 0;
    a->weight_bytes = 0;
    if (u->work != TR_WORK_UPDATE || a->taken == a->left)
        *leaving(a) = (struct set){.n = 0};
    return a->device->ops->wait(a->device, TR_STREAM_COMPUTE, a->fetched);
}

/* Of n floats into the set's memory. `ready`: no compute of this step makes them. */
static int fetch(struct tr_apart *a, struct set *s, const struct pass_grad *g, int ready)
{
    struct tr_device *d = a->device;
    float *at = (float *)half(a, &a->plan->host_grads, (uint64_t)(s - a->set)) + s->used;
    int r = 0;

    assert(s->n < TENSORS);
    s->gradient[s->n++] = (struct gradient){g->tensor, g->first, at};
    s->used += tr_grad_room(g->n);
    assert(s->used * 4 <= a->plan->host_grads.bytes / 2);
    if (!ready && (r = d->ops->record(d, TR_STREAM_COMPUTE, a->made)) == 0)
        r = d->ops->wait(d, TR_STREAM_OUT, a->made);
    if (r < 0 || (r = d->ops->copy_out(d, TR_STREAM_OUT, at, g->grad, g->n * 4)) < 0)
        return r;
    return d->ops->record(d, TR_STREAM_OUT, a->fetched);
}

int tr_apart_leave(struct tr_apart *a, const struct pass_grad *g)
{
    return fetch(a, leaving(a), g, 0);
}

static float *find(const struct set *s, const struct pass_grad *g)
{
    for (int i = 0; i < s->n; i++)
        if (s->gradient[i].tensor == g->tensor && s->gradient[i].first == g->first)
            return s->gradient[i].at;
    return NULL;
}

/* The weights of this op, whose copy to the cpu is queued at the first one. */
static int fetch_weight(struct tr_apart *a, const struct pass_grad *g, const struct tr_op *op,
                        struct weight **out)
{
    struct weight *w = &a->weight[a->n_weights];
    uint64_t size = tr_dtype_size(op->update.dtype);
    struct tr_device *d = a->device;
    int r = 0;

    if (a->n_weights && w[-1].slot == op->update.w) {
        *out = w - 1;
        return 0;
    }
    *out = w;
    assert(a->n_weights < TENSORS);
    *w = (struct weight){.slot = op->update.w,
                         .at = half(a, &a->plan->host_weights, a->updates) + a->weight_bytes,
                         .bytes = g->n * size};
    a->weight_bytes += tr_grad_room(g->n) * size;
    assert(a->weight_bytes <= a->plan->host_weights.bytes / 2);
    if (!a->n_weights++)
        r = d->ops->wait(d, TR_STREAM_OUT, a->put[a->updates % 2]);
    return r < 0 ? r : d->ops->copy_out(d, TR_STREAM_OUT, w->at, w->slot, w->bytes);
}

int tr_apart_update(struct tr_apart *a, const struct pass_grad *g, const struct tr_op *op)
{
    struct tr_op *to = &a->ops[a->n_ops];
    struct set *s = taking(a);
    struct weight *w;
    int r = 0;

    assert(a->n_ops < (int)(sizeof(a->ops) / sizeof(a->ops[0])));
    if (!find(s, g)) {
        assert(a->taken == a->left);
        r = fetch(a, s, g, g->parked == (void *)g->grad);
    }
    if (r < 0 || (r = fetch_weight(a, g, op, &w)) < 0)
        return r;
    w->changes |= op->kind != TR_OP_ADALOMO_SUM && op->kind != TR_OP_ADALOMO_FACTOR;
    *to = *op;
    to->update.w = w->at;
    to->update.g = find(s, g);
    to->update.sums = (double *)(a->memory + a->plan->host_sums.offset);
    to->update.factor = (float *)(a->memory + a->plan->host_factor.offset);
    a->n_ops++;
    return 0;
}

/* On the device's thread. */
static void copies_passed(void *arg)
{
    struct tr_apart *a = arg;

    pthread_mutex_lock(&a->lock);
    a->arrived++;
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

/* Until all copies out that have been queued are there. A device that has failed may have lost the
 * callback that this hangs on, so it is asked now and then. */
static int await_copies(struct tr_apart *a)
{
    struct tr_device *d = a->device;
    int r = d->ops->call(d, TR_STREAM_OUT, copies_passed, a);

    if (r < 0)
        return r;
    pthread_mutex_lock(&a->lock);
    a->asked++;
    while (a->arrived < a->asked && r == 0) {
        if (tr_cond_wait_for(&a->changed, &a->lock, TR_PATIENCE_NS) == 0)
            continue;
        pthread_mutex_unlock(&a->lock);
        r = d->ops->error(d);
        pthread_mutex_lock(&a->lock);
    }
    pthread_mutex_unlock(&a->lock);
    return r;
}

/* The cpu's ops, and the weights back into their slots. */
static int apply(struct tr_apart *a)
{
    struct tr_device *d = a->device, *cpu = a->cpu;
    int r = await_copies(a);

    for (int i = 0; i < a->n_ops && r == 0; i++)
        r = cpu->ops->run(cpu, TR_STREAM_COMPUTE, &a->ops[i]);
    if (r == 0)
        r = cpu->ops->sync(cpu, TR_STREAM_COMPUTE);
    for (int i = 0; i < a->n_weights && r == 0; i++) {
        const struct weight *w = &a->weight[i];

        if (w->changes)
            r = d->ops->copy_in(d, TR_STREAM_COMPUTE, w->slot, w->at, w->bytes);
    }
    return r < 0 ? r : d->ops->record(d, TR_STREAM_COMPUTE, a->put[a->updates++ % 2]);
}

int tr_apart_end(struct tr_apart *a, const struct tr_unit_visit *u)
{
    if (u->leaves)
        a->left++;
    if (u->work != TR_WORK_UPDATE)
        return 0;
    if (a->taken == a->left) /* it has fetched all itself */
        a->left++;
    a->taken++;
    return a->n_ops ? apply(a) : 0;
}

int tr_apart_open(struct tr_apart **out, const struct tr_apart_params *p)
{
    struct tr_apart *a = tr_alloc(TR_MEM_MISC, sizeof(*a));
    int r;

    if (!a)
        return -ENOMEM;
    *a =
        (struct tr_apart){.device = p->device, .cpu = p->cpu, .plan = p->plan, .memory = p->memory};
    pthread_mutex_init(&a->lock, NULL);
    tr_cond_init(&a->changed);
    if ((r = p->device->ops->event_open(p->device, &a->made)) == 0 &&
        (r = p->device->ops->event_open(p->device, &a->fetched)) == 0 &&
        (r = p->device->ops->event_open(p->device, &a->put[0])) == 0)
        r = p->device->ops->event_open(p->device, &a->put[1]);
    if (r < 0) {
        tr_apart_close(a);
        return r;
    }
    *out = a;
    return 0;
}

/* Has a lost device still to report something? Then what it reports to stays. */
static int is_awaited(struct tr_apart *a)
{
    int awaited;

    a->device->ops->sync(a->device, TR_STREAM_OUT);
    pthread_mutex_lock(&a->lock);
    awaited = a->arrived < a->asked;
    pthread_mutex_unlock(&a->lock);
    return awaited;
}

void tr_apart_close(struct tr_apart *a)
{
    if (!a || is_awaited(a))
        return;
    for (int i = 0; i < 2; i++)
        a->device->ops->event_close(a->device, a->put[i]);
    a->device->ops->event_close(a->device, a->made);
    a->device->ops->event_close(a->device, a->fetched);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    tr_free(TR_MEM_MISC, a);
}
