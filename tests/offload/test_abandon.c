/* SPDX-License-Identifier: Apache-2.0
 *
 * A step that is given up (tr_offload_abandon): every span has the bytes of the last commit again,
 * wherever the changed ones were when it happened, and the steps after it go on from there to the
 * same store as if there had been no such step (invariants 1 and 3). On every way that bytes take,
 * and with the defects that the test is for: slots, or homes that have not been written yet, keep
 * what they hold. And a commit that forgets what waits for it in slots or homes.
 */
#include <string.h>

#include "offload/home.h"
#include "offload/slots.h"
#include "tests/offload/player.h"

void __real_tr_slot_drop(struct tr_slots *s, uint32_t slot);
void __wrap_tr_slot_drop(struct tr_slots *s, uint32_t slot);
int __real_tr_home_is_dirty(const struct tr_homes *h, uint32_t span);
int __wrap_tr_home_is_dirty(const struct tr_homes *h, uint32_t span);

int __real_tr_slot_want(struct tr_slots *s, uint32_t slot);
int __wrap_tr_slot_want(struct tr_slots *s, uint32_t slot);

static const struct way *way;
static int keeps_slots, keeps_homes; /* the defects */
static int forgets_slots;            /* and one more */
static _Atomic int gives_up;         /* the call is under way */

int __wrap_tr_slot_want(struct tr_slots *s, uint32_t slot)
{
    return forgets_slots ? 0 : __real_tr_slot_want(s, slot);
}

int __wrap_tr_home_is_dirty(const struct tr_homes *h, uint32_t span)
{
    return !(keeps_homes && gives_up) && __real_tr_home_is_dirty(h, span);
}

void __wrap_tr_slot_drop(struct tr_slots *s, uint32_t slot)
{
    if (!keeps_slots)
        __real_tr_slot_drop(s, slot);
}

static struct player_params usual(uint64_t seed)
{
    return (struct player_params){
        .shape = {.n_spans = 8, .n_pools = 2, .max_pieces = 3, .max_bytes = 9000, .seed = 3},
        .slots = {1 + (uint32_t)(seed % 4), 1 + (uint32_t)(seed / 2 % 4)},
        .io = seed % 2 ? TR_IO_THREADS : TR_IO_AUTO,
        .durability = seed / 2 % 2 ? TR_DURABLE_CHECKPOINT : TR_DURABLE_STEP,
        .serial = seed % 7 == 0,
        .way = *way,
        .seed = seed,
        .max_delay_us = 20};
}

/* One step, given up after the next one has been announced, as the trainer does. */
static int lost_step(struct player *p, int announce)
{
    struct tr_visit next[8] = {{0}};
    char **before = model_copy(&p->layout, p->model);
    uint64_t step = p->step;
    int r = player_step(p, 0, 0);

    for (uint32_t i = 0; i < 8; i++)
        next[i] = (struct tr_visit){.n_spans = 1, .span = {i}};
    if (r == 0 && announce)
        r = tr_offload_begin(p->o, next, 8, NULL, 0);
    if (r == 0)
        r = p->device->ops->sync(p->device, TR_STREAM_COMPUTE);
    gives_up = 1;
    if (r == 0)
        r = tr_offload_abandon(p->o);
    gives_up = 0;
    model_free(&p->layout, p->model);
    p->model = before;
    p->step = step;
    return r;
}

/* Steps with lost ones between them: at once after a commit was started, twice in a row, first. */
static int play(const struct player_params *params)
{
    struct player p;
    int r = 0;

    player_open(&p, params);
    for (int i = 0; i < 6 && r == 0; i++) {
        if (i % 2 == 0)
            r = lost_step(&p, i % 4 == 0);
        if (r == 0 && i == 2)
            r = lost_step(&p, 1);
        if (r == 0 && (r = player_step(&p, i % 3, 0)) == 0)
            r = player_commit(&p);
    }
    if (r == 0)
        r = lost_step(&p, 1);
    if (r == 0)
        r = player_commit(&p);
    if (r == 0)
        r = tr_offload_commit_wait(p.o);
    if (r == 0)
        r = player_reopen(&p);
    if (r == 0 && p.mismatches)
        r = tr_error(-EILSEQ, "%llu visits saw other bytes", (unsigned long long)p.mismatches);
    player_close(&p);
    return r;
}

static void gone_without_trace(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 16; seed++) {
        struct player_params p = usual(seed);

        assert_ok(play(&p));
    }
}

static void slow_disk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct faulty f = {
            .seed = seed, .short_percent = 20, .again_percent = 20, .delay_percent = 50};
        struct player_params p = usual(seed);

        p.faulty = &f;
        assert_ok(play(&p));
        assert_true(f.delayed > 10);
    }
}

/* An error of the disk while the step's write-backs are waited for comes out of it. */
static void error_comes_out(void **state)
{
    struct faulty f = {.seed = 1, .fail = -EIO, .fail_op = TR_IO_WRITE, .fail_file = TR_FILE_GEN1};
    struct player_params params = usual(4);
    struct player p;
    int r;

    (void)state;
    params.faulty = &f;
    f.fail_after = 7;
    player_open(&p, &params);
    r = lost_step(&p, 1);
    expect_error(r, -EIO, "gen1");
    player_close(&p);
}

static void refused(void **state)
{
    struct player_params params = usual(4);
    struct tr_visit v = {.n_spans = 1, .span = {0}};
    void *at[TR_VISIT_SPANS];
    struct player p;

    (void)state;
    player_open(&p, &params);
    assert_ok(tr_offload_begin(p.o, &v, 1, NULL, 0));
    assert_ok(tr_offload_acquire(p.o, 0, at));
    expect_error(tr_offload_abandon(p.o), -EINVAL, "while visit 0");
    assert_ok(tr_offload_release(p.o, 0));
    player_close(&p);
    params.durability = TR_DURABLE_NONE;
    player_open(&p, &params);
    expect_error(tr_offload_abandon(p.o), -EINVAL, "in place");
    player_close(&p);
}

/* Of the runs of seeds first to last, those that show it. */
static int count_caught(int *mutant, uint64_t first, uint64_t last)
{
    int caught = 0;

    *mutant = 1;
    for (uint64_t seed = first; seed <= last; seed++) {
        struct player_params p = usual(seed);

        caught += player_tells(play(&p));
    }
    *mutant = 0;
    return caught;
}

static void mutant_keeps_slots(void **state)
{
    (void)state;
    assert_int_equal(count_caught(&keeps_slots, 1, 4), 4);
}

/* Seeds with checkpoints: where every step is durable a home is never newer than the disk. */
static void mutant_keeps_homes(void **state)
{
    (void)state;
    assert_int_equal(count_caught(&keeps_homes, 2, 3), way->in_host ? 2 : 0);
}

/* A step and its commit, with room for all. */
static int commit_one(void)
{
    struct player_params params = usual(2);
    struct player p;
    int r;

    params.slots[0] = params.slots[1] = 0;
    player_open(&p, &params);
    r = player_step(&p, 0, -1);
    if (r == 0)
        r = tr_offload_drain(p.o); /* all visits have passed */
    if (r == 0)
        r = player_commit(&p);
    if (r == 0)
        r = tr_offload_commit_wait(p.o);
    if (r == 0)
        r = player_reopen(&p);
    player_close(&p);
    return r;
}

static void mutants_of_the_commit(void **state)
{
    (void)state;
    assert_ok(commit_one());
    forgets_slots = 1;
    assert_int_equal(commit_one(), -EILSEQ);
    forgets_slots = 0;
    keeps_homes = 1;
    gives_up = 1;
    assert_int_equal(commit_one(), way->in_host ? -EILSEQ : 0);
    keeps_homes = 0;
    gives_up = 0;
}

int main(void)
{
    int failed = 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gone_without_trace),    cmocka_unit_test(slow_disk),
        cmocka_unit_test(error_comes_out),       cmocka_unit_test(refused),
        cmocka_unit_test(mutant_keeps_slots),    cmocka_unit_test(mutant_keeps_homes),
        cmocka_unit_test(mutants_of_the_commit),
    };

    for (int i = 0; i < WAYS; i++) {
        way = &ways[i];
        print_message("%s:\n", way->name);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
