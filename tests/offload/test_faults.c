/* SPDX-License-Identifier: Apache-2.0
 *
 * Each operation of a run in turn goes wrong (invariants 2, 3 and 8): the first read, write or sync
 * of some steps, then the second, and so on to the last, each in every way that a disk has: an
 * error, no more bytes, a part of them, a part and then "no space", an interruption, an end after
 * all others; and always with requests that finish late and in another order. What can be tried
 * again is, and nobody notices. Else the run ends with one line that names the file; the store
 * stands at the last commit that was durable or the one that was under way, has all its bytes, and
 * goes on to the bytes of a run that nothing happened to. Spans are parameters and optimizer state
 * by turns. A watchdog of seconds ends what hangs.
 *
 * The defect that all this is for is an engine that does not look at its results.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/base/file.h"
#include "tests/offload/player.h"

#define STEPS    3
#define PATIENCE 20        /* seconds of one run, which takes milliseconds */
#ifdef __SANITIZE_THREAD__ /* ten times as slow: the one with all that moves */
#define FIRST_WAY WAY_STAGED_HOMES
#else
#define FIRST_WAY WAY_DIRECT
#endif

static const struct way *way;
static char doing[256];

struct outcome {
    int reached; /* there was an operation to fail */
    int wrong;
    enum tr_io_op op;
};

/* Of each kind of operation: how many were failed in turn, and how many of these went wrong. */
struct tally {
    uint32_t of[TR_IO_OPS + 1], wrong[TR_IO_OPS + 1];
};

struct attempt {
    struct player p;
    char **snapshot[STEPS + 1];
    uint64_t durable, begun; /* steps whose commits were */
};

static void hangs(int sig)
{
    ssize_t n = write(STDERR_FILENO, doing, strlen(doing));

    _exit(n > 0 ? 128 + sig : 128);
}

static struct player_params usual(enum tr_durability durability, struct faulty *f)
{
    return (struct player_params){
        .shape = {.n_spans = 8, .n_pools = 2, .max_pieces = 2, .max_bytes = 6000, .seed = 5},
        .slots = {2, 2},
        .paired = 1,
        .io = TR_IO_THREADS,
        .durability = durability,
        .way = *way,
        .seed = 9,
        .faulty = f};
}

static int commits(const struct player *p)
{
    return p->p.durability == TR_DURABLE_STEP || p->step % 2 || p->step == STEPS;
}

/* All steps that are left, each of them known to be durable when the next commit has begun. */
static int play_on(struct attempt *a)
{
    struct player *p = &a->p;
    int r = 0;

    while (r == 0 && p->step < STEPS) {
        r = player_step(p, p->step == 1, 0);
        if (r < 0 || !commits(p))
            continue;
        if (!a->snapshot[p->step])
            a->snapshot[p->step] = model_copy(&p->layout, p->model);
        if ((r = tr_offload_commit_wait(p->o)) < 0)
            continue;
        a->durable = a->begun;
        a->begun = p->step;
        r = player_commit(p);
    }
    if (r == 0)
        r = tr_offload_commit_wait(p->o);
    if (r == 0)
        a->durable = a->begun;
    return r;
}

/* The store as it is found after the fault, opened as if by another process. */
static int reopen(struct attempt *a)
{
    struct player *p = &a->p;
    size_t bytes;
    int r;

    tr_store_close(p->store);
    p->store = NULL;
    if ((r = tr_store_open(&p->store, p->folders, TR_STORE_WRITE)) < 0)
        return r;
    p->step = 0;
    tr_store_payload(p->store, &p->step, sizeof(p->step), &bytes);
    if (bytes == 5) /* "start" */
        p->step = 0;
    if (p->step < a->durable || p->step > a->begun || !a->snapshot[p->step])
        return tr_error(-ERANGE, "stands at step %llu: %llu was durable, %llu begun",
                        (unsigned long long)p->step, (unsigned long long)a->durable,
                        (unsigned long long)a->begun);
    if ((r = player_compare_store(p, a->snapshot[p->step])) < 0)
        return r;
    for (uint32_t i = 0; i < p->layout.n_spans; i++)
        memcpy(p->model[i], a->snapshot[p->step][i], p->layout.spans[i].bytes);
    a->begun = a->durable = p->step;
    return player_open_engine(p);
}

/* What the run must end with; 0: it must go on. A sync is never tried again, and -EINTR is what a
 * caller's own stop is called. */
static int due(int fault, enum tr_io_op op)
{
    if (fault == FAULTY_BROKEN)
        return -EBADR;
    if (op == TR_IO_SYNC)
        return fault < 0 ? -EIO : 0;
    if (fault == FAULTY_ZERO)
        return op == TR_IO_READ ? -ENODATA : -EIO;
    if (fault == FAULTY_FULL)
        return op == TR_IO_WRITE ? -ENOSPC : 0;
    return fault == -EIO ? -EIO : 0;
}

/* What a run that has failed must have said, and done. */
static int recover(struct attempt *a)
{
    int r;

    if (strchr(tr_error_message(), '\n') || !strchr(tr_error_message(), '/'))
        return tr_error(-EINVAL, "no clear line: %s", tr_error_message());
    if ((r = reopen(a)) < 0)
        return r;
    return play_on(a);
}

/* Is the final store the one that the first attempt, which nothing happened to, has left? */
static int compare_end(struct attempt *a)
{
    static uint64_t expected;
    uint64_t h = 0;
    int r = player_reopen(&a->p);

    for (uint32_t i = 0; i < a->p.layout.n_spans; i++)
        for (uint64_t k = 0; k < a->p.layout.spans[i].bytes; k++)
            h = h * 31 + (unsigned char)a->p.model[i][k];
    if (!expected)
        expected = h;
    return r == 0 && h != expected ? tr_error(-EILSEQ, "ends with other bytes") : r;
}

static struct outcome attempt(enum tr_durability durability, int fault, uint32_t n)
{
    struct faulty f = {.seed = n + 1,
                       .delay_percent = 30,
                       .fail = fault,
                       .fail_op = TR_IO_OPS,
                       .fail_file = FAULTY_ANY_FILE,
                       .fail_after = n};
    struct player_params params = usual(durability, &f);
    struct attempt a = {0};
    struct outcome o = {0};
    int r;

    snprintf(doing, sizeof(doing), "hangs: %s, durability %d, fault %d at operation %u\n",
             way->name, (int)durability, fault, n);
    alarm(PATIENCE);
    player_open(&a.p, &params);
    a.snapshot[0] = model_copy(&a.p.layout, a.p.model);
    r = play_on(&a);
    tr_offload_close(a.p.o); /* its thread looks at f */
    a.p.o = NULL;
    o.reached = fault && f.seen > n;
    o.op = f.failed_op;
    f.fail = f.full = 0;
    if (fault == FAULTY_SWALLOWED)
        player_tells(r);
    if (r != (o.reached ? due(fault, o.op) : 0))
        r = tr_error(-EINVAL, "%d after a fault in operation kind %d", r, (int)o.op);
    else if (r < 0)
        r = recover(&a);
    if (r == 0)
        r = compare_end(&a);
    if (r < 0 || a.p.mismatches)
        o.wrong = 1;
    if (o.wrong && fault != FAULTY_SWALLOWED)
        print_error("%s: %s\n", doing, tr_error_message());
    for (int i = 0; i <= STEPS; i++)
        if (a.snapshot[i])
            model_free(&a.p.layout, a.snapshot[i]);
    tr_remove_tree(a.p.folder);
    player_close(&a.p);
    alarm(0);
    return o;
}

/* Every operation until there is none left. */
static int every_operation(int fault, struct tally *t)
{
    int wrong = 0;

    for (int d = TR_DURABLE_STEP; d <= TR_DURABLE_CHECKPOINT; d++) {
        struct outcome o = attempt((enum tr_durability)d, 0, 0);

        wrong += o.wrong;
        o.reached = 1;
        for (uint32_t n = 0; o.reached; n++) {
            o = attempt((enum tr_durability)d, fault, n);
            wrong += o.wrong;
            t->of[o.op] += (uint32_t)o.reached;
            t->wrong[o.op] += (uint32_t)o.wrong;
        }
    }
    return wrong;
}

static void expect_sound(int fault, const char *name)
{
    struct tally t = {0};

    assert_int_equal(every_operation(fault, &t), 0);
    print_message("%s: at %u reads, %u writes, %u syncs in turn\n", name, t.of[TR_IO_READ],
                  t.of[TR_IO_WRITE], t.of[TR_IO_SYNC]);
    assert_true(t.of[TR_IO_READ] > 10 && t.of[TR_IO_WRITE] > 10 && t.of[TR_IO_SYNC] > 4);
}

static void error(void **state)
{
    (void)state;
    expect_sound(-EIO, "EIO");
}

static void no_more_bytes(void **state)
{
    (void)state;
    expect_sound(FAULTY_ZERO, "no bytes");
}

static void part_of_the_bytes(void **state)
{
    (void)state;
    expect_sound(FAULTY_SHORT, "short");
}

static void full_disk(void **state)
{
    (void)state;
    expect_sound(FAULTY_FULL, "short, then ENOSPC");
}

static void interrupted(void **state)
{
    (void)state;
    expect_sound(-EINTR, "EINTR");
}

static void last_of_all(void **state)
{
    (void)state;
    expect_sound(FAULTY_LATE, "after all others");
}

static void broken_table(void **state)
{
    (void)state;
    expect_sound(FAULTY_BROKEN, "the table breaks down");
}

/* What is written again before it is read is not missed, nor is a sync where no power is lost. */
static void defect_swallowed(void **state)
{
    struct tally t = {0};

    (void)state;
    every_operation(FAULTY_SWALLOWED, &t);
    print_message("swallowed results: %u of %u reads and %u of %u writes are caught\n",
                  t.wrong[TR_IO_READ], t.of[TR_IO_READ], t.wrong[TR_IO_WRITE], t.of[TR_IO_WRITE]);
    assert_int_equal(t.wrong[TR_IO_READ], t.of[TR_IO_READ]);
    assert_true(t.of[TR_IO_READ] > 10 && t.wrong[TR_IO_WRITE] > t.of[TR_IO_WRITE] / 2);
    assert_int_equal(t.wrong[TR_IO_SYNC], 0);
}

int main(void)
{
    int failed = 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(error),
        cmocka_unit_test(no_more_bytes),
        cmocka_unit_test(part_of_the_bytes),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(interrupted),
        cmocka_unit_test(last_of_all),
        cmocka_unit_test(broken_table),
        cmocka_unit_test(defect_swallowed),
    };

    signal(SIGALRM, hangs);
    if (access("/dev/shm", W_OK) == 0)
        setenv("TMPDIR", "/dev/shm", 1);
    for (int i = FIRST_WAY; i <= WAY_STAGED_HOMES; i += WAY_STAGED_HOMES) {
        way = &ways[i];
        print_message("%s:\n", way->name);
        failed += cmocka_run_group_tests(tests, NULL, NULL);
    }
    return failed;
}
