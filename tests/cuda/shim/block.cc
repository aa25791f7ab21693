/* SPDX-License-Identifier: Apache-2.0
 *
 * One block: who runs next, on which fiber, and the block's barrier. A thread that must wait
 * switches straight to the next one; there is no scheduler in between. When nobody is ready the
 * thread's own stack is switched to, which sees that the block is done, or stuck.
 */
#include "tests/cuda/shim/engine.h"

#include <string.h>

__thread uint3 threadIdx, blockIdx;
__thread dim3 blockDim, gridDim;
__thread struct shim_engine *shim_now;

static struct shim_thread *pick(struct shim_engine *e)
{
    if (!e->ready_warps)
        return NULL;
    int i = shim_order_pick(&e->order, e->ready_warps);
    struct shim_warp *w = &e->warps[i];
    int lane = shim_order_pick(&e->order, w->ready);
    w->ready &= ~(1u << lane);
    if (!w->ready)
        e->ready_warps &= ~(1u << i);
    return &e->threads[i * SHIM_LANES + lane];
}

static void make_current(struct shim_engine *e, struct shim_thread *t)
{
    e->current = t;
    e->warp = &e->warps[t->number / SHIM_LANES];
    e->lane = (unsigned)t->number % SHIM_LANES;
    t->state = SHIM_RUNNING;
    threadIdx = t->index;
}

SHIM_COLD static void fail_ended(struct shim_engine *e, const struct shim_thread *t)
{
    char text[256];

    shim_fail(e, "divergent barrier: thread (%u,%u,%u) has ended while %d threads wait in %s",
              t->index.x, t->index.y, t->index.z, e->barrier.arrived,
              shim_report_site(&e->barrier.site, text, sizeof text));
}

static void finish(struct shim_engine *e, struct shim_thread *t)
{
    SHIM_RELEASE(&e->grid_sync->end);
    if (t->n_copies)
        shim_copy_end(e, t);
    if (e->barrier.arrived)
        fail_ended(e, t);
    t->state = SHIM_DONE;
    e->n_done++;
}

static void switch_to(struct shim_engine *e, struct fiber *self, struct shim_thread *t);

/* Runs threads one after the other; between two it is idle or goes straight on. */
static void run_threads(struct fiber *self)
{
    struct shim_fiber *f = (struct shim_fiber *)(void *)self;
    struct shim_engine *e = (struct shim_engine *)self->owner;

    fiber_entered(self);
    for (;;) {
        SHIM_ACQUIRE(&e->grid_sync->start);
        e->body(e->arg);
        finish(e, e->current);
        struct shim_thread *t = pick(e);
#if !TR_SHIM_TSAN
        if (t && t->state == SHIM_UNSTARTED) {
            t->fiber = f;
            make_current(e, t);
            continue;
        }
        f->next = e->idle;
        e->idle = f;
#else
        (void)f;
#endif
        switch_to(e, self, t);
    }
}

static struct shim_fiber *fiber_new(struct shim_engine *e, int slot)
{
    struct shim_fiber *f = (struct shim_fiber *)shim_alloc(sizeof *f);

    if (!f || fiber_create(&f->fiber, run_threads, e, &e->main, slot)) {
        shim_free(f);
        return NULL;
    }
    e->fibers[slot] = f;
    e->n_fibers++;
    return f;
}

/* A fiber for a thread that has not begun. */
static struct shim_fiber *fiber_take(struct shim_engine *e, const struct shim_thread *t)
{
    struct shim_fiber *f;

#if TR_SHIM_TSAN
    f = e->fibers[e->set * SHIM_THREADS + t->number];
#else
    f = e->idle;
    if (f)
        e->idle = f->next;
    else
        f = fiber_new(e, e->n_fibers);
#endif
    if (!f)
        shim_fail(e, "no memory for the stack of thread (%u,%u,%u)", t->index.x, t->index.y,
                  t->index.z);
    return f;
}

static void switch_to(struct shim_engine *e, struct fiber *self, struct shim_thread *t)
{
    struct fiber *to = &e->main;

    if (t) {
        if (t->state == SHIM_UNSTARTED)
            t->fiber = fiber_take(e, t);
        if (e->failed)
            return;
        make_current(e, t);
        to = &t->fiber->fiber;
    }
    fiber_switch(self, to);
}

void shim_block_yield(struct shim_engine *e)
{
    struct shim_thread *self = e->current, *t = pick(e);

    if (t == self) {
        make_current(e, t);
        return;
    }
    switch_to(e, &self->fiber->fiber, t);
}

void shim_block_wake(struct shim_engine *e, struct shim_warp *w, unsigned lanes)
{
    w->ready |= lanes;
    e->ready_warps |= 1u << (w - e->warps);
}

static void barrier_open(struct shim_engine *e)
{
    struct shim_barrier *b = &e->barrier;

    b->result[b->phase & 1] = b->reduce == TR_SHIM_AND  ? b->sum == e->n_threads
                              : b->reduce == TR_SHIM_OR ? b->sum != 0
                                                        : b->sum;
    b->phase++;
    b->arrived = 0;
    for (int i = 0; i * SHIM_LANES < e->n_threads; i++)
        shim_block_wake(e, &e->warps[i], e->warps[i].present);
}

SHIM_COLD static void fail_alone(struct shim_engine *e, const struct shim_thread *t)
{
    char here[256];

    shim_fail(e, "divergent barrier: thread (%u,%u,%u) waits in %s, but %d threads have ended",
              t->index.x, t->index.y, t->index.z, shim_report_site(t->site, here, sizeof here),
              e->n_done);
}

SHIM_COLD static void fail_apart(struct shim_engine *e, const struct shim_thread *t)
{
    const struct shim_thread *first = &e->threads[e->barrier.first];
    char here[256], there[256];

    shim_fail(e, "divergent barrier: thread (%u,%u,%u) waits in %s, thread (%u,%u,%u) comes to %s",
              first->index.x, first->index.y, first->index.z,
              shim_report_site(&e->barrier.site, there, sizeof there), t->index.x, t->index.y,
              t->index.z, shim_report_site(t->site, here, sizeof here));
}

/* The first to come says which barrier it is; a thread at another place, or one that has ended,
 * means that the block has diverged. */
static void barrier_join(struct shim_engine *e, struct shim_thread *t, enum tr_shim_reduce reduce)
{
    struct shim_barrier *b = &e->barrier;

    if (e->n_done)
        fail_alone(e, t);
    if (!b->arrived) {
        b->site = *t->site;
        b->reduce = reduce;
        b->first = t->number;
        b->sum = 0;
    } else if (b->site.line != t->site->line || b->reduce != reduce ||
               (b->site.file != t->site->file && strcmp(b->site.file, t->site->file))) {
        fail_apart(e, t);
    }
}

int tr_shim_barrier(enum tr_shim_reduce reduce, int value, const char *file, int line)
{
    static const char *const names[] = {"__syncthreads", "__syncthreads_and", "__syncthreads_or",
                                        "__syncthreads_count"};
    struct shim_engine *e = shim_now;
    struct shim_thread *t = e->current;
    struct shim_barrier *b = &e->barrier;
    struct shim_site site = {names[reduce], file, line};
    int phase = b->phase & 1;

    t->site = &site;
    t->mask = 0;
    barrier_join(e, t, reduce);
    SHIM_RELEASE(&e->sync->barrier[phase]);
    t->state = SHIM_WAITING;
    b->sum += value != 0;
    if (++b->arrived == e->n_threads)
        barrier_open(e);
    shim_block_yield(e);
    SHIM_ACQUIRE(&e->sync->barrier[phase]);
    return b->result[phase];
}

void tr_shim_fence(void)
{
    struct shim_engine *e = shim_now;

    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    SHIM_ACQUIRE(&e->grid_sync->fence);
    SHIM_RELEASE(&e->grid_sync->fence);
}

void shim_block_prepare(struct shim_engine *e)
{
    const dim3 *d = &e->g->block;

    e->n_threads = (int)(d->x * d->y * d->z);
    for (int i = 0; i < e->n_threads; i++) {
        struct shim_thread *t = &e->threads[i];
        t->number = i;
        t->index = {i % d->x, i / d->x % d->y, i / d->x / d->y};
    }
    for (int i = 0; i * SHIM_LANES < e->n_threads; i++) {
        int lanes = e->n_threads - i * SHIM_LANES;
        e->warps[i].present = lanes >= SHIM_LANES ? 0xffffffff : (1u << lanes) - 1;
    }
#if TR_SHIM_TSAN
    for (int i = 0; i < e->n_threads * (e->n_blocks > 1 ? 2 : 1); i++) {
        int slot = i < e->n_threads ? i : SHIM_THREADS + i - e->n_threads;
        if (!e->fibers[slot])
            fiber_new(e, slot);
    }
#endif
}

static void begin(struct shim_engine *e)
{
    int n = e->n_threads;

    for (int i = 0; i < n; i++) {
        e->threads[i].state = SHIM_UNSTARTED;
        e->threads[i].group = 0;
        e->threads[i].n_copies = 0; // a grid that failed may have left some
    }
    for (int i = 0; i * SHIM_LANES < n; i++) {
        e->warps[i].ready = e->warps[i].present;
        e->warps[i].open = 0;
    }
    e->ready_warps = (unsigned)((1ull << (n + SHIM_LANES - 1) / SHIM_LANES) - 1);
    e->n_done = 0;
    e->barrier.arrived = 0;
}

/* Fibers in the middle of a kernel are of no more use; but what they have done comes before what
 * follows the grid. */
static void abandon(struct shim_engine *e)
{
#if TR_SHIM_TSAN
    for (int i = 0; i < 2 * SHIM_THREADS; i++)
        if (e->fibers[i]) {
            __tsan_switch_to_fiber(e->fibers[i]->fiber.tsan, __tsan_switch_to_fiber_no_sync);
            SHIM_RELEASE(&e->grid_sync->end);
        }
    __tsan_switch_to_fiber(e->main.tsan, __tsan_switch_to_fiber_no_sync);
#endif
    shim_block_free(e);
}

void shim_block_run(struct shim_engine *e, int set)
{
    begin(e);
    shim_shared_begin(e);
    if (e->failed)
        return;
    e->set = set;
    switch_to(e, &e->main, pick(e));
    e->current = NULL;
    if (!e->failed && e->n_done < e->n_threads)
        shim_report_stuck(e);
    shim_shared_end(e);
    if (e->failed)
        abandon(e);
}

void shim_block_free(struct shim_engine *e)
{
    for (int i = 0; i < 2 * SHIM_THREADS; i++)
        if (e->fibers[i]) {
            fiber_destroy(&e->fibers[i]->fiber);
            shim_free(e->fibers[i]);
            e->fibers[i] = NULL;
        }
    e->n_fibers = 0;
    e->idle = NULL;
}
