/* SPDX-License-Identifier: Apache-2.0
 *
 * What is special about bytes that pass through host memory: chunks and homes are counted exactly,
 * a slot is free before the disk has its bytes, a device that fails is never believed (invariant 3:
 * no commit names what a failed copy left behind), and the defects that all this is for are caught.
 * That every setting gives the same bytes is in test_engine.c, power loss in test_crash.c.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "offload/staging.h"
#include "src/base/mem.h"
#include "tests/offload/player.h"

#define EVERY_SPAN 0xff

static const struct shape eight = {
    .n_spans = 8, .n_pools = 2, .max_pieces = 5, .max_bytes = 9000, .seed = 3};

static struct player_params usual(uint64_t seed, const struct way *way)
{
    return (struct player_params){.shape = eight,
                                  .slots = {2, 2},
                                  .io = TR_IO_THREADS,
                                  .way = *way,
                                  .seed = seed,
                                  .max_delay_us = 20};
}

static uint64_t home_bytes(const struct player *p)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < p->layout.n_spans; i++)
        bytes += p->p.way.in_host >> i & 1 ? p->layout.spans[i].bytes : 0;
    return bytes;
}

static void run_steps(struct player *p, int n)
{
    for (int i = 0; i < n; i++) {
        assert_ok(player_step(p, 0, 0));
        assert_ok(player_commit(p));
    }
    assert_ok(tr_offload_commit_wait(p->o));
}

/* ---- what is counted ---- */

/* Invariant 6: what the engine says it needs is what it takes, and it gives all of it back. */
static void host_memory_is_exact(void **state)
{
    (void)state;
    for (int i = 0; i < WAYS; i++) {
        struct player_params params = usual(1, &ways[i]);
        uint64_t staging = params.way.opaque ? params.way.staging_bytes : 0;
        struct player p;

        player_open(&p, &params);
        assert_int_equal(tr_offload_host_bytes(p.o), staging + home_bytes(&p));
        assert_int_equal(test_device_host_bytes(p.device), staging); /* homes come when needed */
        run_steps(&p, 2);
        assert_int_equal(test_device_host_bytes(p.device), tr_offload_host_bytes(p.o));
        assert_ok(player_reopen(&p));
        assert_int_equal(test_device_host_bytes(p.device), 0);
        player_close(&p);
    }
}

/* Its tables are counted beforehand, from above: and no more than three times what they are. */
static void tables_are_counted(void **state)
{
    (void)state;
    for (int i = 0; i < WAYS; i++) {
        struct player_params params = usual(1, &ways[i]);
        struct tr_slot_pool pools[2] = {{.n_slots = 2}, {.n_slots = 2}};
        struct tr_table_sizes sizes = {
            .pools = pools, .n_pools = 2, .visits = 16, .staged = i != WAY_DIRECT};
        uint64_t before, most;
        struct player p;

        player_open(&p, &params);
        sizes.layout = &p.layout;
        for (uint32_t k = 0; k < 2; k++)
            pools[k].slot_bytes = span_max_bytes(&p.layout, k);
        most = tr_offload_table_bytes(&sizes);
        assert_ok(tr_offload_close(p.o));
        before = tr_mem_now(TR_MEM_MISC);
        assert_ok(player_open_engine(&p));
        run_steps(&p, 2);
        assert_in_range(tr_mem_now(TR_MEM_MISC) - before, most / 3, most);
        player_close(&p);
    }
}

static void size_of_staging(void **state)
{
    struct player_params params = usual(1, &ways[WAY_STAGED]);
    struct player p;

    (void)state;
    assert_int_equal(tr_chunk_bytes(TR_STAGING_BYTES), TR_CHUNK_BYTES);
    assert_int_equal(tr_chunk_bytes(1 << 20), 1 << 16);
    assert_int_equal(tr_chunk_bytes(TR_STORE_ALIGN), TR_STORE_ALIGN);
    params.way.staging_bytes = 0;
    player_open(&p, &params);
    assert_int_equal(tr_offload_host_bytes(p.o), TR_STAGING_BYTES);
    assert_ok(tr_offload_close(p.o));
    p.p.way.staging_bytes = 100;
    expect_error(player_open_engine(&p), -EINVAL, "too few");
    p.o = NULL;
    /* No staging where every span has a home. */
    p.p.way = (struct way){"", 1, 0, EVERY_SPAN};
    assert_ok(player_open_engine(&p));
    assert_int_equal(tr_offload_host_bytes(p.o), tr_layout_bytes(&p.layout));
    player_close(&p);
}

/* Each span is read from the disk once, and written as often as it is changed. */
static void homes_save_reads(void **state)
{
    (void)state;
    for (int opaque = 0; opaque < 2; opaque++) {
        struct way all = {"", opaque, 16 * TR_STORE_ALIGN, EVERY_SPAN};
        struct player_params params = usual(2, &all);
        struct tr_offload_stats s;
        struct player p;

        player_open(&p, &params);
        run_steps(&p, 5);
        tr_offload_stats(p.o, &s);
        assert_int_equal(s.loads, 2 * (5 * 2 * (4 - 2) + 2)); /* as without homes */
        assert_int_equal(s.host_loads, s.loads - 8);
        assert_int_equal(s.read_bytes, tr_layout_bytes(&p.layout));
        assert_int_equal(s.written_bytes, 5 * tr_layout_bytes(&p.layout));
        assert_int_equal(s.copied_out_bytes, s.written_bytes);
        assert_true(s.copied_in_bytes > s.read_bytes);
        assert_ok(player_reopen(&p));
        assert_int_equal(p.mismatches, 0);
        player_close(&p);
    }
}

/* Not every step being durable, a home is written once for all steps since the last commit, and
 * after the commit it is what the store says; without the commit the store is untouched. */
static void homes_wait_for_the_commit(void **state)
{
    struct way all = {"", 1, 16 * TR_STORE_ALIGN, EVERY_SPAN};
    struct player_params params = usual(2, &all);
    struct tr_offload_stats s;
    struct player p;

    (void)state;
    for (int none = 0; none < 2; none++) {
        char **committed;

        params.durability = none ? TR_DURABLE_NONE : TR_DURABLE_CHECKPOINT;
        player_open(&p, &params);
        for (int i = 0; i < 5; i++)
            assert_ok(player_step(&p, i % 3, 0));
        assert_ok(tr_offload_drain(p.o));
        tr_offload_stats(p.o, &s);
        assert_int_equal(s.written_bytes, 0);
        assert_ok(player_commit(&p));
        committed = model_copy(&p.layout, p.model);
        assert_ok(player_step(&p, 0, 0));
        assert_ok(tr_offload_commit_wait(p.o));
        tr_offload_stats(p.o, &s);
        assert_int_equal(s.written_bytes, tr_layout_bytes(&p.layout));
        assert_int_equal(s.read_bytes, tr_layout_bytes(&p.layout));
        assert_int_equal(p.mismatches, 0);
        if (none) /* the last step has not been committed: the store is marked open */
            expect_error(player_reopen(&p), -EUCLEAN, "durability none");
        else
            expect_error(player_reopen(&p), -EILSEQ, "not what the model holds");
        if (!none)
            assert_ok(player_compare_store(&p, committed));
        model_free(&p.layout, committed);
        player_close(&p);
    }
}

/* The same of what stays in its slot, and only of that: eight spans in so many slots that all, or
 * three of four of each pool, fit. */
static void slots_wait_for_the_commit(void **state)
{
    (void)state;
    for (uint32_t slots = 3; slots <= 4; slots++) {
        struct player_params params = usual(2, &ways[WAY_DIRECT]);
        struct tr_offload_stats s;
        struct player p;
        uint64_t written;

        params.slots[0] = params.slots[1] = slots;
        params.durability = TR_DURABLE_CHECKPOINT;
        player_open(&p, &params);
        for (int i = 0; i < 4; i++)
            assert_ok(player_step(&p, 0, 0));
        assert_ok(tr_offload_drain(p.o));
        tr_offload_stats(p.o, &s);
        written = s.written_bytes;
        if (slots == 4)
            assert_int_equal(written, 0);
        else /* two of each pool a step, once more than steps begin */
            assert_in_range(s.writes, 4 * 2 + 3 * 2, 4 * 2 * 2);
        assert_ok(player_commit(&p));
        assert_ok(tr_offload_commit_wait(p.o));
        tr_offload_stats(p.o, &s);
        assert_true(s.written_bytes > written &&
                    s.written_bytes - written <= tr_layout_bytes(&p.layout));
        assert_ok(player_commit(&p)); /* of nothing */
        assert_ok(tr_offload_commit_wait(p.o));
        written = s.written_bytes;
        tr_offload_stats(p.o, &s);
        assert_int_equal(s.written_bytes, written);
        assert_ok(player_reopen(&p));
        assert_int_equal(p.mismatches, 0);
        player_close(&p);
    }
}

/* ---- order ---- */

/* A single chunk, of one block: nothing waits in a circle. And pieces larger than a chunk and than
 * what is hashed in one go. */
static void extremes(void **state)
{
    struct player_params one = usual(3, &ways[WAY_STAGED]);
    struct player_params large = usual(4, &ways[WAY_STAGED]);

    (void)state;
    one.way.staging_bytes = TR_STORE_ALIGN;
    for (; one.seed < 8; one.seed++)
        assert_ok(player_play(&one, 6, NULL));
    large.shape = (struct shape){
        .n_spans = 3, .n_pools = 1, .max_pieces = 2, .max_bytes = 7 << 20, .seed = 5};
    large.slots[0] = 1;
    for (int home = 0; home < 2; home++) {
        large.way.staging_bytes = TR_STAGING_BYTES;
        large.way.in_host = home ? 2 : 0;
        assert_ok(player_play(&large, 2, NULL));
    }
}

static void settle(void)
{
    usleep(20000);
}

/* While the disk is still at the bytes of a span with a home, its slot serves another one, and the
 * span itself comes back from its home, also where nothing but this write-back was ever in there;
 * but its next change is not written over them. */
static void slot_is_free_before_the_disk(void **state)
{
    struct tr_visit v[4] = {{.n_spans = 1, .span = {0}, .changed = 1},
                            {.n_spans = 1, .span = {2}},
                            {.n_spans = 1, .span = {0}, .changed = 1},
                            {.n_spans = 1, .span = {2}}};

    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        struct way first = {"", kind & 1, 16 * TR_STORE_ALIGN, 1};
        struct player_params params = usual(2, &first);
        struct faulty f = {.seed = 1};
        struct tr_offload_stats s;
        struct player p;
        uint32_t writes;

        params.faulty = &f;
        params.slots[0] = params.slots[1] = 1;
        v[0].fresh = kind >= 2;
        player_open(&p, &params);
        atomic_store(&f.hold_writes, 1);
        assert_ok(tr_offload_begin(p.o, v, 4, NULL, 0));
        for (uint32_t i = 0; i < 2; i++)
            assert_ok(player_visit(&p, &v[i], i));
        settle();
        writes = atomic_load(&f.all_writes);
        assert_true(writes > 0);
        assert_ok(player_visit(&p, &v[2], 2));
        settle();
        assert_int_equal(atomic_load(&f.all_writes), writes);
        tr_offload_stats(p.o, &s);
        assert_int_equal(s.writes, 0);
        assert_int_equal(s.host_loads, 1);
        atomic_store(&f.hold_writes, 0);
        assert_ok(player_visit(&p, &v[3], 3));
        assert_ok(tr_offload_drain(p.o));
        assert_int_equal(atomic_load(&f.all_writes), 2 * writes);
        assert_ok(player_commit(&p));
        assert_ok(tr_offload_commit_wait(p.o));
        assert_ok(player_reopen(&p));
        assert_int_equal(p.mismatches, 0);
        player_close(&p);
    }
}

/* ---- a real device ---- */

static void compare_span(const struct player *p, uint32_t span, const char *bytes)
{
    const struct tr_span *s = &p->layout.spans[span];

    for (uint32_t i = s->first_piece; i < s->first_piece + s->n_pieces; i++) {
        const struct tr_piece *piece = &p->layout.pieces[i];

        assert_memory_equal(bytes + piece->offset, p->model[span] + piece->offset, piece->bytes);
    }
}

/* The cpu device that hides its arena; the test looks into it all the same, as compute would. Every
 * span is changed on its way through one slot, loaded again and compared. */
static void on_the_cpu_device(void **state)
{
    struct tr_device_params dp = {.memory_bytes = 64 << 20, .threads = 1, .opaque = 1};
    struct player_params params = usual(8, &ways[WAY_STAGED_HOMES]);
    struct tr_device *cpu, *stand_in;
    struct tr_visit v[16] = {{0}};
    struct player p;

    (void)state;
    params.slots[0] = params.slots[1] = 1;
    player_open(&p, &params);
    assert_ok(tr_offload_close(p.o));
    dp.delay_seed = 1;
    assert_ok(tr_device_open_cpu(&cpu, &dp));
    stand_in = p.device;
    p.device = cpu;
    assert_ok(player_open_engine(&p));
    for (uint32_t i = 0; i < 16; i++)
        v[i] = (struct tr_visit){.n_spans = 1, .span = {i % 8}, .changed = i < 8};
    assert_ok(tr_offload_begin(p.o, v, 16, NULL, 0));
    for (uint32_t i = 0; i < 16; i++) {
        void *at[TR_VISIT_SPANS];
        uint32_t s = i % 8;

        assert_ok(tr_offload_acquire(p.o, i, at));
        if (!v[i].changed)
            compare_span(&p, s, at[0]);
        if (v[i].changed) {
            fill_span(p.model[s], &p.layout, s, 1);
            fill_span(at[0], &p.layout, s, 1);
        }
        assert_ok(tr_offload_release(p.o, i));
    }
    assert_ok(player_commit(&p));
    assert_ok(tr_offload_commit_wait(p.o));
    assert_ok(player_reopen(&p));
    cpu->ops->close(cpu);
    p.device = stand_in;
    player_close(&p);
}

/* ---- a device that fails ---- */

#define STEPS 8

/* Steps and commits until the device's error comes out, with this word; NULL: none does. What the
 * store then opens at is compared with the model as it was at that step: 0, or how it came out. */
static int run_until_error(const struct player_params *params, const char *word)
{
    char **snapshot[STEPS + 1] = {NULL};
    struct player p;
    uint64_t step = 0;
    size_t bytes;
    int r = 0;

    player_open(&p, params);
    snapshot[0] = model_copy(&p.layout, p.model);
    while (r == 0 && p.step < STEPS) {
        r = player_step(&p, 0, 0);
        snapshot[p.step] = model_copy(&p.layout, p.model);
        if (r == 0)
            r = player_commit(&p);
    }
    if (r == 0)
        r = tr_offload_commit_wait(p.o);
    expect_error(r, word ? -EIO : 0, word ? word : "");
    expect_error(tr_offload_close(p.o), r, word ? word : "");
    p.o = NULL;
    tr_store_close(p.store);
    assert_ok(tr_store_open(&p.store, p.folder, TR_STORE_READ));
    tr_store_payload(p.store, &step, sizeof(step), &bytes);
    step = bytes == 5 ? 0 : step; /* "start" */
    assert_true(step <= p.step);
    r = player_compare_store(&p, snapshot[step]);
    if (r == 0 && p.mismatches)
        r = -EILSEQ;
    for (int i = 0; i <= STEPS; i++)
        if (snapshot[i])
            model_free(&p.layout, snapshot[i]);
    player_close(&p);
    return r;
}

static void expect_device_error(enum device_fault fault, const char *word)
{
    static const uint32_t after[] = {0, 7, 20, 40};

    for (int w = WAY_STAGED; w < WAYS; w++) {
        for (size_t i = 0; i < sizeof(after) / sizeof(after[0]); i++) {
            struct player_params params = usual(5 + i, &ways[w]);

            params.fault = fault;
            params.fault_after = after[i];
            assert_int_equal(run_until_error(&params, word), 0);
        }
    }
}

static void a_refused_copy_or_call_comes_out(void **state)
{
    (void)state;
    expect_device_error(FAULT_COPY_IN, "refuses");
    expect_device_error(FAULT_COPY_OUT, "refuses");
    expect_device_error(FAULT_CALL, "refuses");
}

/* Invariant 3: a copy that failed while it was under way is never committed. */
static void a_copy_that_failed_is_not_believed(void **state)
{
    (void)state;
    expect_device_error(FAULT_ASYNC_IN, "broken");
    expect_device_error(FAULT_ASYNC_OUT, "broken");
}

/* Nobody hangs on a callback that does not come, and one that comes when the engine is closed finds
 * nothing that is gone. */
static void a_lost_callback_hangs_nobody(void **state)
{
    (void)state;
    expect_device_error(FAULT_LOST, "broken");
}

/* The same where it is close that waits: for a load that nobody asked for any more, and for a
 * write-back. */
static void close_does_not_hang(void **state)
{
    (void)state;
    for (uint32_t changed = 0; changed < 2; changed++) {
        struct player_params params = usual(7, &ways[WAY_STAGED]);
        struct tr_visit v = {.n_spans = 1, .span = {0}, .changed = changed};
        struct player p;
        uint64_t chunks;

        params.fault = FAULT_LOST;
        player_open(&p, &params);
        chunks = p.layout.spans[0].bytes / TR_STORE_ALIGN;
        if (changed) /* after the load and the visit */
            test_device_fault_after(p.device, chunks + 1);
        assert_ok(tr_offload_begin(p.o, &v, 1, NULL, 0));
        if (changed)
            assert_ok(player_visit(&p, &v, 0));
        while (test_device_copies(p.device) <= (changed ? chunks : 0))
            settle();
        expect_error(tr_offload_close(p.o), -EIO, "broken");
        p.o = NULL;
        player_close(&p);
    }
}

/* The last copy fails while close waits for it: nothing comes after that to wake the I/O thread. */
static void close_sees_the_last_failure(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct player_params params = usual(seed, &ways[WAY_STAGED]);
        struct tr_visit v = {.n_spans = 1, .span = {0}};
        struct player p;
        uint64_t chunks;

        params.fault = FAULT_ASYNC_IN;
        params.max_delay_us = 30000;
        player_open(&p, &params);
        chunks = p.layout.spans[0].bytes / TR_STORE_ALIGN;
        test_device_fault_after(p.device, chunks - 1);
        assert_ok(tr_offload_begin(p.o, &v, 1, NULL, 0));
        while (test_device_copies(p.device) < chunks)
            settle();
        expect_error(tr_offload_close(p.o), -EIO, "broken");
        p.o = NULL;
        player_close(&p);
    }
}

/* ---- mutants ---- */

static int count_caught(enum device_mutant mutant, const struct way *way)
{
    int caught = 0;

    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct player_params params = usual(seed, way);

        params.mutant = mutant;
        params.max_delay_us = 200;
        caught += player_tells(player_play(&params, 4, NULL));
    }
    return caught;
}

static void mutants_are_caught(void **state)
{
    struct way all = {"", 1, 16 * TR_STORE_ALIGN, EVERY_SPAN};
    struct player_params deaf = usual(9, &ways[WAY_STAGED]);

    (void)state;
#ifndef __SANITIZE_THREAD__ /* which rightly calls them data races */
    assert_int_equal(count_caught(DEVICE_LATE_IN, &ways[WAY_STAGED]), 6);
    assert_true(count_caught(DEVICE_EAGER_OUT, &ways[WAY_STAGED]) > 0);
    assert_true(count_caught(DEVICE_EAGER_OUT, &all) > 0);
#endif
    assert_int_equal(count_caught(DEVICE_STALE, &all), 6);
    deaf.mutant = DEVICE_DEAF;
    deaf.fault = FAULT_ASYNC_OUT;
    deaf.fault_after = 7;
    assert_int_equal(run_until_error(&deaf, NULL), -EILSEQ);
}

/* As if checksums were not looked at: the commit in memory is made to agree with the damage. */
static void blind(struct player *p, uint32_t piece, uint64_t at)
{
    const struct tr_piece *q = &p->layout.pieces[piece];
    char *bytes = malloc(q->bytes);

    memcpy(bytes, p->model[tr_layout_span_of(&p->layout, piece)] + q->offset, q->bytes);
    bytes[at] ^= 0x10; /* flip_byte */
    p->store->next.hash[piece] = p->store->durable.hash[piece] = XXH3_64bits(bytes, q->bytes);
    free(bytes);
}

/* Invariant 8, in every piece, at its first and last byte; and without the check, the damage gets
 * through and is seen in what the visits compute. */
static void checksums_are_looked_at(void **state)
{
    struct player_params params = usual(6, &ways[WAY_STAGED_HOMES]);
    struct player p;

    (void)state;
    player_open(&p, &params);
    assert_ok(tr_offload_close(p.o));
    for (uint32_t i = 0; i < p.layout.n_pieces; i++) {
        const struct tr_piece *piece = &p.layout.pieces[i];
        const struct tr_span *span = &p.layout.spans[tr_layout_span_of(&p.layout, i)];
        uint64_t at = i % 2 ? piece->bytes - 1 : 0, seen = p.mismatches;
        uint64_t good = p.store->next.hash[i], where = span->offset + piece->offset + at;
        struct tr_visit v = {.n_spans = 1, .span = {tr_layout_span_of(&p.layout, i)}};

        flip_byte(p.folder, "gen0", where);
        assert_ok(player_open_engine(&p));
        assert_ok(tr_offload_begin(p.o, &v, 1, NULL, 0));
        expect_error(player_visit(&p, &v, 0), -EBADMSG, piece->name);
        expect_error(tr_offload_close(p.o), -EBADMSG, piece->name);

        blind(&p, i, at);
        assert_ok(player_open_engine(&p));
        assert_ok(tr_offload_begin(p.o, &v, 1, NULL, 0));
        assert_ok(player_visit(&p, &v, 0));
        assert_ok(tr_offload_close(p.o));
        assert_int_equal(p.mismatches, seen + 1);
        flip_byte(p.folder, "gen0", where);
        p.store->next.hash[i] = p.store->durable.hash[i] = good;
    }
    p.o = NULL;
    player_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_memory_is_exact),
        cmocka_unit_test(tables_are_counted),
        cmocka_unit_test(size_of_staging),
        cmocka_unit_test(homes_save_reads),
        cmocka_unit_test(homes_wait_for_the_commit),
        cmocka_unit_test(slots_wait_for_the_commit),
        cmocka_unit_test(extremes),
        cmocka_unit_test(slot_is_free_before_the_disk),
        cmocka_unit_test(on_the_cpu_device),
        cmocka_unit_test(a_refused_copy_or_call_comes_out),
        cmocka_unit_test(a_copy_that_failed_is_not_believed),
        cmocka_unit_test(a_lost_callback_hangs_nobody),
        cmocka_unit_test(close_does_not_hang),
        cmocka_unit_test(close_sees_the_last_failure),
        cmocka_unit_test(mutants_are_caught),
        cmocka_unit_test(checksums_are_looked_at),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
