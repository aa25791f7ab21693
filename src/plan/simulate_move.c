/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts through servers. A move gives out parts while its pool has any, reads and writes in turn,
 * the oldest move first; a part passes through the servers of its way one after the other.
 */
#include "src/plan/simulate_parts.h"

#include <string.h>

#include "offload/staging.h"
#include "src/base/err.h"
#include "src/base/mem.h"

#define DIRECT_PARTS (TR_IO_DEPTH + 16) /* in the drive's queue, and some whose checksums wait */
#define MOST_PARTS   60000              /* of a step: more tell nothing new */

/* Bytes that a step moves at most: every span of every visit, both ways. */
static double traffic(const struct tr_sim_params *p)
{
    double bytes = 0;

    for (uint32_t v = 0; v < p->n; v++)
        for (uint32_t k = 0; k < p->visits[v].n_spans; k++)
            bytes += (double)p->spans[p->visits[v].span[k]].bytes *
                     (1 + (p->visits[v].changed >> k & 1));
    return bytes;
}

int sim_moves_open(struct sim *s)
{
    uint64_t staging = s->p->staging_bytes ? s->p->staging_bytes : TR_STAGING_BYTES;
    uint64_t chunk = tr_chunk_bytes(staging), coarse;
    uint32_t count[SIM_POOLS] = {DIRECT_PARTS, (uint32_t)(staging / chunk), TR_HOME_PARTS};
    uint32_t n = 0;

    s->part_bytes[SIM_DIRECT] = TR_IO_CHUNK;
    s->part_bytes[SIM_STAGING] = chunk;
    s->part_bytes[SIM_HOMES] = TR_HOME_PART_CHUNKS * chunk;
    coarse = 1 + (uint64_t)(traffic(s->p) / MOST_PARTS / (double)TR_IO_CHUNK);
    for (int i = 0; i < SIM_POOLS; i++) {
        if (s->part_bytes[i] < coarse * TR_IO_CHUNK && coarse > 1)
            s->part_bytes[i] = coarse * TR_IO_CHUNK;
        n += count[i];
    }
    s->moves =
        tr_alloc_array(TR_MEM_MISC, 2 * (size_t)s->slots.n + s->p->n_spans, sizeof(*s->moves));
    s->parts = tr_alloc_array(TR_MEM_MISC, n, sizeof(*s->parts));
    s->filled = tr_alloc(TR_MEM_MISC, 2 * (size_t)s->p->n_spans);
    if (!s->moves || !s->parts || !s->filled)
        return -ENOMEM;
    s->writing = s->filled + s->p->n_spans;
    n = 0;
    for (int i = 0; i < SIM_POOLS; i++)
        for (uint32_t k = 0; k < count[i]; k++, n++) {
            s->parts[n].next = s->free[i];
            s->free[i] = &s->parts[n];
        }
    return 0;
}

void sim_moves_close(struct sim *s)
{
    tr_free(TR_MEM_MISC, s->moves);
    tr_free(TR_MEM_MISC, s->parts);
    tr_free(TR_MEM_MISC, s->filled);
}

static int is_staged(const struct sim *s, uint32_t slot)
{
    return s->p->staged && !s->p->pools[s->slots.slot[slot].pool].host;
}

static void set_stages(const struct sim *s, struct sim_move *m)
{
    int n = 0, copies = is_staged(s, m->slot) || m->home;

    if (m->way == SIM_WRITE && copies)
        m->stage[n++] = TR_SERVE_OUT;
    if (!m->diskless) {
        m->stage[n++] = TR_SERVE_DRIVE;
        m->stage[n++] = TR_SERVE_HASH;
    }
    if (m->way == SIM_READ && copies)
        m->stage[n++] = TR_SERVE_IN;
    m->stage[n] = TR_SERVERS;
}

static void tally(struct sim *s, const struct sim_move *m)
{
    uint64_t bytes = s->p->spans[m->span].bytes;
    struct tr_sim_result *r = s->out;
    uint32_t last = s->p->steps - 1;

    if (m->step > last)
        return; /* of the step that only follows */
    r->copied_bytes += m->step == last && (m->home || is_staged(s, m->slot)) ? bytes : 0;
    if (m->way == SIM_WRITE) {
        uint64_t disk = m->diskless ? 0 : bytes;

        r->total_written_bytes += disk;
        r->written_bytes += m->step == last ? disk : 0;
        r->written[m->step] += disk;
        r->spilled_bytes += m->scratch && m->step == last ? bytes : 0;
        return;
    }
    r->loads += m->step == last && !m->scratch;
    if (m->diskless) {
        r->first_host_bytes += m->step == 0 ? bytes : 0;
        r->host_bytes += m->step == last ? bytes : 0;
        return;
    }
    r->total_read_bytes += bytes;
    r->first_read_bytes += m->step == 0 ? bytes : 0;
    r->read_bytes += m->step == last ? bytes : 0;
}

void sim_move_start(struct sim *s, enum sim_way way, uint32_t slot, uint32_t step)
{
    uint32_t span = s->slots.slot[slot].span;
    int home = sim_has_home(s, span);
    int scratch = sim_is_scratch(s, span);
    int lazy = way == SIM_WRITE && s->p->durability != TR_DURABLE_STEP;
    uint32_t at = way == SIM_READ ? slot : home ? 2 * s->slots.n + span : s->slots.n + slot;
    struct sim_move *m = &s->moves[at], **last = &s->list[way];

    *m = (struct sim_move){.way = way,
                           .pool = home                 ? SIM_HOMES
                                   : is_staged(s, slot) ? SIM_STAGING
                                                        : SIM_DIRECT,
                           .slot = slot,
                           .span = span,
                           .step = step,
                           .home = home,
                           .scratch = scratch,
                           .diskless =
                               home && (scratch || lazy || (way == SIM_READ && s->filled[span]))};
    if (home && way == SIM_WRITE)
        s->writing[span] = 1;
    set_stages(s, m);
    tally(s, m);
    while (*last)
        last = &(*last)->next;
    *last = m;
}

static void finish_move(struct sim *s, struct sim_move *m)
{
    struct sim_move **at = &s->list[m->way];

    while (*at != m)
        at = &(*at)->next;
    *at = m->next;
    s->kicked = 1;
    if (m->way == SIM_READ) {
        tr_slot_loaded(&s->slots, m->slot);
        s->filled[m->span] = m->home != 0;
        return;
    }
    if (!m->slot_free)
        tr_slot_written(&s->slots, m->slot);
    s->writing[m->span] = 0;
    s->filled[m->span] |= m->home != 0;
    if (m->scratch)
        s->saving--;
    else
        s->pending[m->step & 1]--;
}

static void enqueue(struct sim *s, struct sim_part *part)
{
    enum tr_server which = (enum tr_server)part->move->stage[part->stage];
    struct sim_line *l =
        &s->server[which].line[which == TR_SERVE_DRIVE ? part->move->way : SIM_READ];

    part->next = NULL;
    if (l->last)
        l->last->next = part;
    else
        l->first = part;
    l->last = part;
}

static struct sim_move *first_wanting(const struct sim *s, enum sim_way way, enum sim_pool pool)
{
    struct sim_move *m = s->list[way];

    while (m && (m->pool != pool || m->given == s->p->spans[m->span].bytes))
        m = m->next;
    return m;
}

static int hand_out(struct sim *s, enum sim_pool pool)
{
    int did = 0;

    while (s->free[pool]) {
        struct sim_move *r = first_wanting(s, SIM_READ, pool);
        struct sim_move *w = first_wanting(s, SIM_WRITE, pool);
        struct sim_move *m = w && (!r || s->gave[pool] == SIM_READ) ? w : r;
        struct sim_part *part = s->free[pool];
        uint64_t left;

        if (!m)
            break;
        s->free[pool] = part->next;
        left = s->p->spans[m->span].bytes - m->given;
        part->move = m;
        part->stage = 0;
        part->bytes = left < s->part_bytes[pool] ? left : s->part_bytes[pool];
        m->given += part->bytes;
        s->gave[pool] = m->way;
        enqueue(s, part);
        did = 1;
    }
    return did;
}

/* Both directions of copies go on at once, as fast as the two together can. */
static double copy_rate(const struct sim *s, enum tr_server which)
{
    const struct tr_sim_rates *r = &s->p->rates;
    enum tr_server other = which == TR_SERVE_IN ? TR_SERVE_OUT : TR_SERVE_IN;
    double alone = which == TR_SERVE_IN ? r->in : r->out;

    return s->server[other].busy && r->both > 0 && r->both / 2 < alone ? r->both / 2 : alone;
}

static double rate_of(const struct sim *s, enum tr_server which, const struct sim_part *part,
                      int both)
{
    const struct tr_sim_rates *r = &s->p->rates;

    if (which == TR_SERVE_HASH)
        return r->hash;
    if (which != TR_SERVE_DRIVE)
        return copy_rate(s, which);
    if (both)
        return r->mixed;
    return part->move->way == SIM_READ ? r->read : r->write;
}

static int serve(struct sim *s, enum tr_server which)
{
    struct sim_server *v = &s->server[which];
    enum sim_way way = which == TR_SERVE_DRIVE && v->last == SIM_READ ? SIM_WRITE : SIM_READ;
    int both = v->line[SIM_READ].first && v->line[SIM_WRITE].first;
    struct sim_line *l;
    double rate;

    if (v->busy || (!v->line[SIM_READ].first && !v->line[SIM_WRITE].first))
        return 0;
    if (!v->line[way].first)
        way = way == SIM_READ ? SIM_WRITE : SIM_READ;
    l = &v->line[way];
    v->now = l->first;
    l->first = l->first->next;
    if (!l->first)
        l->last = NULL;
    v->last = way;
    rate = rate_of(s, which, v->now, both);
    v->until = s->now + (rate > 0 ? (double)v->now->bytes / rate : 0);
    v->busy = 1;
    return 1;
}

int sim_moves_advance(struct sim *s)
{
    int did = 0;

    for (int i = 0; i < SIM_POOLS; i++)
        did |= hand_out(s, (enum sim_pool)i);
    for (int i = TR_SERVE_DRIVE; i < TR_SERVE_CPU; i++)
        did |= serve(s, (enum tr_server)i);
    return did;
}

void sim_server_done(struct sim *s, enum tr_server which)
{
    struct sim_part *part = s->server[which].now;
    struct sim_move *m = part->move;
    uint64_t bytes = s->p->spans[m->span].bytes;

    s->server[which].busy = 0;
    if (which == TR_SERVE_HASH && s->server[TR_SERVE_COMPUTE].busy)
        s->server[TR_SERVE_COMPUTE].until += s->p->rates.drag * (double)part->bytes;
    if (which == TR_SERVE_OUT) {
        m->out += part->bytes;
        if (m->home && m->out == bytes) { /* safe in its home: what remains needs no slot */
            m->slot_free = 1;
            tr_slot_written(&s->slots, m->slot);
            s->kicked = 1;
        }
    }
    if (m->stage[++part->stage] != TR_SERVERS) {
        enqueue(s, part);
        return;
    }
    m->done += part->bytes;
    part->next = s->free[m->pool];
    s->free[m->pool] = part;
    if (m->done == bytes)
        finish_move(s, m);
}
