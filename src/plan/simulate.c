/* SPDX-License-Identifier: Apache-2.0
 *
 * The decisions of the engine, in the engine's words: what the caller does (offload.c, step.c),
 * which load begins (prefetch.c), which write-back (writeback.c), how a commit goes (flush.c). Time
 * jumps from the end of one thing served to the next.
 */
#include "src/plan/simulate_parts.h"

#include <math.h>
#include <string.h>

#include "src/base/err.h"
#include "src/base/mem.h"

#define ALIKE  0.01                /* steps that differ by no more */
#define UPDATE (TR_SIM_PASSES - 1) /* nothing changes before losses have been seen */

static uint64_t end_of_step(const struct sim *s)
{
    return (uint64_t)(s->step + 1) * s->p->n;
}

/* ---- the schedule of the next step ---- */

static void push(const struct sim *s, struct sim_ring *ring, uint32_t slot)
{
    ring->slot[(ring->first + ring->n++) % s->slots.n] = slot;
}

/* As the engine's (writeback.c). */
static void want(struct sim *s, uint32_t slot)
{
    if (tr_slot_want(&s->slots, slot)) {
        s->changed_in[slot] = s->step;
        push(s, &s->dirty, slot);
    } else if (!tr_slot_want_left(&s->slots, slot)) {
        return;
    }
    s->pending[sim_epoch(s, s->step) & 1]++;
}

/* Bytes are of the steps that were asked for, however many more are played. */
static void keep(struct sim *s, uint32_t span)
{
    if (s->step >= s->p->steps)
        return;
    s->out->kept_bytes += s->p->spans[span].bytes;
    for (uint32_t d = 0; d < s->n_drives; d++)
        s->out->drive[d].kept_bytes += sim_on(s, span, d);
}

/* What a step leaves in homes, each once however often it is changed. */
static void keep_at_home(struct sim *s)
{
    unsigned char *seen = tr_alloc(TR_MEM_MISC, s->p->n_spans);

    for (uint32_t v = 0; seen && v < s->p->n; v++)
        for (uint32_t k = 0; k < s->p->visits[v].n_spans; k++) {
            uint32_t span = s->p->visits[v].span[k];

            if (!(s->p->visits[v].changed >> k & 1) || seen[span] || sim_is_scratch(s, span))
                continue;
            seen[span] = 1;
            if (sim_has_home(s, span))
                keep(s, span);
        }
    tr_free(TR_MEM_MISC, seen);
}

static void forget_kept(struct sim *s)
{
    if (s->step >= s->p->steps)
        return;
    s->out->kept_bytes = 0;
    for (uint32_t d = 0; d < s->n_drives; d++)
        s->out->drive[d].kept_bytes = 0;
}

/* The next step's schedule is made: what it drops is written, the rest is kept. */
static void sort_newer(struct sim *s)
{
    forget_kept(s);
    keep_at_home(s);
    for (uint32_t i = 0; i < s->slots.n; i++) {
        if (s->schedule.carried[i])
            want(s, i);
        if (tr_slot_is_newer(&s->slots, i))
            keep(s, s->slots.slot[i].span);
    }
    if (s->step < s->p->steps)
        s->out->kept[s->step] = s->out->kept_bytes;
}

/* Of the loads into one slot none may begin before the one ahead of it. */
static int chain_loads(struct sim *s)
{
    tr_free(TR_MEM_MISC, s->following);
    s->following = tr_alloc_array(TR_MEM_MISC, s->schedule.n_loads, sizeof(*s->following));
    if (!s->following)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->slots.n; i++)
        s->next_load[i] = TR_NONE;
    s->n_due = 0;
    for (uint32_t i = s->schedule.n_loads; i-- > 0;) {
        uint32_t slot = s->schedule.loads[i].slot;

        if (s->next_load[slot] == TR_NONE)
            s->due[s->n_due++] = slot;
        s->following[i] = s->next_load[slot];
        s->next_load[slot] = i;
    }
    return 0;
}

static int begin(struct sim *s)
{
    int lazy = s->p->durability != TR_DURABLE_STEP;
    uint32_t *holds = tr_alloc_array(TR_MEM_MISC, s->slots.n, sizeof(*holds) + 1);
    unsigned char *newer = (unsigned char *)(holds + s->slots.n);
    struct tr_schedule_params p = {.visits = s->p->visits,
                                   .n = s->p->n,
                                   .next = s->p->visits,
                                   .n_next = s->p->n,
                                   .spans = s->p->spans,
                                   .n_spans = s->p->n_spans,
                                   .n_scratch = s->p->n_scratch,
                                   .pools = s->p->pools,
                                   .n_pools = s->p->n_pools,
                                   .holds = holds,
                                   .lazy = lazy,
                                   .newer = newer};
    int r;

    if (!holds)
        return -ENOMEM;
    for (uint32_t i = 0; i < s->slots.n; i++) {
        holds[i] = s->slots.slot[i].span;
        newer[i] = (unsigned char)tr_slot_is_newer(&s->slots, i);
    }
    tr_schedule_free(&s->schedule);
    r = tr_schedule_make(&s->schedule, &p);
    tr_free(TR_MEM_MISC, holds);
    if (r < 0)
        return r;
    if (lazy && s->released)
        sort_newer(s);
    s->base = s->released;
    s->wanted = 0;
    s->kicked = 1;
    return chain_loads(s);
}

/* ---- what the I/O thread decides ---- */

static int gates(const struct sim *s, uint32_t step)
{
    return s->flush != SIM_IDLE && sim_epoch(s, step) > sim_epoch(s, s->flush_step);
}

/* The data of all drives at once, then the commit record in the first folder. */
static double flush_seconds(const struct sim *s)
{
    const struct tr_drive_rates *drive = s->p->rates.drive;
    double most = 0;

    for (uint32_t d = 0; d < s->n_drives; d++)
        most = fmax(most, drive[d].flush);
    return most + drive[sim_drive_of(s, 0)].flush;
}

static void advance_flush(struct sim *s)
{
    uint32_t *pending = &s->pending[sim_epoch(s, s->flush_step) & 1];

    if (s->flush != SIM_WRITES || *pending || (*pending += sim_homes_start(s)))
        return;
    s->flush = SIM_SYNC;
    s->flush_until = s->now + flush_seconds(s);
}

static void start_write(struct sim *s, struct sim_ring *ring)
{
    uint32_t slot = ring->slot[ring->first];

    ring->first = (ring->first + 1) % s->slots.n;
    ring->n--;
    tr_slot_write(&s->slots, slot);
    sim_move_start(s, SIM_WRITE, slot, s->changed_in[slot]);
}

static void advance_writeback(struct sim *s)
{
    while (s->saves.n)
        start_write(s, &s->saves);
    while (s->dirty.n) {
        uint32_t slot = s->dirty.slot[s->dirty.first];

        if (s->writing[s->slots.slot[slot].span] || gates(s, s->changed_in[slot]))
            return;
        start_write(s, &s->dirty);
    }
}

/* What is made afresh moves nothing, and takes its slot when its visit comes. */
static int may_begin(const struct sim *s, const struct tr_load *l)
{
    return !(l->after && s->passed < s->base + l->after) && (!l->fresh || l->visit < s->wanted) &&
           tr_slot_may_load(&s->slots, l->slot);
}

/* Where in s->due the first load that may begin is, in the order of need; n_due: none may. */
static uint32_t first_to_begin(const struct sim *s)
{
    uint32_t first = TR_NONE, at = s->n_due;

    for (uint32_t k = 0; k < s->n_due; k++) {
        uint32_t i = s->next_load[s->due[k]];

        if (i < first && may_begin(s, &s->schedule.loads[i])) {
            first = i;
            at = k;
        }
    }
    return at;
}

/* Beyond the depth of prefetch: too many loads up to this one are for visits not wanted yet. */
static int is_too_far(const struct sim *s, uint32_t load)
{
    uint32_t ahead = 0, most = s->p->serial ? 0 : s->p->prefetch;
    const struct tr_load *loads = s->schedule.loads;

    if (!most && !s->p->serial)
        return 0;
    for (uint32_t i = load + 1; ahead <= most && i-- > 0 && loads[i].visit >= s->wanted;)
        ahead += !loads[i].fresh;
    return ahead > most;
}

static void advance_prefetch(struct sim *s)
{
    uint32_t k;

    while ((k = first_to_begin(s)) < s->n_due && !is_too_far(s, s->next_load[s->due[k]])) {
        uint32_t i = s->next_load[s->due[k]];
        const struct tr_load *l = &s->schedule.loads[i];

        s->next_load[l->slot] = s->following[i];
        if (s->following[i] == TR_NONE)
            s->due[k] = s->due[--s->n_due];
        tr_slot_load(&s->slots, l->slot, l->span);
        if (l->fresh)
            tr_slot_loaded(&s->slots, l->slot);
        else
            sim_move_start(s, SIM_READ, l->slot, s->schedule_step);
    }
}

/* ---- what the caller does ---- */

static int is_ready(const struct sim *s)
{
    const struct tr_visit *v = &s->p->visits[s->at];

    for (uint32_t k = 0; k < v->n_spans; k++) {
        uint32_t slot = tr_schedule_slot(&s->schedule, s->at, k);

        if (s->slots.slot[slot].span != v->span[k] ||
            !tr_slot_may_pin(&s->slots, slot, v->changed >> k & 1))
            return 0;
    }
    return 1;
}

static int is_written(const struct sim *s)
{
    return !s->pending[0] && !s->pending[1] && !s->saving;
}

/* The caller waits for compute before the update pass, and with `serial` for everything. */
static int must_wait(const struct sim *s)
{
    const unsigned char *pass = s->p->pass;
    int turn = pass && pass[s->at] == UPDATE && (s->at == 0 || pass[s->at - 1] != UPDATE);

    if (s->p->serial && !is_written(s))
        return 1;
    return (turn || s->p->serial) && s->passed < s->released;
}

/* Does a change of this span wait in its slot until it is wanted? */
static int waits(const struct sim *s, uint32_t span)
{
    return s->p->durability != TR_DURABLE_STEP && !sim_has_home(s, span);
}

static void visit(struct sim *s)
{
    const struct tr_visit *v = &s->p->visits[s->at];
    struct sim_ticket *t = &s->tickets[s->released % (2 * (uint64_t)s->p->n)];
    uint32_t last = v->changed & ~s->schedule.again[s->at];

    *t = (struct sim_ticket){
        .n = v->n_spans, .changed = v->changed, .saved = s->schedule.saved[s->at], .step = s->step};
    for (uint32_t k = 0; k < v->n_spans; k++) {
        t->slot[k] = tr_schedule_slot(&s->schedule, s->at, k);
        tr_slot_pin(&s->slots, t->slot[k], v->changed >> k & 1);
        if (sim_is_scratch(s, v->span[k]))
            s->saving += t->saved >> k & 1;
        else if (last >> k & 1 && (t->saved >> k & 1 || !waits(s, v->span[k])))
            want(s, t->slot[k]);
    }
    s->released++;
    s->at++;
    s->updated = 0;
    s->kicked = 1;
}

/* Has the cpu done its part of the visit at hand? Else it begins when what it needs is there. */
static int is_updated(struct sim *s)
{
    struct sim_server *cpu = &s->server[TR_SERVE_CPU];
    double seconds = s->p->beside ? s->p->beside[s->at] : 0;

    if (cpu->busy || s->updated || !(seconds > 0))
        return !cpu->busy;
    if (s->passed < (uint64_t)s->step * s->p->n + s->p->after[s->at])
        return 0;
    cpu->busy = s->updated = 1;
    cpu->until = s->now + seconds;
    return 0;
}

/* Is there a commit at the end of the step at hand? */
static int commits(const struct sim *s)
{
    return s->p->durability == TR_DURABLE_STEP || s->step + 1 == s->p->commit_after;
}

static void begin_commit(struct sim *s)
{
    if (!commits(s))
        return;
    for (uint32_t i = 0; s->p->durability != TR_DURABLE_STEP && i < s->slots.n; i++)
        want(s, i);
    s->flush = SIM_WRITES;
    s->flush_step = s->step;
    s->kicked = 1;
}

/* ---- when steps are alike ---- */

/* The seconds that a drive takes for so many bytes at least: the one way after the other or, as far
 * as there are both, by turns. */
static double least_of_drive(const struct tr_drive_rates *r, const uint64_t bytes[SIM_WAYS])
{
    double ways, turns, read = (double)bytes[SIM_READ], write = (double)bytes[SIM_WRITE];
    double reads = fmax(r->alone.read, r->beside.read);
    double writes = fmax(r->alone.write, r->beside.write);
    double mixed = fmax(r->alone.mixed, r->beside.mixed), both = fmin(read, write);

    if (!(reads > 0 && writes > 0 && mixed > 0))
        return 0;
    ways = read / reads + write / writes;
    turns = 2 * both / mixed + (read - both) / reads + (write - both) / writes;
    return fmin(ways, turns);
}

/* As long as a step takes at least that moves this. *server, *drive: whose seconds they are. */
static double least_seconds(const struct sim *s, const struct sim_work *w, int *server,
                            uint32_t *drive)
{
    const struct tr_sim_rates *r = &s->p->rates;
    const double rates[TR_SERVERS] = {
        [TR_SERVE_HASH] = r->hash, [TR_SERVE_IN] = r->in, [TR_SERVE_OUT] = r->out};
    double least = 0;

    for (int i = TR_SERVE_HASH; i < TR_SERVE_CPU; i++)
        if (rates[i] > 0 && (double)w->server[i] / rates[i] > least) {
            least = (double)w->server[i] / rates[i];
            *server = i;
        }
    for (uint32_t d = 0; d < s->n_drives; d++) {
        double seconds = least_of_drive(&r->drive[d], w->drive[d]);

        if (seconds > least) {
            least = seconds;
            *server = TR_SERVE_DRIVE;
            *drive = d;
        }
    }
    return least;
}

/* Does this step take as long as the one before, and as what that one has moved? Else more waits
 * behind every step. */
static int is_alike(const struct sim *s)
{
    const double *t = &s->out->step_seconds[s->step];
    uint32_t drive, before = s->step < s->p->steps ? s->step - 1 : s->p->steps - 1;
    int server;

    return s->step > 0 && fabs(t[0] - t[-1]) <= ALIKE * t[0] &&
           least_seconds(s, &s->work[before], &server, &drive) <= (1 + ALIKE) * t[0];
}

/* Where steps go on in turns, or change by little for long, the last ones are taken together. */
static int is_last(const struct sim *s)
{
    uint32_t n = s->step + 1;

    if (n < s->p->steps)
        return 0;
    return n >= s->p->most || (n + TR_SIM_CYCLE <= s->p->most && is_alike(s));
}

static int is_counted(const struct sim *s)
{
    return !s->ended && s->step + 1 >= s->p->steps;
}

/* A step begins that may be the last one. */
static void forget_seconds(struct sim *s)
{
    struct tr_sim_result *r = s->out;

    if (s->step + TR_SIM_CYCLE > s->p->most)
        return;
    s->counted = 0;
    r->seconds = r->commit = 0;
    memset(r->pass, 0, sizeof(r->pass));
    memset(r->busy, 0, sizeof(r->busy));
    memset(r->idle, 0, sizeof(r->idle));
    for (uint32_t d = 0; d < s->n_drives; d++)
        r->drive[d].busy = r->drive[d].waited = 0;
}

static void divide(double *seconds, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        seconds[i] /= by;
}

static void take_mean(struct sim *s)
{
    struct tr_sim_result *r = s->out;
    double n = s->counted;

    divide(&r->seconds, 1, n);
    divide(&r->commit, 1, n);
    divide(r->pass, TR_SIM_PASSES, n);
    divide(r->busy, TR_SERVERS, n);
    divide(r->idle, TR_SERVERS, n);
    for (uint32_t d = 0; d < s->n_drives; d++) {
        divide(&r->drive[d].busy, 1, n);
        divide(&r->drive[d].waited, 1, n);
    }
}

/* No server does more than it can: what is still missing is waited for in the long run, at the end
 * of a step that is durable, else by its updates. */
static void wait_for_work(struct sim *s)
{
    struct tr_sim_result *r = s->out;
    uint32_t drive = 0;
    int server = 0;
    double more = least_seconds(s, &s->work[s->p->steps - 1], &server, &drive) - r->seconds;

    if (!s->p->most || more <= 0)
        return;
    r->seconds += more;
    r->idle[server] += more;
    r->busy[server] += more;
    *(s->p->durability == TR_DURABLE_STEP ? &r->commit : &r->pass[TR_SIM_PASSES - 1]) += more;
    if (server != TR_SERVE_DRIVE)
        return;
    r->drive[drive].busy += more;
    r->drive[drive].waited += more;
}

/* ---- the end of a step ---- */

/* All of the step is queued, and the next one's loads are begun. */
static int end_step(struct sim *s)
{
    if (s->passed < s->released || (commits(s) && s->flush != SIM_IDLE))
        return 0;
    if (s->p->serial && !is_written(s))
        return 0;
    begin_commit(s);
    s->out->step_seconds[s->step] = s->now - s->begun;
    if (is_counted(s)) {
        s->out->seconds += s->now - s->begun;
        s->counted++;
    }
    if (is_last(s)) {
        s->ended = 1;
        return 0;
    }
    s->begun = s->now;
    s->step++;
    s->at = 0;
    forget_seconds(s);
    return 1;
}

static int advance_caller(struct sim *s)
{
    int r;

    if (s->ended)
        return 0;
    if (s->at == s->p->n)
        return end_step(s);
    if (must_wait(s))
        return 0;
    if (s->wanted != s->at + 1) {
        s->wanted = s->at + 1;
        s->kicked = 1;
    }
    if (!is_ready(s) || !is_updated(s))
        return 0;
    visit(s);
    if (s->at < s->p->n)
        return 1;
    s->schedule_step++;
    r = begin(s);
    return r < 0 ? r : 1;
}

static int advance_compute(struct sim *s)
{
    struct sim_server *c = &s->server[TR_SERVE_COMPUTE];

    if (c->busy || s->passed == s->released)
        return 0;
    c->busy = 1;
    c->until = s->now + s->p->seconds[s->passed % s->p->n];
    return 1;
}

static void pass(struct sim *s)
{
    const struct sim_ticket *t = &s->tickets[s->passed % (2 * (uint64_t)s->p->n)];

    s->server[TR_SERVE_COMPUTE].busy = 0;
    for (uint32_t k = 0; k < t->n; k++) {
        int scratch = sim_is_scratch(s, s->slots.slot[t->slot[k]].span);
        enum tr_slot_left left =
            tr_slot_leaves(&s->slots, t->slot[k], t->changed >> k & 1, t->saved >> k & 1);

        tr_slot_unpin(&s->slots, t->slot[k], left);
        if (left != TR_LEFT_DIRTY)
            continue;
        s->changed_in[t->slot[k]] = t->step;
        push(s, scratch ? &s->saves : &s->dirty, t->slot[k]);
    }
    s->passed++;
    s->kicked = 1;
}

/* ---- time ---- */

/* What the caller waits for comes with a kick: nobody asks it at the end of each part. */
static int advance(struct sim *s)
{
    int did;

    do {
        if (s->kicked) {
            s->kicked = 0;
            s->stands = 0;
            advance_flush(s);
            advance_writeback(s);
            advance_prefetch(s);
        }
        did = sim_moves_advance(s) | advance_compute(s);
        if (!did && !s->stands) {
            did = advance_caller(s);
            s->stands = did == 0;
        }
    } while (did > 0 || (did == 0 && s->kicked));
    return did;
}

static double next_event(const struct sim *s)
{
    double t = sim_moves_next(s);

    if (s->flush == SIM_SYNC && s->flush_until < t)
        t = s->flush_until;
    t = sim_earlier(&s->server[TR_SERVE_COMPUTE], t);
    return sim_earlier(&s->server[TR_SERVE_CPU], t);
}

static int is_busy(const struct sim *s, enum tr_server which)
{
    return which == TR_SERVE_DRIVE ? sim_drives_busy(s) : s->server[which].busy;
}

/* Seconds of the step in which it was busy; of several drives the busiest one's. */
static double load_of(const struct sim *s, enum tr_server which)
{
    double most = 0;

    if (which != TR_SERVE_DRIVE)
        return s->out->busy[which];
    for (uint32_t d = 0; d < s->n_drives; d++)
        most = fmax(most, s->out->drive[d].busy);
    return most;
}

/* What a compute without work waits for: of all that are at work the one that has been most of the
 * time, for the others wait for it, too. */
static enum tr_server idle_for(const struct sim *s)
{
    static const enum tr_server order[] = {TR_SERVE_CPU, TR_SERVE_DRIVE, TR_SERVE_IN, TR_SERVE_OUT,
                                           TR_SERVE_HASH};
    enum tr_server longest = TR_SERVE_COMPUTE;

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++)
        if (is_busy(s, order[i]) &&
            (longest == TR_SERVE_COMPUTE || load_of(s, order[i]) > load_of(s, longest)))
            longest = order[i];
    return longest;
}

static void account_drives(struct sim *s, double seconds, int waited)
{
    for (uint32_t d = 0; d < s->n_drives; d++) {
        s->out->drive[d].busy += s->drive[d].busy ? seconds : 0;
        s->out->drive[d].waited += s->drive[d].busy && waited ? seconds : 0;
    }
}

static void account(struct sim *s, double seconds)
{
    struct tr_sim_result *r = s->out;
    int idle = !s->server[TR_SERVE_COMPUTE].busy;
    enum tr_server what;

    if (!is_counted(s))
        return;
    for (int i = 0; i < TR_SERVERS; i++)
        r->busy[i] += is_busy(s, (enum tr_server)i) ? seconds : 0;
    what = idle ? idle_for(s) : TR_SERVE_COMPUTE;
    if (idle)
        r->idle[what] += seconds;
    account_drives(s, seconds, what == TR_SERVE_DRIVE);
    if (s->passed == end_of_step(s))
        r->commit += seconds;
    else
        r->pass[s->p->pass ? s->p->pass[s->passed % s->p->n] : 0] += seconds;
}

static void step_time(struct sim *s, double t)
{
    account(s, t - s->now);
    s->now = t;
    if (s->flush == SIM_SYNC && s->flush_until <= t) {
        s->flush = SIM_IDLE;
        s->kicked = 1;
    }
    if (s->server[TR_SERVE_COMPUTE].busy && s->server[TR_SERVE_COMPUTE].until <= t)
        pass(s);
    if (s->server[TR_SERVE_CPU].busy && s->server[TR_SERVE_CPU].until <= t) {
        s->server[TR_SERVE_CPU].busy = 0;
        s->kicked = 1;
    }
    sim_moves_done(s);
}

static int is_over(const struct sim *s)
{
    return s->ended && is_written(s) && s->flush == SIM_IDLE;
}

static int play(struct sim *s)
{
    int r = begin(s);

    while (r == 0 && (r = advance(s)) == 0 && !is_over(s)) {
        double t = next_event(s);

        if (isinf(t))
            return tr_error(-EDEADLK, "visit %u of step %u waits for ever", s->at, s->step);
        step_time(s, t);
    }
    return r;
}

static int open_sim(struct sim *s)
{
    int r = tr_slots_open(&s->slots, s->p->pools, s->p->n_pools, s->p->n_spans);

    if (r < 0)
        return r;
    s->slots.first_scratch = s->p->n_spans - s->p->n_scratch;
    s->tickets = tr_alloc_array(TR_MEM_MISC, 2 * (size_t)s->p->n, sizeof(*s->tickets));
    s->dirty.slot = tr_alloc_array(TR_MEM_MISC, s->slots.n, sizeof(*s->dirty.slot));
    s->saves.slot = tr_alloc_array(TR_MEM_MISC, s->slots.n, sizeof(*s->saves.slot));
    s->changed_in = tr_alloc_array(TR_MEM_MISC, s->slots.n, sizeof(*s->changed_in));
    s->next_load = tr_alloc_array(TR_MEM_MISC, s->slots.n, sizeof(*s->next_load));
    s->due = tr_alloc_array(TR_MEM_MISC, s->slots.n, sizeof(*s->due));
    if (!s->tickets || !s->dirty.slot || !s->saves.slot || !s->changed_in || !s->next_load ||
        !s->due)
        return -ENOMEM;
    return sim_moves_open(s);
}

int tr_simulate(const struct tr_sim_params *params, struct tr_sim_result *out)
{
    struct tr_sim_params p = *params;
    struct sim s = {.p = &p, .out = out};
    int r;

    memset(out, 0, sizeof(*out));
    p.steps = p.steps ? p.steps : 2;
    p.most = p.most > p.steps ? p.most : 0;
    r = open_sim(&s);
    if (r == 0)
        r = play(&s);
    if (r == 0) {
        take_mean(&s);
        wait_for_work(&s);
    }
    sim_moves_close(&s);
    tr_slots_close(&s.slots);
    tr_schedule_free(&s.schedule);
    tr_free(TR_MEM_MISC, s.next_load);
    tr_free(TR_MEM_MISC, s.following);
    tr_free(TR_MEM_MISC, s.due);
    tr_free(TR_MEM_MISC, s.tickets);
    tr_free(TR_MEM_MISC, s.dirty.slot);
    tr_free(TR_MEM_MISC, s.saves.slot);
    tr_free(TR_MEM_MISC, s.changed_in);
    return r;
}
