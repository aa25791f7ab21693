/* SPDX-License-Identifier: Apache-2.0
 *
 * A block's shared memory: one arena for each thread of the system, given out anew to every
 * block as its threads reach their declarations. What is given out is poison, with guards around
 * it that are looked at when the block has ended; AddressSanitizer stops at the access itself.
 *
 * Under ThreadSanitizer the memory is new in each block, and so is what its barriers synchronise
 * on: the same bytes in two blocks are not the same memory, and no order between blocks may be made
 * up.
 */
#include "tests/cuda/shim/engine.h"

#include <string.h>

enum { GUARD = 256, GUARD_BYTE = 0xa5, POISON_BYTE = 0xff };

static const char dynamic_key = 0;

void shim_shared_begin(struct shim_engine *e)
{
    e->n_shared = 0;
    e->arena_used = e->static_bytes = e->shared_bytes = 0;
    if (e->arena)
        return;
    e->arena = (char *)shim_alloc(SHIM_ARENA_BYTES + sizeof *e->sync);
    if (e->arena)
        e->sync = (struct shim_sync *)(void *)(e->arena + SHIM_ARENA_BYTES);
    else
        shim_fail(e, "no memory for a block");
}

static void *give(struct shim_engine *e, const struct shim_shared *wanted, size_t align)
{
    size_t at, end;

    if (align < 16)
        align = 16;
    at = (e->arena_used + GUARD + align - 1) & ~(align - 1);
    end = at + wanted->bytes + GUARD;
    e->shared_bytes += wanted->bytes;
    if (wanted->key != &dynamic_key)
        e->static_bytes += wanted->bytes;
    if (e->static_bytes > SHIM_STATIC_BYTES || e->shared_bytes > SHIM_SHARED_BYTES ||
        end > SHIM_ARENA_BYTES || e->n_shared == SHIM_SHARED_NAMES)
        shim_fail(e,
                  "%s: with %zu bytes of shared memory, of them %zu static, a block has too many",
                  wanted->name, e->shared_bytes, e->static_bytes);
    struct shim_shared *s = &e->shared[e->n_shared++];
    *s = *wanted;
    s->base = e->arena + at;
    e->arena_used = end;
    SHIM_UNPOISON(s->base - GUARD, wanted->bytes + 2 * GUARD);
    shim_fill(s->base - GUARD, GUARD_BYTE, GUARD);
    shim_fill(s->base, POISON_BYTE, wanted->bytes);
    shim_fill(s->base + wanted->bytes, GUARD_BYTE, GUARD);
    SHIM_POISON(s->base - GUARD, GUARD);
    SHIM_POISON(s->base + wanted->bytes, GUARD);
    return s->base;
}

static void *get(const struct shim_shared *wanted, size_t align)
{
    struct shim_engine *e = shim_now;

    for (int i = 0; i < e->n_shared; i++)
        if (e->shared[i].key == wanted->key)
            return e->shared[i].base;
    return give(e, wanted, align);
}

void *tr_shim_shared(const void *key, const char *name, size_t bytes, size_t align)
{
    struct shim_shared wanted = {key, name, NULL, bytes};

    return get(&wanted, align);
}

void *tr_shim_shared_dynamic(const char *name)
{
    struct shim_shared wanted = {&dynamic_key, name, NULL, shim_now->g->shared_bytes};

    return get(&wanted, 16);
}

/* Offset of the first byte of a guard that was written, or -1. */
static long written(const char *guard)
{
    for (long i = 0; i < GUARD; i++)
        if ((unsigned char)guard[i] != GUARD_BYTE)
            return i;
    return -1;
}

static void check_guards(struct shim_engine *e, const struct shim_shared *s)
{
    long before, after;

    SHIM_UNPOISON(s->base - GUARD, GUARD);
    SHIM_UNPOISON(s->base + s->bytes, GUARD);
    before = written(s->base - GUARD);
    after = written(s->base + s->bytes);
    if (after >= 0)
        shim_fail(e, "shared memory %s of %zu bytes: written %ld bytes past its end", s->name,
                  s->bytes, after);
    else if (before >= 0)
        shim_fail(e, "shared memory %s of %zu bytes: written %ld bytes before its start", s->name,
                  s->bytes, GUARD - before);
}

void shim_shared_end(struct shim_engine *e)
{
    for (int i = 0; i < e->n_shared; i++)
        check_guards(e, &e->shared[i]);
#if TR_SHIM_TSAN
    shim_shared_free(e);
#endif
}

void shim_shared_free(struct shim_engine *e)
{
    if (e->arena)
        SHIM_UNPOISON(e->arena, SHIM_ARENA_BYTES);
    shim_free(e->arena);
    e->arena = NULL;
}

bool shim_shared_holds(const struct shim_engine *e, const void *p, size_t bytes)
{
    const char *at = (const char *)p;

    for (int i = 0; i < e->n_shared; i++) {
        const struct shim_shared *s = &e->shared[i];
        if (at >= s->base && at + bytes <= s->base + s->bytes)
            return true;
    }
    return false;
}
