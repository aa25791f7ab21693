/* SPDX-License-Identifier: Apache-2.0
 *
 * The virtual clock on steps that are small enough to be played by hand: rates of round numbers,
 * and the seconds that follow. A simulator that loses one write-back must be caught by them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "tests/plan/mutant.h"

#define MOST  12
#define BYTES 1000u

struct step {
    struct tr_span spans[MOST];
    struct tr_visit visits[2 * MOST];
    double seconds[2 * MOST];
    unsigned char pass[2 * MOST], in_host[MOST];
    struct tr_slot_pool pool;
    struct tr_sim_params p;
};

typedef int simulate_fn(const struct tr_sim_params *p, struct tr_sim_result *out);

/* Blocks up and down, changed on the way down, 5 seconds each; a thousand bytes of each take 10
 * seconds from or to the drive. */
static void open_step(struct step *s, uint32_t blocks, uint32_t slots)
{
    static char ground[1];

    memset(s, 0, sizeof(*s));
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t down = 2 * blocks - 1 - i;

        s->spans[i].bytes = BYTES;
        s->visits[i] = (struct tr_visit){.n_spans = 1, .span = {i}};
        s->visits[down] = (struct tr_visit){.n_spans = 1, .span = {i}, .changed = 1};
        s->pass[down] = 2;
        s->seconds[i] = s->seconds[down] = 5;
    }
    s->pool = (struct tr_slot_pool){.base = ground, .n_slots = slots};
    s->p = (struct tr_sim_params){.visits = s->visits,
                                  .n = 2 * blocks,
                                  .seconds = s->seconds,
                                  .pass = s->pass,
                                  .spans = s->spans,
                                  .n_spans = blocks,
                                  .pools = &s->pool,
                                  .n_pools = 1,
                                  .durability = TR_DURABLE_NONE,
                                  .rates = {.drive = {{.alone = {100, 100, 100}}}}};
}

static struct tr_sim_result play(const struct step *s, simulate_fn *simulate)
{
    struct tr_sim_result r;

    if (simulate(&s->p, &r) < 0)
        fail_msg("%s", tr_error_message());
    return r;
}

static void equal(double a, double b)
{
    if (a - b > 1e-6 || b - a > 1e-6)
        fail_msg("%.9g is not %.9g", a, b);
}

/* One slot, nothing overlaps but a write-back with the first visit of the next step:
 *   f0 5 (its write-back of the step before ends at 10) | load f1 10, 5 | load f2 10, 5 |
 *   b2 5, write 10 | load b1 10, 5, write 10 | load b0 10, 5 */
static void one_slot(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 3, 1);
    r = play(&s, tr_simulate);
    equal(r.seconds, 95);
    equal(r.pass[0], 40);
    equal(r.pass[2], 55);
    equal(r.commit, 0);
    equal(r.busy[TR_SERVE_COMPUTE], 30);
    equal(r.idle[TR_SERVE_DRIVE], 65);
    assert_int_equal(r.loads, 4);
    assert_int_equal(r.read_bytes, 4 * BYTES);
    assert_int_equal(r.first_read_bytes, 5 * BYTES);
    assert_int_equal(r.written_bytes, 3 * BYTES);
    assert_int_equal(r.total_written_bytes, 6 * BYTES);
}

/* All in slots, and updates on the cpu, each two visits behind the one that it waits for:
 *   compute  f0 5 | f1 10 | b1 15 | b0 20
 *   cpu                           | u1 15 to 18 | u0 20 to 23
 * The compute waits for the last one alone; where they take 7, for both. */
static void updates_beside(void **state)
{
    double beside[2 * MOST] = {[4] = 3, [5] = 3};
    uint32_t after[2 * MOST] = {[4] = 3, [5] = 4};
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 2, 2);
    for (int i = 0; i < 2; i++) {
        s.visits[4 + i] = s.visits[2 + i];
        s.visits[2 + i].changed = 0;
        s.pass[4 + i] = 2;
    }
    s.p.n = 6;
    s.p.beside = beside;
    s.p.after = after;
    s.p.rates = (struct tr_sim_rates){0};
    r = play(&s, tr_simulate);
    equal(r.seconds, 23);
    equal(r.busy[TR_SERVE_CPU], 6);
    equal(r.idle[TR_SERVE_CPU], 3);
    beside[4] = beside[5] = 7;
    equal(play(&s, tr_simulate).seconds, 29);
    after[4] = after[5] = 0; /* of what is there before the step */
    equal(play(&s, tr_simulate).seconds, 24);
}

/* All in slots, every step durable. The first step ends at 30 (two loads, then 4 visits; loads
 * overlap): its write-backs go on until 45, its commit until 47, and what the second step changes
 * first waits for that. That delays no compute of the second step. */
static void commit_overlaps(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 2, 2);
    s.p.durability = TR_DURABLE_STEP;
    s.p.rates.drive[0].flush = 1;
    r = play(&s, tr_simulate);
    equal(r.seconds, 20);
    equal(r.busy[TR_SERVE_COMPUTE], 20);
    equal(r.commit, 0);
    assert_int_equal(r.loads, 0);
    assert_int_equal(r.written_bytes, 2 * BYTES);
    /* In the third step the last change finds its slot still being written: for two seconds. */
    s.p.steps = 3;
    r = play(&s, tr_simulate);
    equal(r.seconds, 22);
    equal(r.idle[TR_SERVE_DRIVE], 2);
    assert_int_equal(r.total_written_bytes, 6 * BYTES);
}

/* Not every step being durable, what stays in its slot is not written: of four blocks in three
 * slots the last is changed and dropped for the first, which the next step drops for the last. */
static void slots_keep(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 2, 2);
    r = play(&s, tr_simulate);
    equal(r.seconds, 20);
    equal(r.busy[TR_SERVE_DRIVE], 0);
    assert_int_equal(r.written_bytes, 0);
    assert_int_equal(r.kept_bytes, 2 * BYTES);
    open_step(&s, 4, 3);
    s.p.steps = 3;
    r = play(&s, tr_simulate);
    assert_int_equal(r.written_bytes, 2 * BYTES);
    assert_int_equal(r.kept_bytes, 2 * BYTES);
    assert_int_equal(r.written[0] + r.written[1] + r.written[2], r.total_written_bytes);
}

/* A slow sync: the next commit cannot begin before it, and that is waited for at the step's end. */
static void commit_is_waited_for(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 1, 1);
    s.p.durability = TR_DURABLE_STEP;
    s.p.rates.drive[0].flush = 20;
    r = play(&s, tr_simulate);
    /* f 5; b may change the slot when its write-back has ended: 10 to 15; the commit ends at 50 */
    equal(r.seconds, 50);
    equal(r.pass[0], 5);
    equal(r.pass[2], 10);
    equal(r.commit, 35);
}

/* From a home: the slot is free when the copy is there (20 s), the drive goes on without it; or,
 * not every step being durable, has nothing to do until there is a commit. */
static void host_tier(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 1, 1);
    s.in_host[0] = 1;
    s.p.in_host = s.in_host;
    s.p.staged = 1;
    s.p.rates.in = 100;
    s.p.rates.out = 50;
    for (int durability = 0; durability <= TR_DURABLE_NONE; durability++) {
        int every = durability == TR_DURABLE_STEP;

        s.p.durability = (enum tr_durability)durability;
        r = play(&s, tr_simulate);
        equal(r.seconds, every ? 30 : 25); /* 5 s more for the commit of the step before */
        equal(r.idle[TR_SERVE_OUT], 15);
        equal(r.busy[TR_SERVE_DRIVE], every ? 10 : 0);
        assert_int_equal(r.written_bytes, every ? BYTES : 0);
        assert_int_equal(r.kept_bytes, every ? 0 : BYTES);
        assert_int_equal(r.first_read_bytes, BYTES);
        assert_int_equal(r.read_bytes, 0);
    }
}

/* Not every step being durable, a commit after the second one writes what slots keep, 10 seconds
 * each: the next step's first change, of the slot that comes second, finds it written after 20 of
 * its seconds and not after 10. The step after that is as if nothing had been. */
static void commit_of_slots(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 2, 2);
    s.p.durability = TR_DURABLE_CHECKPOINT;
    s.p.rates.drive[0].flush = 1;
    s.p.steps = 4;
    s.p.commit_after = 2;
    r = play(&s, tr_simulate);
    equal(r.step_seconds[1], 20);
    equal(r.step_seconds[2], 30);
    equal(r.step_seconds[3], 20);
    equal(r.seconds, 20);
    assert_int_equal(r.written[1], 2 * BYTES);
    assert_int_equal(r.total_written_bytes, 2 * BYTES);
    s.p.commit_after = 0;
    equal(play(&s, tr_simulate).step_seconds[2], 20);
}

/* From a home: that is written (20 to 30) when the step's change is there (20 s), while the next
 * step runs; whose own change must not reach the home before the commit is durable (32). So it is
 * the step after that which finds its slot 7 seconds late, at 52 - 25 and not at 20. */
static void commit_of_homes(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 1, 1);
    s.in_host[0] = 1;
    s.p.in_host = s.in_host;
    s.p.staged = 1;
    s.p.durability = TR_DURABLE_CHECKPOINT;
    s.p.rates.in = 100;
    s.p.rates.out = 50;
    s.p.rates.drive[0].flush = 1;
    s.p.steps = 5;
    s.p.commit_after = 2;
    r = play(&s, tr_simulate);
    equal(r.step_seconds[1], 25);
    equal(r.step_seconds[2], 25);
    equal(r.step_seconds[3], 32);
    equal(r.step_seconds[4], 25);
    assert_int_equal(r.total_written_bytes, BYTES);
}

/* All in slots and in homes, every step durable: 80 seconds of visits, and what they change takes
 * the drive so many. */
static void open_backlog(struct step *s, double seconds)
{
    open_step(s, 8, 8);
    memset(s->in_host, 1, sizeof(s->in_host));
    s->p.in_host = s->in_host;
    s->p.staged = 1;
    s->p.durability = TR_DURABLE_STEP;
    s->p.rates.drive[0].alone = (struct tr_drive_ways){100, 8 * BYTES / seconds, 100};
    s->p.steps = 3;
}

/* The drive takes 90 seconds. The first steps do not wait for it yet: what they leave waits in
 * homes, until each step finds its slots 10 seconds later than the one before did. As long take all
 * that follow. The bytes are those of the steps that were asked for. */
static void backlog_grows(void **state)
{
    struct tr_sim_result few, settled, many;
    struct step s;

    (void)state;
    open_backlog(&s, 90);
    few = play(&s, tr_simulate);
    s.p.most = TR_SIM_STEPS;
    settled = play(&s, tr_simulate);
    s.p.steps = TR_SIM_STEPS;
    s.p.most = 0;
    many = play(&s, tr_simulate);
    assert_true(few.seconds < 89);
    assert_true(settled.seconds >= 90 && settled.seconds < 91);
    assert_true(settled.seconds < 1.01 * many.seconds && many.seconds < 1.01 * settled.seconds);
    equal(settled.busy[TR_SERVE_COMPUTE], 80);
    equal(settled.pass[0] + settled.pass[2] + settled.commit, settled.seconds);
    assert_int_equal(settled.written_bytes, few.written_bytes);
    assert_int_equal(settled.total_written_bytes, few.total_written_bytes);
    assert_int_equal(settled.total_read_bytes, few.total_read_bytes);
}

/* What is hardly slower than the visits makes a step wait only after very many: it does all the
 * same. Seconds are the mean of the last steps, then, and their parts are. */
static void backlog_grows_slowly(void **state)
{
    struct tr_sim_result r;
    double idle = 0;
    struct step s;

    (void)state;
    open_backlog(&s, 82);
    s.p.most = TR_SIM_STEPS;
    r = play(&s, tr_simulate);
    assert_true(r.step_seconds[2] < 81);
    assert_true(r.seconds >= 82 - 1e-6 && r.seconds < 82.5);
    for (int i = 0; i < TR_SERVERS; i++)
        idle += r.idle[i];
    equal(r.busy[TR_SERVE_COMPUTE], 80);
    equal(r.busy[TR_SERVE_COMPUTE] + idle, r.seconds);
    equal(r.pass[0] + r.pass[2] + r.commit, r.seconds);
}

/* Staged loads pass the drive, the checksums and the copy one after the other. */
static void staged_loads(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 3, 1);
    for (uint32_t i = 3; i < 6; i++) /* nothing changes */
        s.visits[i].changed = 0;
    s.p.staged = 1;
    s.p.rates.in = 500;
    s.p.rates.hash = 250;
    r = play(&s, tr_simulate);
    equal(r.seconds, 6 * 5 + 4 * (10 + 4 + 2));
    equal(r.busy[TR_SERVE_IN], 8);
    equal(r.busy[TR_SERVE_HASH], 16);
    assert_int_equal(r.written_bytes, 0);
}

/* Reads and writes that wait for each other take the mixed rate, and checksums take their share of
 * compute. */
static void drag_and_serial(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 3, 1);
    s.p.serial = 1;
    r = play(&s, tr_simulate);
    equal(r.seconds, 100); /* as with one slot, and the write-back is waited for too */
    open_step(&s, 4, 4);
    s.p.durability = TR_DURABLE_STEP;
    s.p.rates.drag = 0.001;
    r = play(&s, tr_simulate);
    equal(r.seconds, 44); /* four write-backs end while something computes */
}

/* More slots or faster parts are never slower here; with parts as unequal as one likes the order of
 * loads may change for the worse, as in any schedule made one by one. */
static void more_is_not_slower(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    for (uint32_t blocks = 2; blocks <= MOST; blocks++) {
        double before = 1e9;

        for (uint32_t slots = 1; slots <= blocks; slots++) {
            double slower = 1e9;

            for (double rate = 25; rate <= 1600; rate *= 2) {
                open_step(&s, blocks, slots);
                s.p.rates.drive[0].alone = (struct tr_drive_ways){rate, rate, rate};
                r = play(&s, tr_simulate);
                assert_true(r.seconds <= slower + 1e-6);
                assert_true(r.seconds >= 10 * blocks - 1e-6);
                assert_int_equal(r.written_bytes + r.kept_bytes, blocks * BYTES);
                slower = r.seconds;
                if (rate != 100)
                    continue;
                assert_true(r.seconds <= before + 1e-6);
                before = r.seconds;
            }
        }
    }
}

static void parts_sum(const struct tr_sim_result *r)
{
    double idle = 0;

    for (int i = 0; i < TR_SERVERS; i++)
        idle += r->idle[i];
    equal(r->pass[0] + r->pass[1] + r->pass[2] + r->commit, r->seconds);
    equal(idle + r->busy[TR_SERVE_COMPUTE], r->seconds);
}

static void nothing_is_counted_twice(void **state)
{
    struct step s;

    (void)state;
    for (uint32_t slots = 1; slots <= 6; slots++)
        for (int staged = 0; staged <= 1; staged++)
            for (int durability = 0; durability <= TR_DURABLE_NONE; durability++) {
                struct tr_sim_result r;

                open_step(&s, 6, slots);
                s.p.staged = staged;
                s.p.durability = (enum tr_durability)durability;
                s.p.rates.in = s.p.rates.out = 300;
                s.p.rates.drive[0].flush = 3;
                s.p.rates.hash = 1000;
                s.p.prefetch = slots % 3;
                s.in_host[slots % 6] = 1;
                s.p.in_host = staged ? s.in_host : NULL;
                r = play(&s, tr_simulate);
                parts_sum(&r);
                assert_int_equal(r.written_bytes + r.kept_bytes, 6 * BYTES);
                assert_true(durability || !r.kept_bytes);
            }
}

/* ---- several drives ---- */

/* 400 of each block's thousand bytes on the first drive, the rest on the second. */
static void stripe(struct step *s, struct tr_stripes *stripes, struct tr_stripe *list)
{
    *stripes = (struct tr_stripes){.n_folders = 2, .n = 2 * s->p.n_spans, .stripe = list};
    for (uint32_t i = 0; i < s->p.n_spans; i++) {
        s->spans[i].offset = i * (uint64_t)BYTES;
        list[2 * i] = (struct tr_stripe){.from = i * (uint64_t)BYTES, .folder = 0};
        list[2 * i + 1] = (struct tr_stripe){.from = i * (uint64_t)BYTES + 400, .folder = 1};
    }
    stripes->bytes = s->p.n_spans * (uint64_t)BYTES;
    s->p.stripes = stripes;
    s->p.rates.n_drives = 2;
    s->p.rates.drive[1] = s->p.rates.drive[0];
}

/* A load or write-back of the one slot ends with its slower part: at 100 and 50 bytes/s in 4 s and
 * 12 s, at 100 and 300 in 4 s and 2 s. The step is that of one_slot() with that instead of 10 s:
 * three visits of 5 s, four loads, three write-backs, of which the last is hidden. */
static void unequal_drives(void **state)
{
    struct tr_stripe list[2 * MOST];
    struct tr_stripes stripes;
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 3, 1);
    stripe(&s, &stripes, list);
    s.p.rates.drive[1].alone = (struct tr_drive_ways){50, 50, 50};
    r = play(&s, tr_simulate);
    /* f0, until the write-back of b0 ends: 12 | load f1, 5 | load f2, 5 | b2 5, write, load b1, 5,
     * write, load b0, 5 */
    equal(r.seconds, 12 + 2 * 17 + 5 + 2 * 29);
    equal(r.idle[TR_SERVE_DRIVE], 7 + 6 * 12);
    equal(r.drive[0].busy, 7 * 4);
    equal(r.drive[1].busy, 7 * 12);
    equal(r.drive[1].waited, 7 + 6 * 12);
    equal(r.drive[0].waited, 6 * 4); /* its part of the write-back of b0 is done before f0 is */
    assert_int_equal(r.drive[0].read_bytes, 4 * 400);
    assert_int_equal(r.drive[1].read_bytes, 4 * 600);
    assert_int_equal(r.drive[0].written_bytes, 3 * 400);
    assert_int_equal(r.drive[1].written[0], 3 * 600);
    assert_int_equal(r.drive[1].first_read_bytes, 5 * 600);
    s.p.rates.drive[1].alone = (struct tr_drive_ways){300, 300, 300};
    r = play(&s, tr_simulate);
    equal(r.seconds, 5 + 2 * 9 + 5 + 2 * 13);
    equal(r.drive[1].busy, 7 * 2);
}

/* Two folders of one drive are that drive: the seconds of one folder, to the last. */
static void folders_of_one_drive(void **state)
{
    static const unsigned char first[] = {0, 0};
    struct tr_stripe list[2 * MOST];
    struct tr_stripes stripes;

    (void)state;
    for (uint32_t slots = 1; slots <= 6; slots++)
        for (int staged = 0; staged <= 1; staged++) {
            struct tr_sim_result one, two;
            struct step s;

            open_step(&s, 6, slots);
            s.p.staged = staged;
            s.p.durability = TR_DURABLE_STEP;
            s.p.rates.in = s.p.rates.out = 300;
            s.p.rates.drive[0].flush = 3;
            one = play(&s, tr_simulate);
            stripe(&s, &stripes, list);
            s.p.rates.n_drives = 1;
            s.p.drive_of = first;
            two = play(&s, tr_simulate);
            assert_int_equal(two.drive[0].read_bytes, one.read_bytes);
            if (staged) /* the same chunks */
                equal(two.seconds, one.seconds);
            assert_true(two.seconds <= 1.0001 * one.seconds);
            assert_true(two.seconds >= 10 * (one.loads + 6) - 1e-6 || slots == 6);
        }
}

/* Drives that share something: 300 bytes/s alone, 100 while the other one is at work. The second
 * begins with 600 bytes beside the first: 100 bytes/s, 6 s; a step of reads alone has four loads.
 */
static void beside_each_other(void **state)
{
    struct tr_stripe list[2 * MOST];
    struct tr_stripes stripes;
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 3, 1);
    stripe(&s, &stripes, list);
    for (uint32_t i = 3; i < 6; i++)
        s.visits[i].changed = 0;
    for (int d = 0; d < 2; d++)
        s.p.rates.drive[d] =
            (struct tr_drive_rates){.alone = {300, 300, 300}, .beside = {100, 100, 100}};
    r = play(&s, tr_simulate);
    equal(r.seconds, 6 * 5 + 4 * 6);
    equal(r.drive[0].busy, 4 * 4);
    s.p.rates.drive[0].beside = s.p.rates.drive[1].beside = (struct tr_drive_ways){0, 0, 0};
    equal(play(&s, tr_simulate).seconds, 6 * 5 + 4 * 2);
}

/* A chunk of host memory goes on to the device when both drives have filled their part of it. */
static void chunk_of_two_drives(void **state)
{
    struct tr_stripe list[2 * MOST];
    struct tr_stripes stripes;
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 3, 1);
    stripe(&s, &stripes, list);
    for (uint32_t i = 3; i < 6; i++)
        s.visits[i].changed = 0;
    s.p.staged = 1;
    s.p.rates.in = 500;
    s.p.rates.drive[1].alone = (struct tr_drive_ways){50, 50, 50};
    r = play(&s, tr_simulate);
    equal(r.seconds, 6 * 5 + 4 * (12 + 2));
    equal(r.busy[TR_SERVE_IN], 4 * 2);
}

/* All drives are synced at once, then the commit record where the first folder is. */
static void slowest_sync(void **state)
{
    struct tr_stripe list[2 * MOST];
    struct tr_stripes stripes;
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 1, 1);
    stripe(&s, &stripes, list);
    s.p.durability = TR_DURABLE_STEP;
    s.p.rates.drive[0].flush = 10;
    s.p.rates.drive[1].flush = 30;
    r = play(&s, tr_simulate);
    /* the write-back takes 6 s, five of them beside f; then 30 and 10 */
    equal(r.seconds, 6 + 30 + 10);
    equal(r.commit, 46 - 11);
}

static void too_few_slots(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 2, 1);
    s.visits[0] = (struct tr_visit){.n_spans = 2, .span = {0, 1}};
    assert_int_equal(tr_simulate(&s.p, &r), -ENOSPC);
}

/* The mutant forgets the write-backs of the first slot. */
static void lost_writeback_is_seen(void **state)
{
    struct tr_sim_result r;
    struct step s;

    (void)state;
    open_step(&s, 3, 1);
    r = play(&s, mutant_simulate);
    assert_true(r.written_bytes != 3 * BYTES);
    assert_true(r.seconds < 94);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_slot),
        cmocka_unit_test(updates_beside),
        cmocka_unit_test(commit_overlaps),
        cmocka_unit_test(slots_keep),
        cmocka_unit_test(commit_is_waited_for),
        cmocka_unit_test(host_tier),
        cmocka_unit_test(commit_of_slots),
        cmocka_unit_test(commit_of_homes),
        cmocka_unit_test(backlog_grows),
        cmocka_unit_test(backlog_grows_slowly),
        cmocka_unit_test(staged_loads),
        cmocka_unit_test(drag_and_serial),
        cmocka_unit_test(more_is_not_slower),
        cmocka_unit_test(nothing_is_counted_twice),
        cmocka_unit_test(unequal_drives),
        cmocka_unit_test(folders_of_one_drive),
        cmocka_unit_test(beside_each_other),
        cmocka_unit_test(chunk_of_two_drives),
        cmocka_unit_test(slowest_sync),
        cmocka_unit_test(too_few_slots),
        cmocka_unit_test(lost_writeback_is_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
