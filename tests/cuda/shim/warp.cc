/* SPDX-License-Identifier: Apache-2.0
 *
 * Warp collectives: lanes that name the same mask at the same place wait for each other; the last
 * one computes for all. A lane named in a mask must come, though a GPU forgives one that has
 * ended; and nothing but __syncwarp orders memory, so a missing one is a race to ThreadSanitizer
 * and, in a greedy order, a stale value to the test.
 */
#include "tests/cuda/shim/engine.h"

#include <string.h>

static bool is_same(const struct shim_meeting *g, const struct shim_meet *m)
{
    return g->mask == m->mask && g->site.line == m->site.line &&
           (g->site.file == m->site.file || !strcmp(g->site.file, m->site.file)) &&
           (g->site.what == m->site.what || !strcmp(g->site.what, m->site.what));
}

static struct shim_meeting *find(struct shim_warp *w, const struct shim_meet *m)
{
    for (unsigned rest = w->open; rest; rest &= rest - 1) {
        struct shim_meeting *g = &w->meetings[__builtin_ctz(rest)];
        if (is_same(g, m))
            return g;
    }
    struct shim_meeting *g = &w->meetings[__builtin_ctz(~w->open)];
    w->open |= 1u << (g - w->meetings);
    g->site = m->site;
    g->mask = m->mask;
    g->arrived = 0;
    g->phase ^= 1;
    return g;
}

SHIM_COLD static void fail_mask(struct shim_engine *e, const struct shim_meet *m, unsigned bit)
{
    char text[256];

    if (!(m->mask & bit))
        shim_fail(e, "%s: thread (%u,%u,%u) is lane %d, which its mask 0x%08x does not name",
                  shim_report_site(&m->site, text, sizeof text), threadIdx.x, threadIdx.y,
                  threadIdx.z, __builtin_ctz(bit), m->mask);
    if (m->mask & ~e->warp->present)
        shim_fail(e, "%s: thread (%u,%u,%u): mask 0x%08x names lanes that the block has not",
                  shim_report_site(&m->site, text, sizeof text), threadIdx.x, threadIdx.y,
                  threadIdx.z, m->mask);
}

void shim_warp_meet(const struct shim_meet *m, void *slot)
{
    struct shim_engine *e = shim_now;
    struct shim_thread *t = e->current;
    struct shim_warp *w = e->warp;
    unsigned bit = 1u << e->lane;

    if (!(m->mask & bit) || m->mask & ~w->present)
        fail_mask(e, m, bit);
    struct shim_meeting *g = find(w, m);
    char *sync = &e->sync->meetings[w - e->warps][g - w->meetings][g->phase];
    if (m->orders)
        SHIM_RELEASE(sync);
    t->site = &m->site;
    t->mask = m->mask;
    t->state = SHIM_WAITING;
    w->slots[e->lane] = slot;
    g->arrived |= bit;
    if (g->arrived == g->mask) {
        if (m->finish)
            m->finish(e, w, g->mask);
        w->open &= ~(1u << (g - w->meetings));
        shim_block_wake(e, w, g->mask);
    }
    shim_block_yield(e);
    if (m->orders)
        SHIM_ACQUIRE(sync);
}

void tr_shim_syncwarp(unsigned mask, const char *file, int line)
{
    struct shim_meet m = {{"__syncwarp", file, line}, mask, true, NULL};

    shim_warp_meet(&m, NULL);
}

struct vote {
    int value;
    unsigned ballot;
};

static void finish_vote(struct shim_engine *e, struct shim_warp *w, unsigned mask)
{
    unsigned ballot = 0;

    (void)e;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        ballot |= (unsigned)(((struct vote *)w->slots[lane])->value != 0) << lane;
    }
    for (unsigned rest = mask; rest; rest &= rest - 1)
        ((struct vote *)w->slots[__builtin_ctz(rest)])->ballot = ballot;
}

unsigned tr_shim_vote(const char *what, unsigned mask, int value, const char *file, int line)
{
    struct shim_meet m = {{what, file, line}, mask, false, finish_vote};
    struct vote v = {value, 0};

    shim_warp_meet(&m, &v);
    return v.ballot;
}

struct shuffle {
    const struct tr_shim_shfl *s;
    uint64_t value, result;
};

/* The lane that `lane` reads; its own where the PTX ISA says that the source is out of range. */
static int source_of(const struct tr_shim_shfl *s, int lane)
{
    int first = lane & ~(s->width - 1), last = first + s->width - 1, from;

    switch (s->kind) {
    case TR_SHIM_SHFL:
        return first + (s->operand & (s->width - 1));
    case TR_SHIM_SHFL_UP:
        from = lane - s->operand;
        return from < first ? lane : from;
    case TR_SHIM_SHFL_DOWN:
        from = lane + s->operand;
        break;
    default:
        from = lane ^ s->operand;
    }
    return from > last || from < 0 ? lane : from;
}

static const char *const shuffle_names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                            "__shfl_xor_sync"};

SHIM_COLD static void fail_source(struct shim_engine *e, int lane, int from, unsigned mask)
{
    char text[256];

    shim_fail(e, "%s: lane %d reads lane %d, which mask 0x%08x does not name",
              shim_report_site(e->current->site, text, sizeof text), lane, from, mask);
}

static void finish_shuffle(struct shim_engine *e, struct shim_warp *w, unsigned mask)
{
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        struct shuffle *mine = (struct shuffle *)w->slots[lane];
        int from = source_of(mine->s, lane);
        if (!(mask >> from & 1))
            fail_source(e, lane, from, mask);
        mine->result = ((struct shuffle *)w->slots[from])->value;
    }
}

SHIM_COLD static void fail_width(const struct shim_site *site, int width)
{
    char text[256];

    shim_fail(shim_now, "%s: the width %d is no power of two up to 32",
              shim_report_site(site, text, sizeof text), width);
}

uint64_t tr_shim_shuffle(const struct tr_shim_shfl *s, uint64_t value, const char *file, int line)
{
    struct shim_meet m = {{shuffle_names[s->kind], file, line}, s->mask, false, finish_shuffle};
    struct shuffle mine = {s, value, 0};

    if (s->width < 1 || s->width > 32 || s->width & (s->width - 1))
        fail_width(&m.site, s->width);
    shim_warp_meet(&m, &mine);
    return mine.result;
}
