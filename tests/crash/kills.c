/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 2 with the program itself: `tailrace train` is killed (SIGKILL) again and again, and
 * continued by the same command or by `train --resume`, run after run, with every optimizer that
 * keeps something and with none. A commit that was durable when the kill came is never lost, what
 * is taken up again needs no falling back, each model has the bytes of a run that nothing happened
 * to, and metrics.jsonl has one line of each step.
 *
 * Every other kill comes at a moment that a fixed seed has drawn; the others where the program is
 * in the phase that has been hit least so far (observer.h). That the tests see what they are for is
 * shown by two defects which nobody can see who does not kill.
 *
 * A kill is the crash of a process; what a loss of power adds is played in
 * tests/offload/test_crash.c. By hand: test_kills --rounds=N.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "offload/store.h"
#include "src/base/file.h"
#include "src/base/philox.h"
#include "tests/crash/observer.h"
#include "tests/crash/program.h"
#include "tests/train/common.h"

#define SEED 20261128u

static const struct job jobs[] = {
    {"lomo, clipped", {"--optimizer", "lomo"}, 1},
    {"adamw, 8 bits, clipped, threads",
     {"--optimizer", "adamw", "--state-dtype", "8bit", "--io", "threads"},
     1},
    {"adalomo", {"--optimizer", "adalomo"}, 0},
    {"adam-mini, clipped", {"--optimizer", "adam-mini"}, 1},
    {"sgd, momentum, threads", {"--optimizer", "sgd", "--momentum", "0.9", "--io", "threads"}, 0},
};
#define JOBS (sizeof(jobs) / sizeof(jobs[0]))

static const char *const phase_names[PHASES] = {"open",     "import", "forward", "norm",
                                                "backward", "flush",  "export"};

/* A job done without interruption. */
struct whole {
    uint64_t hash, device_memory;
    uint32_t n_units, all_events, events[PHASES];
    uint64_t unit_end[OBSERVED_UNITS];
};

static struct whole wholes[JOBS];
static struct observed *seen;
static char run[4352], store[4400];
static int rounds = 20;

static uint32_t draw(uint32_t round, uint32_t below)
{
    static uint32_t n;
    struct tr_philox c = {{round, n++, 0, 0}};

    return below ? tr_philox4x32(c, SEED, 1).v[0] % below : 0;
}

static void map_seen(void)
{
    const char *path = scratch_path("observed");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);

    assert_int_equal(ftruncate(fd, sizeof(*seen)), 0);
    seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(seen != MAP_FAILED);
    close(fd);
    setenv("TR_OBSERVED", path, 1);
}

/* A life of the program, seen by the observer, which kills nobody unless it is told to. */
static void look_at(size_t j)
{
    memset(seen, 0, sizeof(*seen));
    seen->clips = jobs[j].clips;
    seen->die_in = PHASES;
    seen->n_units = wholes[j].n_units;
    memcpy(seen->unit_end, wholes[j].unit_end, sizeof(seen->unit_end));
}

static pid_t start(size_t j, int resume)
{
    const struct place place = {.run = run, .device_memory = wholes[j].device_memory};
    pid_t pid;

    setenv("LD_PRELOAD", OBSERVER, 1);
    pid = program_start(&jobs[j], &place, resume);
    unsetenv("LD_PRELOAD");
    return pid;
}

/* Where the units end on disk, from the store of a run that is done. */
static void read_units(struct whole *w)
{
    const struct tr_layout *l;
    struct tr_store *s;

    assert_int_equal(tr_store_open(&s, store, TR_STORE_READ), 0);
    l = tr_store_layout(s);
    for (uint32_t i = 0; i < l->n_spans; i++) {
        const char *record = l->segments[l->spans[i].segment].record;
        int more = i && !strcmp(record, l->segments[l->spans[i - 1].segment].record);

        w->n_units += !more;
        assert_true(w->n_units <= OBSERVED_UNITS);
        w->unit_end[w->n_units - 1] = l->spans[i].offset + l->spans[i].bytes;
    }
    tr_store_close(s);
}

/* Once without the observer, once with it: it changes nothing, and it sees all phases. */
static const struct whole *whole_of(size_t j)
{
    struct whole *w = &wholes[j];
    const struct place place = {.run = run};
    struct place with_memory = place;

    if (w->hash)
        return w;
    w->device_memory = with_memory.device_memory = program_least_memory(&jobs[j]);
    if (program_run(&jobs[j], &with_memory, 0) != 0)
        fail_msg("%s: %s", jobs[j].name, program_said());
    w->hash = program_model_hash(run);
    read_units(w);
    assert_int_equal(tr_remove_tree(run), 0);
    look_at(j);
    assert_int_equal(program_wait(start(j, 0)), 0);
    assert_true(program_model_hash(run) == w->hash);
    assert_int_equal(seen->durable, JOB_STEPS + 1);
    assert_int_equal(seen->begun, JOB_STEPS + 1);
    for (int p = PHASE_IMPORT; p < PHASES; p++) {
        int every_step = p >= PHASE_FORWARD && p <= PHASE_FLUSH;

        w->events[p] = seen->events[p];
        if (p != PHASE_NORM || jobs[j].clips)
            if (seen->entered[p] < (uint32_t)(every_step ? JOB_STEPS : 1))
                fail_msg("%s: entered %u times: %s", phase_names[p], seen->entered[p],
                         program_said());
    }
    w->all_events = seen->all_events;
    assert_int_equal(tr_remove_tree(run), 0);
    return w;
}

struct campaign {
    size_t job;
    int64_t stands_at; /* -1: nothing is committed */
    int lives;         /* of this run */
    int kills, runs, under_way, hits[PHASES];
};

/* The phase that has been hit least among those that this life will come to. */
static enum phase rarest(const struct campaign *c)
{
    int best = -1;

    for (int p = PHASE_IMPORT; p < PHASES; p++) {
        if ((p == PHASE_IMPORT && c->stands_at >= 0) || (p == PHASE_NORM && !jobs[c->job].clips))
            continue;
        if (best < 0 || c->hits[p] < c->hits[best])
            best = p;
    }
    return (enum phase)best;
}

/* Every other life ends in a phase, by the observer's hand. */
static void aim(const struct campaign *c, const struct whole *w)
{
    enum phase p = rarest(c);
    uint32_t of_step = p == PHASE_IMPORT || p == PHASE_EXPORT ? 1 : JOB_STEPS;

    seen->die_in = p;
    seen->die_after = draw((uint32_t)c->kills, w->events[p] / of_step);
    seen->die_late = (int)draw((uint32_t)c->kills, 2);
}

static int has_ended(pid_t pid)
{
    siginfo_t info = {0};

    assert_int_equal(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT), 0);
    return info.si_pid == pid;
}

static void wait_for_events(uint32_t n, pid_t pid)
{
    while (seen->all_events < n && !has_ended(pid))
        usleep(200);
}

/* The others end a moment after a number of events, wherever that is. */
static void strike(const struct campaign *c, const struct whole *w, pid_t pid)
{
    uint32_t n = draw((uint32_t)c->kills, w->all_events / 2), us = draw((uint32_t)c->kills, 3000);

    wait_for_events(n, pid);
    usleep(us);
    kill(pid, SIGKILL);
}

/* The lines of steps that the store holds, and of no others; that of the last may be still to come,
 * which is when the run is taken up again. */
static void check_lines(int64_t stands_at)
{
    int lines = program_metrics_lines(run);

    if (lines < stands_at - 1 || lines > (stands_at < 0 ? 0 : stands_at))
        fail_msg("%d lines, the store stands at %lld", lines, (long long)stands_at);
}

static void check_killed(struct campaign *c)
{
    int64_t now = program_stands_at(store), before = c->stands_at;

    if (now < before + seen->durable || now > before + seen->begun)
        fail_msg("stood at %lld, %u commits were durable, %u begun; stands at %lld",
                 (long long)before, seen->durable, seen->begun, (long long)now);
    assert_true(seen->begun - seen->durable <= 1);
    check_lines(now);
    c->under_way += seen->begun > seen->durable;
    c->stands_at = now;
    c->kills++;
    c->hits[seen->phase]++;
}

static void check_done(struct campaign *c, const struct whole *w)
{
    char *text = NULL;

    if (program_model_hash(run) != w->hash)
        fail_msg("%s: other bytes after %d lives", jobs[c->job].name, c->lives);
    assert_int_equal(program_metrics_lines(run), JOB_STEPS);
    assert_int_equal(program_leavings(run), 0);
    if (tr_verify_run(run, NULL, &text) != 0)
        fail_msg("%s", text);
    tr_free_text(text);
    assert_int_equal(tr_remove_tree(run), 0);
    c->job = (c->job + 1) % JOBS;
    c->stands_at = -1;
    c->lives = 0;
    c->runs++;
}

static void live(struct campaign *c, int spare)
{
    const struct whole *w = whole_of(c->job);
    int first = c->stands_at < 0 && !c->hits[PHASE_IMPORT]; /* or it might never be */
    int aimed = c->kills % 2 || first, code;
    pid_t pid;

    look_at(c->job);
    if (!spare && aimed)
        aim(c, w);
    pid = start(c->job, c->stands_at >= 0 && c->lives % 2);
    c->lives++;
    if (!spare && !aimed)
        strike(c, w, pid);
    code = program_wait(pid);
    if ((code != 0 && code != -SIGKILL) || strstr(program_said(), "damaged"))
        fail_msg("%s, life %d: exit code %d: %s", jobs[c->job].name, c->lives, code,
                 program_said());
    if (code == 0)
        check_done(c, w);
    else
        check_killed(c);
}

static void test_kills(void **state)
{
    struct campaign c = {.stands_at = -1};

    (void)state;
    while (c.kills < rounds || (c.hits[rarest(&c)] == 0 && c.kills < rounds + 20))
        live(&c, 0);
    if (c.lives)
        live(&c, 1);
    print_message("%d kills in %d runs; %d while a commit was under way; killed in", c.kills,
                  c.runs, c.under_way);
    for (int p = 0; p < PHASES; p++)
        print_message(" %s %d%s", phase_names[p], c.hits[p], p + 1 < PHASES ? "," : "\n");
    for (int p = PHASE_IMPORT; p < PHASES; p++)
        assert_true(c.hits[p] > 0);
}

/* A store of two folders, killed at moments that are drawn. */
static void test_folders(void **state)
{
    static const struct job job = {"two folders", {"--optimizer", "adamw"}, 1, 0, 2};
    struct place place = {.run = run};
    int64_t stood = -1, stands;
    uint64_t hash;
    int code = -SIGKILL;
    uint32_t all;

    (void)state;
    place.device_memory = program_least_memory(&job);
    memset(seen, 0, sizeof(*seen));
    seen->die_in = PHASES;
    setenv("LD_PRELOAD", OBSERVER, 1);
    assert_int_equal(program_run(&job, &place, 0), 0);
    hash = program_model_hash(run);
    all = seen->all_events;
    assert_int_equal(tr_remove_tree(run), 0);
    for (uint32_t life = 0; code; life++, stood = stands) {
        pid_t pid;

        memset(seen, 0, sizeof(*seen));
        seen->die_in = PHASES;
        pid = program_start(&job, &place, 0);
        if (life < 8) {
            wait_for_events(draw(life, life % 4 ? all / 4 : all / 16), pid);
            kill(pid, SIGKILL);
        }
        code = program_wait(pid);
        stands = program_stands_at(program_store(&job, run));
        if ((code && code != -SIGKILL) || stands < stood)
            fail_msg("life %u: exit code %d, stands at %lld: %s", life, code, (long long)stands,
                     program_said());
        check_lines(stands);
    }
    unsetenv("LD_PRELOAD");
    assert_true(program_model_hash(run) == hash);
    assert_int_equal(program_metrics_lines(run), JOB_STEPS);
    assert_int_equal(tr_remove_tree(run), 0);
}

/* The step that the last word names, if any, is the one that the run stands at. */
static int64_t check_last_word(void)
{
    static const char says[] = "the same command continues after step ";
    const char *at = strstr(program_said(), says);
    int64_t step = program_stands_at(store);

    if (at && strtoll(at + strlen(says), NULL, 10) != step)
        fail_msg("at step %lld: %s", (long long)step, program_said());
    return step;
}

/* Once: the step is finished or given up, all that counts is committed and told. Twice: at once,
 * but for hang-ups, of which there are two where both the system and a shell tell of them. */
static void interrupt(uint32_t after, int first, int second)
{
    int gentle = !second || second == SIGHUP;
    const struct whole *w = whole_of(0);
    int64_t step;
    pid_t pid;
    int code;

    look_at(0);
    pid = start(0, 0);
    wait_for_events(after, pid);
    kill(pid, first);
    for (int i = 0; second && i < 4; i++) {
        usleep(second == SIGHUP ? 1000 : 0); /* two that are pending together would be one */
        kill(pid, second);
    }
    code = program_wait(pid);
    if (code != 130 && code != 0)
        fail_msg("interrupted: exit code %d: %s", code, program_said());
    if (gentle && code && !strstr(program_said(), "tailrace: interrupted"))
        fail_msg("interrupted, and that is not the last word: %s", program_said());
    step = check_last_word();
    if (gentle && step >= 0)
        assert_int_equal(program_metrics_lines(run), step);
    look_at(0);
    assert_int_equal(program_wait(start(0, 0)), 0);
    assert_true(program_model_hash(run) == w->hash);
    assert_int_equal(program_leavings(run), 0);
    assert_int_equal(tr_remove_tree(run), 0);
}

static void test_interrupted(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 4; n++) {
        interrupt(n * whole_of(0)->all_events / 5, SIGINT, 0);
        interrupt(n * whole_of(0)->all_events / 5, SIGINT, SIGTERM);
        interrupt(n * whole_of(0)->all_events / 5, SIGHUP, SIGHUP);
    }
}

/* Ctrl-C reaches `| tee log', too, which is gone first: the run still ends in good order. */
static void test_interrupted_unread(void **state)
{
    int ends[2];
    pid_t pid;

    (void)state;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    whole_of(0);
    look_at(0);
    program_speak_to(ends[1]);
    pid = start(0, 0);
    program_speak_to(-1);
    close(ends[1]);
    wait_for_events(whole_of(0)->all_events / 2, pid);
    close(ends[0]);
    kill(pid, SIGINT);
    assert_int_equal(program_wait(pid), 130);
    assert_true(program_stands_at(store) > 0);
    look_at(0);
    assert_int_equal(program_wait(start(0, 0)), 0);
    assert_true(program_model_hash(run) == whole_of(0)->hash);
    assert_int_equal(tr_remove_tree(run), 0);
}

/* Twice, the second time while it opens. */
static void test_interrupted_again(void **state)
{
    pid_t pid;

    (void)state;
    look_at(0);
    pid = start(0, 0);
    wait_for_events(whole_of(0)->all_events / 2, pid);
    kill(pid, SIGINT);
    assert_int_equal(program_wait(pid), 130);
    assert_true(check_last_word() > 0);
    for (int i = 0; i < 5; i++) {
        look_at(0);
        pid = start(0, 0);
        wait_for_events(1, pid);
        kill(pid, SIGINT);
        assert_true(program_wait(pid) >= 0);
        assert_true(check_last_word() > 0);
    }
    look_at(0);
    assert_int_equal(program_wait(start(0, 0)), 0);
    assert_int_equal(tr_remove_tree(run), 0);
}

/* Killed in this phase after n events and taken up again: does a checksum tell, or the bytes? */
static int is_caught(size_t j, enum defect defect, enum phase phase, uint32_t n)
{
    int code, caught;

    look_at(j);
    seen->defect = defect;
    seen->die_in = phase;
    seen->die_after = n;
    seen->die_late = 1;
    assert_int_equal(program_wait(start(j, 0)), -SIGKILL);
    look_at(j);
    seen->defect = defect;
    code = program_wait(start(j, 1));
    caught = strstr(program_said(), "damaged") != NULL;
    if (code && !caught)
        fail_msg("no sign of the defect: exit code %d: %s", code, program_said());
    if (!caught)
        caught = program_model_hash(run) != wholes[j].hash;
    assert_int_equal(tr_remove_tree(run), 0);
    return caught;
}

static void expect_caught(enum defect defect, enum phase phase)
{
    size_t j = 1;
    const struct whole *w;
    uint32_t events; /* a defect may have fewer of them */
    int caught = 0;

    setenv("TAILRACE_IO", "threads", 1); /* the defects are played where these read and write */
    tr_remove_tree(run);
    w = whole_of(j);
    look_at(j);
    seen->defect = defect;
    assert_int_equal(program_wait(start(j, 0)), 0);
    assert_true(program_model_hash(run) == w->hash); /* nobody kills, nobody sees it */
    events = seen->events[phase] < w->events[phase] ? seen->events[phase] : w->events[phase];
    assert_int_equal(tr_remove_tree(run), 0);
    for (uint32_t n = 1; n <= 5; n++)
        caught += is_caught(j, defect, phase, n * events / JOB_STEPS / 6);
    print_message("caught by %d of 5 kills\n", caught);
    assert_true(caught > 0);
    for (uint32_t n = 1; n <= 2; n++)
        assert_false(is_caught(j, DEFECT_NONE, phase, n * events / JOB_STEPS / 3));
    unsetenv("TAILRACE_IO");
}

static void defect_one_generation(void **state)
{
    (void)state;
    expect_caught(DEFECT_ONE_GENERATION, PHASE_BACKWARD);
}

static void defect_early_record(void **state)
{
    (void)state;
    expect_caught(DEFECT_EARLY_RECORD, PHASE_FLUSH);
}

static int setup(void **state)
{
    (void)state;
#ifdef __SANITIZE_ADDRESS__ /* whose library wants to come first, and is in the observer, too */
    setenv("ASAN_OPTIONS", "verify_asan_link_order=0:detect_leaks=0", 1);
#endif
    program_make_inputs(4);
    map_seen();
    snprintf(run, sizeof(run), "%s", scratch_path("run"));
    snprintf(store, sizeof(store), "%s/store", run);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kills),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_interrupted_unread),
        cmocka_unit_test(test_interrupted_again),
        cmocka_unit_test(defect_one_generation),
        cmocka_unit_test(defect_early_record),
    };

    for (int i = 1; i < argc; i++)
        if (sscanf(argv[i], "--rounds=%d", &rounds) != 1)
            return 2;
    return cmocka_run_group_tests_name("invariant 2, the program killed", tests, setup, NULL);
}
