/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/offload/player.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "src/base/mem.h"

/* Chunks of one block: every span is larger than all of the staging memory. */
const struct way ways[WAYS] = {
    [WAY_DIRECT] = {"straight into the slots"},
    [WAY_STAGED] = {"staged", 1, 2 * TR_STORE_ALIGN},
    [WAY_STAGED_HOMES] = {"staged, some spans at home", 1, 32 * TR_STORE_ALIGN, 0x5866},
    [WAY_HOMES] = {"visible, some spans at home", 0, 16 * TR_STORE_ALIGN, 0xa53c},
};

/* The work of one visit, done on the compute stream. */
struct work {
    const struct tr_layout *layout;
    struct tr_visit visit;
    char *at[TR_VISIT_SPANS];
    uint64_t salt;
    uint64_t expected[TR_VISIT_SPANS];
    struct player *player;
};

static uint64_t hash_span(const struct tr_layout *l, uint32_t span, const char *bytes)
{
    const struct tr_span *s = &l->spans[span];
    uint64_t h = 0;

    for (uint32_t i = s->first_piece; i < s->first_piece + s->n_pieces; i++)
        h = h * 31 + XXH3_64bits(bytes + l->pieces[i].offset, l->pieces[i].bytes);
    return h;
}

/* Eight bytes at a time: under ThreadSanitizer every access is a call. */
static void transform_piece(unsigned char *c, uint64_t bytes, uint64_t salt)
{
    uint64_t k = 0, word;

    for (; k + sizeof(word) <= bytes; k += sizeof(word)) {
        memcpy(&word, c + k, sizeof(word));
        word = word * 5 + salt + k;
        memcpy(c + k, &word, sizeof(word));
    }
    for (; k < bytes; k++)
        c[k] = (unsigned char)(c[k] * 5 + salt + k);
}

static void transform(const struct tr_layout *l, uint32_t span, char *bytes, uint64_t salt)
{
    const struct tr_span *s = &l->spans[span];

    for (uint32_t i = s->first_piece; i < s->first_piece + s->n_pieces; i++)
        transform_piece((unsigned char *)bytes + l->pieces[i].offset, l->pieces[i].bytes, salt);
}

/* What a visit makes afresh does not depend on what was there. */
static void make(const struct tr_layout *l, uint32_t span, char *bytes)
{
    memset(bytes, 0x5a, l->spans[span].bytes);
}

static void do_work(void *arg)
{
    struct work *w = arg;

    for (uint32_t k = 0; k < w->visit.n_spans; k++) {
        uint32_t span = w->visit.span[k];

        if (w->visit.fresh >> k & 1)
            make(w->layout, span, w->at[k]);
        else if (hash_span(w->layout, span, w->at[k]) != w->expected[k])
            __atomic_fetch_add(&w->player->mismatches, 1, __ATOMIC_RELAXED);
        if (w->visit.changed >> k & 1)
            transform(w->layout, span, w->at[k], w->salt);
    }
    free(w);
}

/* Scratch span `i`, where there is one; made: it is fresh. */
static void add_scratch(const struct player *p, struct tr_visit *v, uint32_t i, int made)
{
    if (i >= p->p.scratch)
        return;
    v->changed |= (uint32_t)made << v->n_spans;
    v->fresh |= (uint32_t)made << v->n_spans;
    v->span[v->n_spans++] = p->layout.n_spans + i;
}

/* Unit i with its parameters, and where it is changed with its state. */
static struct tr_visit unit(const struct player *p, uint32_t i, int changed)
{
    if (!p->p.paired)
        return (struct tr_visit){.n_spans = 1, .span = {i}, .changed = (uint32_t)changed};
    return (struct tr_visit){
        .n_spans = 1u + (uint32_t)changed, .span = {2 * i, 2 * i + 1}, .changed = changed ? 3 : 0};
}

static uint32_t passes(const struct player *p, struct tr_visit *v, int norm)
{
    uint32_t at = 0, n = p->layout.n_spans / (p->p.paired ? 2 : 1);

    for (uint32_t i = 0; i < n; i++, at++) {
        v[at] = unit(p, i, 0);
        add_scratch(p, &v[at], i - 1, 0);
        add_scratch(p, &v[at], i, 1);
    }
    for (int pass = !norm; pass < 2; pass++)
        for (uint32_t i = n; i-- > 0; at++) {
            v[at] = unit(p, i, pass == 1);
            add_scratch(p, &v[at], i, 0);
        }
    return at;
}

/* One or two scratch spans, made, changed or read; `made`: those that have been made so far. */
static void add_random_scratch(struct player *p, struct tr_visit *v, uint32_t *made)
{
    uint32_t first = rng_below(&p->rng, p->p.scratch), n = 1 + rng_below(&p->rng, 2);

    for (uint32_t j = 0; j < n; j++) {
        uint32_t i = (first + j) % p->p.scratch, fresh = !(*made >> i & 1);

        fresh |= rng_below(&p->rng, 4) == 0;
        add_scratch(p, v, i, (int)fresh);
        v->changed |= rng_below(&p->rng, 2) << (v->n_spans - 1);
        *made |= 1u << i;
    }
}

/* Any spans, as many of each pool as it has slots, any of them changed, again and again. */
static uint32_t random_visits(struct player *p, struct tr_visit *v)
{
    uint32_t n = 4 + rng_below(&p->rng, 12), made = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t used[MAX_POOLS] = {0}, wanted = 1 + rng_below(&p->rng, 4);

        memset(&v[i], 0, sizeof(v[i]));
        for (uint32_t k = 0; k < wanted; k++) {
            uint32_t span = rng_below(&p->rng, p->layout.n_spans), again = 0;
            uint32_t pool = p->p.shared ? 0 : p->layout.spans[span].pool;

            for (uint32_t j = 0; j < v[i].n_spans; j++)
                again |= v[i].span[j] == span;
            if (again || used[pool] == p->p.slots[pool])
                continue;
            used[pool]++;
            v[i].changed |= rng_below(&p->rng, 2) << v[i].n_spans;
            v[i].span[v[i].n_spans++] = span;
        }
        if (p->p.scratch)
            add_random_scratch(p, &v[i], &made);
    }
    return n;
}

static uint32_t make_visits(struct player *p, int kind, struct tr_visit *v)
{
    return kind == 2 ? random_visits(p, v) : passes(p, v, kind);
}

static void queue_work(struct player *p, const struct tr_visit *v, uint32_t visit, void **at)
{
    struct work *w = calloc(1, sizeof(*w));

    w->layout = &p->all;
    w->visit = *v;
    w->player = p;
    w->salt = p->step * 131 + visit * 17;
    for (uint32_t k = 0; k < v->n_spans; k++) {
        w->at[k] = test_device_memory(p->device, at[k]);
        if (v->fresh >> k & 1)
            make(&p->all, v->span[k], p->model[v->span[k]]);
        w->expected[k] = hash_span(&p->all, v->span[k], p->model[v->span[k]]);
        if (v->changed >> k & 1)
            transform(&p->all, v->span[k], p->model[v->span[k]], w->salt);
    }
    test_device_run(p->device, do_work, w);
}

int player_visit(struct player *p, const struct tr_visit *v, uint32_t visit)
{
    void *at[TR_VISIT_SPANS];
    int r = tr_offload_acquire(p->o, visit, at);

    if (r < 0)
        return r;
    queue_work(p, v, visit, at);
    return tr_offload_release(p->o, visit);
}

int player_step(struct player *p, int kind, int next_kind)
{
    struct tr_visit v[MAX_VISITS] = {0}, next[MAX_VISITS] = {0};
    uint32_t n = make_visits(p, kind, v);
    uint32_t n_next = next_kind < 0 || next_kind == 2 ? 0 : make_visits(p, next_kind, next);
    int r = tr_offload_begin(p->o, v, n, next, n_next);

    p->step++;
    for (uint32_t i = 0; i < n && r == 0; i++)
        r = player_visit(p, &v[i], i);
    return r;
}

int player_commit(struct player *p)
{
    return tr_offload_commit(p->o, &p->step, sizeof(p->step));
}

int player_open_engine(struct player *p)
{
    static const struct tr_drive drives[] = {{3, 1 << 30}, {1, 1 << 30}, {2, 1 << 30}};
    struct tr_slot_pool pools[MAX_POOLS];
    struct tr_scratch scratch[64];
    unsigned char in_host[64] = {0};
    char *base = p->device->ops->arena(p->device);
    struct tr_offload_params op = {.store = p->store,
                                   .device = p->device,
                                   .pools = pools,
                                   .n_pools = p->p.shape.n_pools + (p->p.scratch > 0),
                                   .scratch = scratch,
                                   .n_scratch = p->p.scratch,
                                   .io = p->p.io,
                                   .durability = p->p.durability,
                                   .prefetch = p->p.prefetch,
                                   .serial = p->p.serial,
                                   .staging_bytes = p->p.way.staging_bytes,
                                   .in_host = p->p.way.in_host ? in_host : NULL};

    for (uint32_t i = 0; i < p->all.n_spans; i++)
        in_host[i] = p->p.way.in_host >> i & 1;
    for (uint32_t i = 0; i < p->p.scratch; i++) {
        const struct tr_span *s = &p->all.spans[p->layout.n_spans + i];

        scratch[i] = (struct tr_scratch){s->pool, s->bytes, !in_host[p->layout.n_spans + i]};
        p->spilling |= scratch[i].spills;
    }
    for (uint32_t i = 0; i < op.n_pools; i++) {
        pools[i] = (struct tr_slot_pool){base, span_max_bytes(&p->all, i), p->p.slots[i]};
        base += pools[i].slot_bytes * pools[i].n_slots;
    }
    if (p->p.folders > 1 && p->spilling) {
        tr_stripes_free(&p->stripes);
        assert_ok(
            tr_stripes_make_scratch(&p->stripes, scratch, op.n_scratch, drives, p->p.folders));
        op.scratch_stripes = &p->stripes;
    }
    if (p->p.shared) { /* the room of both is enough for as many slots of the larger size */
        if (pools[0].slot_bytes < pools[1].slot_bytes)
            pools[0].slot_bytes = pools[1].slot_bytes;
        pools[1] = (struct tr_slot_pool){.slot_bytes = pools[1].slot_bytes, .shares = 1};
    }
    return tr_offload_open(&p->o, &op);
}

static char *first_of(const char *list)
{
    return strndup(list, strcspn(list, ":"));
}

/* The same spans, and behind them scratch, one piece each, in a pool of its own. */
static void lay_out(struct player *p)
{
    struct shape shape = p->p.shape;

    test_layout(&p->layout, &shape);
    shape.n_spans += p->p.scratch;
    test_layout(&p->all, &shape);
    for (uint32_t i = p->layout.n_spans; i < p->all.n_spans; i++) {
        struct tr_span *s = &p->all.spans[i];

        s->pool = p->p.shape.n_pools;
        s->n_pieces = 1;
        p->all.pieces[s->first_piece].bytes = s->bytes;
    }
}

void player_open(struct player *p, const struct player_params *params)
{
    struct test_device_params dp = {.delay_seed = params->seed,
                                    .max_delay_us = params->max_delay_us,
                                    .opaque = params->way.opaque,
                                    .mutant = params->mutant,
                                    .fault = params->fault,
                                    .fault_after = params->fault_after};

    memset(p, 0, sizeof(*p));
    p->p = *params;
    p->rng = params->seed;
    p->folders = test_folders(params->folders ? params->folders : 1);
    p->folder = first_of(p->folders);
    lay_out(p);
    p->model = calloc(p->all.n_spans, sizeof(*p->model));
    for (uint32_t i = 0; i < p->all.n_spans; i++) {
        p->model[i] = calloc(1, p->all.spans[i].bytes);
        fill_span(p->model[i], &p->all, i, 0);
    }
    for (uint32_t i = 0; i <= params->shape.n_pools; i++) {
        uint32_t in_pool = 0;

        for (uint32_t k = 0; k < p->all.n_spans; k++)
            in_pool += p->all.spans[k].pool == i;
        if (!p->p.slots[i])
            p->p.slots[i] = in_pool;
        dp.arena_bytes += span_max_bytes(&p->all, i) * p->p.slots[i];
    }
    p->device = test_device(&dp);
    p->store =
        test_store(p->folders, &p->layout, params->durability == TR_DURABLE_NONE ? 1 : 2, NULL);
    if (params->faulty)
        p->store->hook = (struct tr_io_hook){faulty_wrap, params->faulty};
    tr_store_close_queue(p->store);
    assert_ok(player_open_engine(p));
}

int player_compare_store(struct player *p, char **model)
{
    char *buf = tr_alloc_pages(TR_MEM_IO, TR_PIECE_BYTES);
    int r = 0;

    for (uint32_t k = 0; k < p->layout.n_pieces && r == 0; k++) {
        const struct tr_piece *piece = &p->layout.pieces[k];
        const char *want = model[tr_layout_span_of(&p->layout, k)] + piece->offset;

        r = tr_store_read_piece(p->store, k, buf);
        if (r == 0 && memcmp(buf, want, piece->bytes))
            r = tr_error(-EILSEQ, "%s: not what the model holds", piece->name);
    }
    tr_free_pages(TR_MEM_IO, buf, TR_PIECE_BYTES);
    return r;
}

int player_reopen(struct player *p)
{
    struct tr_io_hook hook = p->store->hook;
    int r = tr_offload_close(p->o);

    p->o = NULL;
    tr_store_close(p->store);
    p->store = NULL;
    if (r < 0)
        return r;
    r = tr_store_open_hooked(&p->store, p->folders, TR_STORE_WRITE, &hook);
    return r < 0 ? r : player_compare_store(p, p->model);
}

char **model_copy(const struct tr_layout *l, char **model)
{
    char **copy = calloc(l->n_spans, sizeof(*copy));

    for (uint32_t i = 0; i < l->n_spans; i++) {
        copy[i] = malloc(l->spans[i].bytes);
        memcpy(copy[i], model[i], l->spans[i].bytes);
    }
    return copy;
}

void model_free(const struct tr_layout *l, char **model)
{
    for (uint32_t i = 0; i < l->n_spans; i++)
        free(model[i]);
    free(model);
}

void player_close(struct player *p)
{
    tr_offload_close(p->o);
    tr_store_close(p->store);
    p->device->ops->close(p->device);
    model_free(&p->all, p->model);
    tr_layout_free(&p->layout);
    tr_layout_free(&p->all);
    tr_stripes_free(&p->stripes);
    tr_free(TR_MEM_MISC, p->folders);
    free(p->folder);
}

int player_play(const struct player_params *params, int steps, struct tr_offload_stats *stats)
{
    struct player p;
    int r = 0;

    player_open(&p, params);
    for (int i = 0; i < steps && r == 0; i++) {
        int kind = i % 4 == 3 ? 2 : i % 3 == 1;

        r = player_step(&p, kind, i + 1 < steps ? 0 : -1);
        if (r == 0 && (params->durability == TR_DURABLE_STEP || i + 1 == steps ||
                       (params->durability == TR_DURABLE_CHECKPOINT && i % 3 == 2)))
            r = player_commit(&p);
    }
    if (r == 0)
        r = tr_offload_commit_wait(p.o);
    if (stats && r == 0)
        tr_offload_stats(p.o, stats);
    if (r == 0)
        r = player_reopen(&p);
    if (r == 0 && p.mismatches)
        r = tr_error(-EILSEQ, "%llu visits saw other bytes", (unsigned long long)p.mismatches);
    player_close(&p);
    return r;
}

int player_tells(int r)
{
    if (r < 0 && r != -EBADMSG && r != -EILSEQ)
        fail_msg("no sign of the defect: %s", tr_error_message());
    return r < 0;
}
