/* SPDX-License-Identifier: Apache-2.0
 *
 * Parts through servers. A move gives out parts while its pool has any, reads and writes in turn,
 * the oldest move first; a part passes through the servers of its way one after the other, where
 * drives are one stage: a part that lies on several of them is in the line of each.
 */
#include "src/plan/simulate_parts.h"

#include <math.h>
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

/* ---- which drive has what ---- */

/* NULL: all of it is in the first folder. Scratch that does not spill has no place in any. */
static const struct tr_stripes *stripes_of(const struct sim *s, uint32_t span)
{
    const struct tr_span *of = &s->p->spans[span];
    const struct tr_stripes *scratch = s->p->scratch_stripes;

    if (s->n_folders == 1)
        return NULL;
    if (!sim_is_scratch(s, span))
        return s->p->stripes;
    return scratch && of->offset + of->bytes <= scratch->bytes ? scratch : NULL;
}

/* The folder of a byte of the span; *end: where what lies there ends, in the span. */
static uint32_t folder_at(const struct sim *s, uint32_t span, uint64_t at, uint64_t *end)
{
    const struct tr_span *of = &s->p->spans[span];
    const struct tr_stripes *stripes = stripes_of(s, span);
    struct tr_stripe_place place;

    *end = of->bytes;
    if (!stripes)
        return 0;
    place = tr_stripes_find(stripes, of->offset + at);
    if (place.end - of->offset < of->bytes)
        *end = place.end - of->offset;
    return place.folder;
}

/* Adds what lies on each drive of these bytes of a span. */
static void share_out(const struct sim *s, uint32_t span, uint64_t from, uint64_t to, uint64_t *on)
{
    while (from < to) {
        uint64_t end;
        uint32_t drive = sim_drive_of(s, folder_at(s, span, from, &end));

        end = end < to ? end : to;
        on[drive] += end - from;
        from = end;
    }
}

static int open_drives(struct sim *s)
{
    uint32_t n = s->p->n_spans;

    s->n_drives = s->p->rates.n_drives ? s->p->rates.n_drives : 1;
    s->n_folders = s->p->stripes && s->p->stripes->n ? s->p->stripes->n_folders : 1;
    s->out->n_drives = s->n_drives;
    s->on = tr_alloc_array(TR_MEM_MISC, (size_t)n * s->n_drives, sizeof(*s->on));
    for (uint32_t i = 0; s->on && i < n; i++)
        share_out(s, i, 0, s->p->spans[i].bytes, &s->on[(size_t)i * s->n_drives]);
    return s->on ? 0 : -ENOMEM;
}

/* ---- moves ---- */

int sim_moves_open(struct sim *s)
{
    uint64_t staging = s->p->staging_bytes ? s->p->staging_bytes : TR_STAGING_BYTES;
    uint64_t chunk = tr_chunk_bytes(staging), coarse;
    uint32_t count[SIM_POOLS] = {(uint32_t)(staging / chunk), TR_HOME_PARTS};
    uint32_t n = 0;

    if (open_drives(s) < 0)
        return -ENOMEM;
    for (uint32_t k = 0; k < TR_STORE_FOLDERS; k++) {
        count[SIM_DIRECT + k] = k < s->n_folders ? DIRECT_PARTS : 0;
        s->part_bytes[SIM_DIRECT + k] = TR_IO_CHUNK;
    }
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
    s->filled = tr_alloc(TR_MEM_MISC, 3 * (size_t)s->p->n_spans);
    if (!s->moves || !s->parts || !s->filled)
        return -ENOMEM;
    s->writing = s->filled + s->p->n_spans;
    s->kept = s->writing + s->p->n_spans;
    n = 0;
    for (int i = 0; i < SIM_POOLS; i++)
        for (uint32_t k = 0; k < count[i]; k++, n++) {
            for (uint32_t d = 0; d < TR_STORE_FOLDERS; d++)
                s->parts[n].turn[d].part = &s->parts[n];
            s->parts[n].next = s->free[i];
            s->free[i] = &s->parts[n];
        }
    return 0;
}

void sim_moves_close(struct sim *s)
{
    tr_free(TR_MEM_MISC, s->on);
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

static void tally_drives(struct sim *s, const struct sim_move *m)
{
    for (uint32_t d = 0; d < s->n_drives; d++) {
        struct tr_sim_drive *r = &s->out->drive[d];
        uint64_t bytes = sim_on(s, m->span, d), of_last = m->step + 1 == s->p->steps ? bytes : 0;

        if (m->way == SIM_WRITE) {
            r->written[m->step] += bytes;
            r->written_bytes += of_last;
            continue;
        }
        r->first_read_bytes += m->step == 0 ? bytes : 0;
        r->total_read_bytes += bytes;
        r->read_bytes += of_last;
    }
}

static void tally(struct sim *s, const struct sim_move *m)
{
    uint64_t bytes = s->p->spans[m->span].bytes;
    struct tr_sim_result *r = s->out;
    uint32_t last = s->p->steps - 1;

    if (m->step > last)
        return; /* of the step that only follows */
    if (!m->diskless)
        tally_drives(s, m);
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

static void add(struct sim *s, struct sim_move *m)
{
    struct sim_move *last = s->last[m->way];

    tally(s, m);
    s->offers = 1;
    *(last ? &last->next : &s->list[m->way]) = m;
    s->last[m->way] = m;
    for (int i = 0; i < SIM_POOLS; i++)
        if (!s->wanting[m->way][i])
            s->wanting[m->way][i] = m;
}

void sim_move_start(struct sim *s, enum sim_way way, uint32_t slot, uint32_t step)
{
    uint32_t span = s->slots.slot[slot].span;
    int home = sim_has_home(s, span);
    int scratch = sim_is_scratch(s, span);
    int lazy = way == SIM_WRITE && s->p->durability != TR_DURABLE_STEP;
    uint32_t at = way == SIM_READ ? slot : home ? 2 * s->slots.n + span : s->slots.n + slot;
    struct sim_move *m = &s->moves[at];

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
    add(s, m);
}

uint32_t sim_homes_start(struct sim *s)
{
    uint32_t n = 0;

    for (uint32_t span = 0; span < s->p->n_spans; span++) {
        struct sim_move *m = &s->moves[2 * s->slots.n + span];

        if (!s->kept[span])
            continue;
        *m = (struct sim_move){.way = SIM_WRITE,
                               .pool = SIM_HOMES,
                               .span = span,
                               .step = s->flush_step,
                               .home = 1,
                               .slot_free = 1,
                               .stage = {TR_SERVE_DRIVE, TR_SERVE_HASH, TR_SERVERS}};
        s->kept[span] = 0;
        s->writing[span] = 1;
        add(s, m);
        n++;
    }
    return n;
}

static void take_off_list(struct sim *s, const struct sim_move *m)
{
    struct sim_move **at = &s->list[m->way], *before = NULL;

    for (; *at != m; at = &before->next)
        before = *at;
    *at = m->next;
    if (!m->next)
        s->last[m->way] = before;
    for (int i = 0; i < SIM_POOLS; i++)
        if (s->wanting[m->way][i] == m)
            s->wanting[m->way][i] = m->next;
}

static void finish_move(struct sim *s, struct sim_move *m)
{
    take_off_list(s, m);
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
    s->kept[m->span] |= m->diskless && !m->scratch;
    if (m->scratch)
        s->saving--;
    else
        s->pending[sim_epoch(s, m->step) & 1]--;
}

static void join(struct sim_line *l, struct sim_turn *turn)
{
    turn->next = NULL;
    if (l->last)
        l->last->next = turn;
    else
        l->first = turn;
    l->last = turn;
}

static void enqueue(struct sim *s, struct sim_part *part)
{
    enum tr_server which = (enum tr_server)part->move->stage[part->stage];
    uint64_t on[TR_STORE_FOLDERS] = {0};

    if (which != TR_SERVE_DRIVE) {
        part->turn[0].bytes = part->bytes;
        part->under_way = 1;
        s->work[part->move->step].server[which] += part->bytes;
        join(&s->server[which].line[SIM_READ], &part->turn[0]);
        return;
    }
    share_out(s, part->move->span, part->at, part->at + part->bytes, on);
    for (uint32_t d = 0; d < s->n_drives; d++) {
        if (!on[d])
            continue;
        part->turn[d].bytes = on[d];
        part->under_way++;
        s->work[part->move->step].drive[d][part->move->way] += on[d];
        join(&s->drive[d].line[part->move->way], &part->turn[d]);
    }
}

/* The next bytes of the move for a part of this pool; 0: there are none (left). What drives take
 * themselves is given to each folder by itself, anything else in order. */
static uint64_t next_bytes(const struct sim *s, struct sim_move *m, enum sim_pool pool,
                           uint64_t *at)
{
    const struct tr_span *span = &s->p->spans[m->span];
    const struct tr_stripes *stripes = stripes_of(s, m->span);
    uint32_t folder = pool - SIM_DIRECT;
    uint64_t end = span->bytes;

    *at = m->given;
    if (m->pool != (pool < SIM_DIRECT ? pool : SIM_DIRECT))
        return 0;
    if (pool >= SIM_DIRECT && stripes) {
        *at = tr_stripes_next(stripes, folder, span->offset + m->offered[folder],
                              span->offset + span->bytes) -
              span->offset;
        m->offered[folder] = *at;
        if (*at < span->bytes)
            folder_at(s, m->span, *at, &end);
    } else if (pool > SIM_DIRECT) {
        return 0;
    }
    return end - *at < s->part_bytes[pool] ? end - *at : s->part_bytes[pool];
}

/* What a move has given it never takes back, so nobody has to ask it again. */
static struct sim_move *first_wanting(struct sim *s, enum sim_way way, enum sim_pool pool)
{
    struct sim_move **m = &s->wanting[way][pool];
    uint64_t at;

    while (*m && !next_bytes(s, *m, pool, &at))
        *m = (*m)->next;
    return *m;
}

static int hand_out(struct sim *s, enum sim_pool pool)
{
    int did = 0;

    while (s->free[pool]) {
        struct sim_move *r = first_wanting(s, SIM_READ, pool);
        struct sim_move *w = first_wanting(s, SIM_WRITE, pool);
        struct sim_move *m = w && (!r || s->gave[pool] == SIM_READ) ? w : r;
        struct sim_part *part = s->free[pool];

        if (!m)
            break;
        s->free[pool] = part->next;
        part->move = m;
        part->pool = pool;
        part->stage = 0;
        part->bytes = next_bytes(s, m, pool, &part->at);
        m->given += part->bytes;
        if (pool >= SIM_DIRECT)
            m->offered[pool - SIM_DIRECT] = part->at + part->bytes;
        s->gave[pool] = m->way;
        enqueue(s, part);
        did = 1;
    }
    return did;
}

/* ---- servers ---- */

static int has_turns(const struct sim_server *v)
{
    return v->line[SIM_READ].first || v->line[SIM_WRITE].first;
}

/* Both directions of copies go on at once, as fast as the two together can. */
static double copy_rate(const struct sim *s, enum tr_server which)
{
    const struct tr_sim_rates *r = &s->p->rates;
    enum tr_server other = which == TR_SERVE_IN ? TR_SERVE_OUT : TR_SERVE_IN;
    double alone = which == TR_SERVE_IN ? r->in : r->out;

    return s->server[other].busy && r->both > 0 && r->both / 2 < alone ? r->both / 2 : alone;
}

static double rate_of_ways(const struct tr_drive_ways *w, enum sim_way way, int both)
{
    return both ? w->mixed : way == SIM_READ ? w->read : w->write;
}

/* Between its rate alone and that beside all others, by how many of them are at work. */
static double drive_rate(const struct sim *s, uint32_t drive, enum sim_way way, int both)
{
    const struct tr_drive_rates *r = &s->p->rates.drive[drive];
    double alone = rate_of_ways(&r->alone, way, both), beside = rate_of_ways(&r->beside, way, both);
    uint32_t others = 0;

    for (uint32_t d = 0; d < s->n_drives; d++)
        others += d != drive && (s->drive[d].busy || has_turns(&s->drive[d]));
    if (!others || !(beside > 0))
        return alone;
    return alone + (beside - alone) * others / (s->n_drives - 1);
}

static void begin_turn(struct sim *s, struct sim_server *v, enum sim_way way, double rate)
{
    struct sim_line *l = &v->line[way];

    v->now = l->first;
    l->first = l->first->next;
    if (!l->first)
        l->last = NULL;
    v->last = way;
    v->until = s->now + (rate > 0 ? (double)v->now->bytes / rate : 0);
    v->busy = 1;
}

static int serve(struct sim *s, enum tr_server which)
{
    struct sim_server *v = &s->server[which];

    if (v->busy || !has_turns(v))
        return 0;
    begin_turn(s, v, SIM_READ, which == TR_SERVE_HASH ? s->p->rates.hash : copy_rate(s, which));
    return 1;
}

/* Reads and writes in turn, where there are both. */
static int serve_drive(struct sim *s, uint32_t drive)
{
    struct sim_server *v = &s->drive[drive];
    enum sim_way way = v->last == SIM_READ ? SIM_WRITE : SIM_READ;
    int both = v->line[SIM_READ].first && v->line[SIM_WRITE].first;

    if (v->busy || !has_turns(v))
        return 0;
    if (!v->line[way].first)
        way = way == SIM_READ ? SIM_WRITE : SIM_READ;
    begin_turn(s, v, way, drive_rate(s, drive, way, both));
    return 1;
}

int sim_moves_advance(struct sim *s)
{
    int did = 0;

    for (int i = 0; s->offers && i < SIM_POOLS; i++)
        did |= hand_out(s, (enum sim_pool)i);
    s->offers = 0;
    for (uint32_t d = 0; d < s->n_drives; d++)
        did |= serve_drive(s, d);
    for (int i = TR_SERVE_HASH; i < TR_SERVE_CPU; i++)
        did |= serve(s, (enum tr_server)i);
    return did;
}

double sim_moves_next(const struct sim *s)
{
    double t = INFINITY;

    for (uint32_t d = 0; d < s->n_drives; d++)
        t = sim_earlier(&s->drive[d], t);
    for (int i = TR_SERVE_HASH; i < TR_SERVE_CPU; i++)
        t = sim_earlier(&s->server[i], t);
    return t;
}

static void end_part(struct sim *s, struct sim_part *part)
{
    struct sim_move *m = part->move;

    m->done += part->bytes;
    part->next = s->free[part->pool];
    s->free[part->pool] = part;
    s->offers = 1;
    if (m->done == s->p->spans[m->span].bytes)
        finish_move(s, m);
}

/* What its own server has to say about a part that leaves it. */
static void leave(struct sim *s, enum tr_server which, const struct sim_part *part)
{
    struct sim_move *m = part->move;

    if (which == TR_SERVE_HASH && s->server[TR_SERVE_COMPUTE].busy)
        s->server[TR_SERVE_COMPUTE].until += s->p->rates.drag * (double)part->bytes;
    if (which != TR_SERVE_OUT)
        return;
    m->out += part->bytes;
    if (m->home && m->out == s->p->spans[m->span].bytes) {
        m->slot_free = 1; /* safe in its home: what remains needs no slot */
        tr_slot_written(&s->slots, m->slot);
        s->kicked = 1;
    }
}

static void end_turn(struct sim *s, struct sim_server *v)
{
    struct sim_part *part = v->now->part;

    v->busy = 0;
    if (--part->under_way)
        return;
    leave(s, (enum tr_server)part->move->stage[part->stage], part);
    if (part->move->stage[++part->stage] != TR_SERVERS)
        enqueue(s, part);
    else
        end_part(s, part);
}

void sim_moves_done(struct sim *s)
{
    for (uint32_t d = 0; d < s->n_drives; d++)
        if (s->drive[d].busy && s->drive[d].until <= s->now)
            end_turn(s, &s->drive[d]);
    for (int i = TR_SERVE_HASH; i < TR_SERVE_CPU; i++)
        if (s->server[i].busy && s->server[i].until <= s->now)
            end_turn(s, &s->server[i]);
}
