/* SPDX-License-Identifier: Apache-2.0
 *
 * Which folder holds what: the assignment as a function of sizes, speeds and room, the lookup in
 * it, and the queue, which takes requests from a transfer for every folder.
 */
#include <stdlib.h>
#include <string.h>

#include "offload/watch.h"
#include "src/base/mem.h"
#include "tests/offload/harness.h"

#define PARTS 600
#define MIB   (1ull << 20)

static uint64_t sizes[PARTS];
static unsigned char folder[PARTS];

static uint64_t fill_sizes(uint64_t seed, uint32_t n)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        int small = rng_below(&seed, 4) == 0;

        sizes[i] =
            small ? TR_STORE_ALIGN * (1 + rng_below(&seed, 8)) : MIB * (2 + rng_below(&seed, 14));
        sum += sizes[i];
    }
    return sum;
}

static void add_up(uint64_t *given, uint32_t from, uint32_t to)
{
    memset(given, 0, TR_STORE_FOLDERS * sizeof(*given));
    for (uint32_t i = from; i < to; i++)
        given[folder[i]] += sizes[i];
}

static void assert_near(uint64_t got, double want, double most)
{
    if ((double)got < want - most || (double)got > want + most)
        fail_msg("%llu bytes, wanted %.0f within %.0f", (unsigned long long)got, want, most);
}

/* By speed, over the whole and over any tenth of it: so each load is shared like the model. */
static void by_speed(void **state)
{
    static const struct tr_drive drives[] = {
        {7e9, 1ull << 50}, {2e9, 1ull << 50}, {1e9, 1ull << 50}};
    uint64_t given[TR_STORE_FOLDERS];

    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        fill_sizes(seed, PARTS);
        assert_int_equal(tr_stripes_assign(sizes, PARTS, drives, 3, folder), 0);
        for (uint32_t from = 0; from < PARTS; from += PARTS / 10) {
            uint64_t sum = 0;

            add_up(given, from, from + PARTS / 10);
            for (int i = 0; i < 3; i++)
                sum += given[i];
            for (int i = 0; i < 3; i++)
                assert_near(given[i], (double)sum * drives[i].speed / 1e10, 17 * MIB);
        }
    }
}

/* A fast small drive is filled to what it holds, and evenly all the same. */
static void to_the_brim(void **state)
{
    uint64_t given[TR_STORE_FOLDERS], sum = fill_sizes(3, PARTS);
    struct tr_drive drives[] = {{1e9, 1ull << 50}, {9e9, sum / 4}};

    (void)state;
    assert_int_equal(tr_stripes_assign(sizes, PARTS, drives, 2, folder), 0);
    add_up(given, 0, PARTS);
    assert_true(given[1] <= drives[1].room);
    assert_near(given[1], (double)drives[1].room, 17 * MIB);
    add_up(given, 0, PARTS / 2);
    assert_near(given[1], (double)drives[1].room / 2, 0.02 * (double)sum);
}

static void too_little_room(void **state)
{
    uint64_t sum = fill_sizes(4, PARTS);
    struct tr_drive drives[] = {{1e9, sum / 2}, {2e9, sum / 2 - MIB}};

    (void)state;
    assert_int_equal(tr_stripes_assign(sizes, PARTS, drives, 2, folder), -ENOSPC);
    drives[1].room = sum / 2 + 40 * MIB;
    assert_int_equal(tr_stripes_assign(sizes, PARTS, drives, 2, folder), 0);
    drives[0].room = 0;
    drives[1].room = sum;
    assert_int_equal(tr_stripes_assign(sizes, PARTS, drives, 2, folder), 0);
}

/* Room is never exceeded, whatever the drives. */
static void within_room(void **state)
{
    uint64_t seed = 11;
    int fits = 0;

    (void)state;
    for (int k = 0; k < 400; k++) {
        uint32_t n = 1 + rng_below(&seed, TR_STORE_FOLDERS), parts = 1 + rng_below(&seed, PARTS);
        uint64_t given[TR_STORE_FOLDERS], sum = fill_sizes(rng_next(&seed), parts);
        struct tr_drive drives[TR_STORE_FOLDERS];

        for (uint32_t i = 0; i < n; i++) {
            drives[i].speed = 1 + (double)rng_below(&seed, 1000);
            drives[i].room = sum / n * (50 + rng_below(&seed, 150)) / 100;
        }
        if (tr_stripes_assign(sizes, parts, drives, n, folder) < 0)
            continue;
        fits++;
        add_up(given, 0, parts);
        for (uint32_t i = 0; i < n; i++)
            assert_true(given[i] <= drives[i].room);
    }
    assert_true(fits > 100);
}

static const struct shape shape = {
    .n_spans = 40, .n_pools = 2, .max_pieces = 6, .max_bytes = 30000, .seed = 5};
static const struct tr_drive three[] = {{3, 1 << 30}, {1, 1 << 30}, {2, 1 << 30}};

/* Every block of the generation has one place, no place is used twice, and the walk through one
 * folder meets exactly what lies there. */
static void find_and_next(void **state)
{
    struct tr_stripes s;
    struct tr_layout l;
    unsigned char *used[3];
    uint64_t total;

    (void)state;
    test_layout(&l, &shape);
    assert_ok(tr_stripes_make(&s, &l, three, 3));
    total = tr_layout_bytes(&l);
    for (uint32_t f = 0; f < 3; f++) {
        used[f] = calloc(1, total / TR_STORE_ALIGN);
        assert_near(s.folder_bytes[f], (double)total * three[f].speed / 6, (double)total / 10);
    }
    for (uint64_t at = 0; at < total; at += TR_STORE_ALIGN) {
        struct tr_stripe_place p = tr_stripes_find(&s, at);

        assert_true(p.offset < s.folder_bytes[p.folder] && p.end > at && p.end <= total);
        assert_int_equal(used[p.folder][p.offset / TR_STORE_ALIGN]++, 0);
        for (uint32_t f = 0; f < 3; f++) {
            uint64_t next = tr_stripes_next(&s, f, at, total);

            assert_true((next == at) == (f == p.folder));
            assert_true(next == total || tr_stripes_find(&s, next).folder == f);
            assert_true(f == p.folder || next >= p.end);
        }
    }
    for (uint32_t f = 0; f < 3; f++)
        free(used[f]);
    tr_stripes_free(&s);
    tr_layout_free(&l);
}

/* ---- the queue ---- */

#define DEPTH 4

/* Scratch: what spills is cut by itself, a part being a whole piece or the end of a span, and dealt
 * out by the same shares; what does not has no place. */
static void scratch_parts(void **state)
{
    const struct tr_scratch scratch[] = {{0, TR_PIECE_BYTES * 5ull + 4096, 1},
                                         {0, TR_PIECE_BYTES * 9ull, 0},
                                         {0, TR_PIECE_BYTES * 6ull, 1}};
    const struct tr_drive drives[] = {{3, 1ull << 40}, {0, 1ull << 40}, {1, 1ull << 40}};
    struct tr_stripes s;

    (void)state;
    assert_ok(tr_stripes_make_scratch(&s, scratch, 3, drives, 3));
    assert_int_equal(s.bytes, scratch[0].bytes + scratch[2].bytes);
    assert_int_equal(s.folder_bytes[1], 0);
    assert_near(s.folder_bytes[0], 0.75 * (double)s.bytes, TR_PIECE_BYTES);
    for (uint32_t i = 0; i < s.n; i++) {
        uint64_t within = s.stripe[i].from < scratch[0].bytes ? s.stripe[i].from
                                                              : s.stripe[i].from - scratch[0].bytes;

        assert_true(within % TR_PIECE_BYTES == 0);
        assert_true(i == 0 || s.stripe[i].folder != s.stripe[i - 1].folder);
    }
    tr_stripes_free(&s);
    assert_int_equal(tr_stripes_make_scratch(&s, scratch, 3, (struct tr_drive[]){{1, 4096}}, 1),
                     -ENOSPC);
    tr_stripes_free(&s);
}

/* A table that keeps what it is given; of `stuck` folders it gives nothing back. */
struct keeper {
    struct tr_io io;
    struct tr_io_request *kept[TR_STORE_FOLDERS];
    uint32_t n[TR_STORE_FOLDERS], most, syncs;
    uint32_t stuck;
    uint64_t bytes[TR_STORE_FOLDERS];
    const struct tr_stripes *stripes;
};

static void keep(struct tr_io *io, struct tr_io_request *r)
{
    struct keeper *k = (struct keeper *)io;
    uint32_t at = tr_file_folder(r->file);

    r->next = k->kept[at];
    k->kept[at] = r;
    k->syncs += r->op == TR_IO_SYNC;
    if (++k->n[at] > k->most)
        k->most = k->n[at];
    if (r->op == TR_IO_SYNC)
        return;
    assert_true(r->offset + r->bytes <= k->stripes->folder_bytes[at]);
    k->bytes[at] += r->bytes;
}

static int give(struct tr_io *io, int wait, struct tr_io_request **done)
{
    struct keeper *k = (struct keeper *)io;

    (void)wait;
    *done = NULL;
    for (uint32_t f = 0; f < TR_STORE_FOLDERS; f++) {
        struct tr_io_request *r = k->kept[f];

        if (!r || (k->stuck >> f & 1))
            continue;
        k->kept[f] = r->next;
        k->n[f]--;
        r->result = (int64_t)r->bytes;
        r->next = *done;
        *done = r;
    }
    return 0;
}

static void nothing(struct tr_io *io)
{
    (void)io;
}

static void finished(struct tr_transfer *t)
{
    ++*(int *)t->owner;
}

/* While one drive gives nothing back, all that lies on the others arrives; a sync goes to every
 * folder; no folder has more than its depth under way. */
static void slow_drive(void **state)
{
    static const struct tr_io_ops ops = {.submit = keep, .reap = give, .close = nothing};
    struct tr_stripes s;
    struct keeper k = {.io = {&ops}, .stuck = 2, .stripes = &s};
    struct tr_transfer t = {.op = TR_IO_READ, .file = TR_FILE_GEN1, .done = finished};
    struct tr_transfer sync = {.op = TR_IO_SYNC, .file = TR_FILE_GEN0, .done = finished};
    struct tr_transfer own = {.op = TR_IO_SYNC, .file = TR_FILE_COMMIT1, .done = finished};
    struct tr_layout l;
    struct tr_queue *q;
    int done = 0;

    (void)state;
    test_layout(&l, &shape);
    assert_ok(tr_stripes_make(&s, &l, three, 3));
    t.owner = sync.owner = own.owner = &done;
    t.bytes = tr_layout_bytes(&l);
    assert_ok(tr_queue_open(&q, &k.io, DEPTH, &s));
    tr_queue_add(q, &t);
    for (int i = 0; i < 1000; i++)
        assert_ok(tr_queue_turn(q, 0));
    assert_int_equal(k.bytes[0], s.folder_bytes[0]);
    assert_int_equal(k.bytes[2], s.folder_bytes[2]);
    assert_int_equal(k.n[1], DEPTH);
    assert_int_equal(k.most, DEPTH);
    assert_int_equal(done, 0);
    k.stuck = 0;
    for (int i = 0; i < 1000; i++)
        assert_ok(tr_queue_turn(q, 0));
    assert_int_equal(k.bytes[1], s.folder_bytes[1]);
    assert_int_equal(done, 1);
    tr_queue_add(q, &sync);
    tr_queue_add(q, &own);
    for (int i = 0; i < 10; i++)
        assert_ok(tr_queue_turn(q, 0));
    assert_int_equal(k.syncs, 3 + 1);
    assert_int_equal(done, 3);
    tr_queue_close(q);
    tr_stripes_free(&s);
    tr_layout_free(&l);
}

/* ---- a drive that becomes slow ---- */

/* Seconds at this rate, in 4 parts each; how often it was to be said, and the rates told. */
static int watch_for(struct tr_watch *w, int seconds, double rate, double told[2])
{
    int n = 0;

    for (int i = 0; i < 4 * seconds; i++)
        n += tr_watch_add(w, TR_WATCH_NS / 4, (uint64_t)(rate / 4), &told[0], &told[1]);
    return n;
}

static void watch(void **state)
{
    struct tr_watch w = {.n = 0};
    double told[2] = {0};

    (void)state;
    assert_int_equal(watch_for(&w, 100, 4e9, told), 0);
    assert_int_equal(watch_for(&w, 100, 2.1e9, told), 0); /* not below half */
    memset(&w, 0, sizeof(w));
    assert_int_equal(watch_for(&w, TR_WATCH_EARLIER - 1, 4e9, told), 0);
    assert_int_equal(watch_for(&w, 1, 1e9, told), 0); /* too early to say what is usual */
    for (int i = 0; i < 20; i++) {                    /* hiccups */
        assert_int_equal(watch_for(&w, TR_WATCH_SLOW - 1, 1e9, told), 0);
        assert_int_equal(watch_for(&w, 1, 4e9, told), 0);
    }
    assert_int_equal(watch_for(&w, TR_WATCH_SLOW, 1e9, told), 1);
    assert_true(told[0] == 4e9 && told[1] == 1e9);
    assert_int_equal(watch_for(&w, 500, 1e9, told), 0); /* said once */
    assert_int_equal(watch_for(&w, 10, 4e9, told), 0);
    assert_int_equal(watch_for(&w, 500, 1e9, told), 0);
}

static uint64_t fake_ns;

static uint64_t fake_clock(void)
{
    return fake_ns;
}

/* Two folders read a request a turn each. From some turn on the second takes ten times as long,
 * which is told, of it alone; a drive that has little to do is not called slow. */
static void watched_queue(void **state)
{
    static const struct tr_io_ops ops = {.submit = keep, .reap = give, .close = nothing};
    static const struct tr_drive drives[] = {{1, 1 << 30}, {1, 1 << 30}};
    struct tr_stripes s;
    struct keeper k = {.io = {&ops}, .stripes = &s};
    struct tr_transfer t[8];
    struct tr_layout l;
    struct tr_queue *q;
    struct tr_slow slow;
    int done = 0, told = 0;

    (void)state;
    test_layout(&l, &shape);
    assert_ok(tr_stripes_make(&s, &l, drives, 2));
    assert_ok(tr_queue_open(&q, &k.io, DEPTH, &s));
    tr_queue_set_clock(q, fake_clock);
    for (int i = 0; i < 8; i++)
        t[i] = (struct tr_transfer){
            .op = TR_IO_READ, .bytes = tr_layout_bytes(&l), .done = finished, .owner = &done};
    for (int turn = 0; turn < 400000; turn++) {
        int slows = turn > 100000;

        if (tr_queue_under_way(q) < DEPTH && done % 8 == 0)
            for (int i = 0; i < 8; i++)
                tr_queue_add(q, &t[i]);
        k.stuck = slows && turn % 10 ? 2 : 0;
        fake_ns += 1000000;
        assert_ok(tr_queue_turn(q, 0));
        if (!tr_queue_slow(q, &slow))
            continue;
        assert_int_equal(slow.folder, 1);
        assert_string_equal(slow.what, "reading");
        assert_true(slows && slow.now < slow.usual / 2);
        told++;
    }
    assert_int_equal(told, 1);
    k.stuck = 0;
    while (tr_queue_under_way(q))
        assert_ok(tr_queue_turn(q, 0));
    tr_queue_close(q);
    tr_stripes_free(&s);
    tr_layout_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_speed),      cmocka_unit_test(to_the_brim),
        cmocka_unit_test(within_room),   cmocka_unit_test(too_little_room),
        cmocka_unit_test(slow_drive),    cmocka_unit_test(watch),
        cmocka_unit_test(watched_queue), cmocka_unit_test(find_and_next),
        cmocka_unit_test(scratch_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
