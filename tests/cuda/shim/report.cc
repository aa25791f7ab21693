/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/cuda/shim/engine.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *shim_report_site(const struct shim_site *s, char *text, size_t room)
{
    snprintf(text, room, "%s at %s:%d", s->what, s->file, s->line);
    return text;
}

void shim_fail(struct shim_engine *e, const char *format, ...)
{
    va_list list;
    int n;

    if (!e->failed) {
        e->failed = true;
        n = snprintf(e->error, e->room, "block (%u,%u,%u): ", blockIdx.x, blockIdx.y, blockIdx.z);
        va_start(list, format);
        if (n >= 0 && (size_t)n < e->room)
            vsnprintf(e->error + n, e->room - (size_t)n, format, list);
        va_end(list);
    }
    if (e->current) {
        struct fiber abandoned;
        memset(&abandoned, 0, sizeof abandoned);
        fiber_switch(&abandoned, &e->main);
    }
}

static const struct shim_thread *find_waiting(const struct shim_engine *e)
{
    for (int i = 0; i < e->n_threads; i++)
        if (e->threads[i].state == SHIM_WAITING && e->threads[i].mask)
            return &e->threads[i];
    return NULL;
}

/* One warp collective at least is stuck: of a barrier alone, block.cc has spoken before. */
void shim_report_stuck(struct shim_engine *e)
{
    const struct shim_thread *t = find_waiting(e);
    char here[256], there[256];

    if (!t) {
        shim_fail(e, "no thread can go on");
        return;
    }
    shim_report_site(t->site, here, sizeof here);
    for (unsigned rest = t->mask; rest; rest &= rest - 1) {
        int lane = __builtin_ctz(rest);
        const struct shim_thread *o = &e->threads[t->number / SHIM_LANES * SHIM_LANES + lane];
        bool same = o->state == SHIM_WAITING && o->mask == t->mask &&
                    o->site->line == t->site->line && !strcmp(o->site->file, t->site->file) &&
                    !strcmp(o->site->what, t->site->what);
        if (same)
            continue;
        if (o->state == SHIM_DONE)
            snprintf(there, sizeof there, "has ended");
        else
            snprintf(there, sizeof there, "waits in %s at %s:%d with mask 0x%08x", o->site->what,
                     o->site->file, o->site->line, o->mask);
        shim_fail(e, "thread (%u,%u,%u) waits in %s with mask 0x%08x for lane %d, which %s",
                  t->index.x, t->index.y, t->index.z, here, t->mask, lane, there);
        return;
    }
}
