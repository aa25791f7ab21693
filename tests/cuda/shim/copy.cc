/* SPDX-License-Identifier: Apache-2.0
 *
 * cp.async: the target is poison from the copy's issue to the wait that covers it, and the source
 * is read at that wait, so that a kernel which reads too early, or changes the source too early,
 * computes nonsense. Groups are counted as the PTX ISA has it: a copy belongs to the group that
 * its thread's next commit closes.
 */
#include <tr_shim_ptx.h>

#include "tests/cuda/shim/engine.h"

static void fill16(void *p, uint32_t word)
{
#if TR_SHIM_TSAN
    __tsan_write16(p);
#endif
    for (int i = 0; i < 4; i++)
        ((uint32_t *)p)[i] = word;
}

static void copy16(void *to, const void *from)
{
#if TR_SHIM_TSAN
    __tsan_read16((void *)(uintptr_t)from);
    __tsan_write16(to);
#endif
    for (int i = 0; i < 4; i++)
        ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
}

SHIM_COLD static void fail_address(struct shim_engine *e, const struct shim_site *site,
                                   const char *why)
{
    char text[256];

    shim_fail(e, "%s: thread (%u,%u,%u): %s", shim_report_site(site, text, sizeof text),
              threadIdx.x, threadIdx.y, threadIdx.z, why);
}

void tr_shim_check_shared(const char *what, const void *p, const char *file, int line)
{
    struct shim_engine *e = shim_now;
    struct shim_site site = {what, file, line};

    if ((uintptr_t)p % 16)
        fail_address(e, &site, "the address is not 16-byte aligned");
    if (!shim_shared_holds(e, p, 16))
        fail_address(e, &site, "16 bytes that are not shared memory");
}

static struct shim_copy *append(struct shim_engine *e, struct shim_thread *t)
{
    if (t->n_copies == t->room_copies) {
        int room = t->room_copies ? 2 * t->room_copies : 16;
        struct shim_copy *p = (struct shim_copy *)shim_alloc((size_t)room * sizeof *p);
        if (!p)
            shim_fail(e, "no memory for %d copies", room);
        for (int i = 0; i < t->n_copies; i++)
            p[i] = t->copies[i];
        shim_free(t->copies);
        t->copies = p;
        t->room_copies = room;
    }
    return &t->copies[t->n_copies++];
}

void tr_shim_cp_async(const struct tr_shim_copy *c, const char *file, int line)
{
    struct shim_engine *e = shim_now;
    struct shim_thread *t = e->current;

    tr_shim_check_shared("cp.async", c->shared, file, line);
    struct shim_copy *copy = append(e, t);
    *copy = {c->shared, c->global, c->valid, t->group, {"cp.async", file, line}};
    if ((uintptr_t)c->global % 16)
        fail_address(e, &copy->site, "the source is not 16-byte aligned");
    fill16(c->shared, 0xffffffff);
}

void tr_shim_cp_async_commit(void)
{
    shim_now->current->group++;
}

void tr_shim_cp_async_wait(int pending)
{
    struct shim_thread *t = shim_now->current;
    int kept = 0;

    for (int i = 0; i < t->n_copies; i++) {
        struct shim_copy *c = &t->copies[i];
        if (c->group + (unsigned)pending >= t->group)
            t->copies[kept++] = *c;
        else if (c->valid)
            copy16(c->shared, c->global);
        else
            fill16(c->shared, 0);
    }
    t->n_copies = kept;
}

void shim_copy_end(struct shim_engine *e, struct shim_thread *t)
{
    char text[256];

    shim_fail(e, "%s: thread (%u,%u,%u) has ended without waiting for this copy%s",
              shim_report_site(&t->copies[0].site, text, sizeof text), t->index.x, t->index.y,
              t->index.z, t->copies[0].group == t->group ? ", which it has not committed" : "");
}

void shim_copy_free(struct shim_engine *e)
{
    for (int i = 0; i < SHIM_THREADS; i++)
        shim_free(e->threads[i].copies);
}
