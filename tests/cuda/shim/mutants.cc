/* SPDX-License-Identifier: Apache-2.0
 *
 * Every planted fault is found: by a wrong result in one of the greedy orders at least, by a
 * message of the shim, or by a sanitizer. `mutants` runs them all; `mutants NAME` one of them,
 * which is how the sanitizers' reports are looked at: they end a program.
 */
#include "tests/cuda/shim/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/shim/samples.h"

enum { BLOCKS = 2, N = BLOCKS * REDUCE_THREADS, SIDE = 2 * TILE, TILES = 4 };

alignas(16) static float x[SIDE * SIDE + 4], y[SIDE * SIDE], expected[SIDE * SIDE];

/* ---- one launch of each sample into y ---- */

template <fault F> static void reduce(void)
{
    TR_LAUNCH((sample_reduce<F>), BLOCKS, REDUCE_THREADS, 0, NULL, y, x);
}

template <fault F> static void transpose(void)
{
    TR_LAUNCH((sample_transpose<F>), dim3(2, 2), dim3(TILE, 4), TILE * (TILE + 1) * 4, NULL, y, x,
              SIDE);
}

template <fault F> static void scan(void)
{
    int threads = F == SMALL_BLOCK ? 16 : F == ABSENT_LANE || F == LANE_AT_BARRIER ? 32 : 128;

    TR_LAUNCH((sample_scan<F>), 1, threads, 0, NULL, y, x);
}

template <fault F> static void swap(void)
{
    TR_LAUNCH((sample_swap<F>), 1, 64, 0, NULL, (int *)y, (const int *)x);
}

template <fault F> static void stream(void)
{
    TR_LAUNCH((sample_stream<F>), 1, STREAM_THREADS, 0, NULL, y, x, TILES);
}

/* ---- what becomes of each mutant ---- */

enum { WRONG, SAID, OUT_OF_BOUNDS, WRONG_ONLY }; // how it is caught

struct mutant {
    const char *name;
    void (*run)(void), (*clean)(void);
    int how;
    const char *message; // a part of it; of a race, of the line that ThreadSanitizer names
};

/* clang-format off */
#define MUTANT(sample, fault, how, message)                                                        \
    {#sample " " #fault, sample<fault>, sample<NONE>, how, message}
/* clang-format on */

static const struct mutant mutants[] = {
    /* A race: a wrong result in a greedy order, or ThreadSanitizer's report. */
    MUTANT(reduce, NO_FIRST_SYNC, WRONG, "s[t] += s[t + width];"),
    MUTANT(reduce, NO_LOOP_SYNC, WRONG, "s[t] += s[t + width];"),
    MUTANT(reduce, NO_LAST_SYNC, WRONG, "round] = s[0];"),
    MUTANT(reduce, RACING_BLOCKS, WRONG, "round] = s[0];"),
    MUTANT(transpose, NO_FIRST_SYNC, WRONG, "= tile[(int)threadIdx.x *"),
    MUTANT(scan, NO_FIRST_SYNC, WRONG, "v += sums[i];"),
    MUTANT(swap, NO_WARP_SYNC, WRONG, "= s[t ^ 1];"),
    MUTANT(stream, NO_FIRST_SYNC, WRONG, "= tile[i % 2][other];"),
    MUTANT(stream, NO_LAST_SYNC, WRONG, "= tile[i % 2][other];"),
    /* No race, but poison or zeros. */
    MUTANT(stream, SHALLOW_WAIT, WRONG_ONLY, NULL),
    MUTANT(stream, NO_COMMIT, WRONG_ONLY, NULL),
    MUTANT(reduce, SHORT_FILL, WRONG_ONLY, NULL),
    /* The shim says what is wrong. */
    MUTANT(stream, NO_WAIT, WRONG_ONLY, NULL),
    MUTANT(stream, NO_FINAL_WAIT, SAID, "has ended without waiting for this copy"),
    MUTANT(stream, ODD_SOURCE, SAID, "the source is not 16-byte aligned"),
    MUTANT(reduce, EARLY_EXIT, SAID, "divergent barrier: thread ("),
    MUTANT(reduce, TWO_BARRIERS, SAID, "waits in __syncthreads at"),
    MUTANT(scan, LANE_AT_BARRIER, SAID, "for lane 5, which waits in __syncthreads at"),
    MUTANT(scan, ABSENT_LANE, SAID, "for lane 5, which has ended"),
    MUTANT(scan, FOREIGN_LANE, SAID, "is lane 31, which its mask 0x7fffffff does not name"),
    MUTANT(scan, READ_OUTSIDE, SAID, "lane 3 reads lane 20, which mask 0x0000ffff does not name"),
    MUTANT(scan, SMALL_BLOCK, SAID, "names lanes that the block has not"),
    /* Guards; under AddressSanitizer the access itself. */
    MUTANT(reduce, OVERRUN, OUT_OF_BOUNDS, "shared memory s of 512 bytes: written 0 bytes past"),
    MUTANT(reduce, UNDERRUN, OUT_OF_BOUNDS, "shared memory s of 512 bytes: written 4 bytes"),
    MUTANT(transpose, OVERRUN, OUT_OF_BOUNDS,
           "shared memory tile of 4224 bytes: written 0 bytes past"),
};

static void fill(void)
{
    for (int i = 0; i < SIDE * SIDE + 4; i++)
        x[i] = test_value((uint32_t)i) + 20;
}

/* A failure costs its fibers, which are dear under ThreadSanitizer: one order is enough there. */
enum { ORDERS = TR_SHIM_TSAN ? 1 : 4 };

/* The orders in which the mutant's result differs from the clean kernel's, or that end in a
 * message: bit i for test_orders[i]. The clean kernel must give one result in all. */
static unsigned orders_caught(const struct mutant *m, char *message, size_t room)
{
    unsigned caught = 0;

    message[0] = 0;
    for (int i = 0; i < ORDERS; i++) {
        assert_int_equal(tr_shim_set_order(test_orders[i]), 0);
        memset(y, 0, sizeof y);
        m->clean();
        assert_string_equal(launch_error, "");
        if (i)
            assert_memory_equal(y, expected, sizeof y);
        memcpy(expected, y, sizeof y);
        memset(y, 0, sizeof y);
        m->run();
        if (launch_error[0])
            snprintf(message, room, "%s", launch_error);
        if (launch_error[0] || memcmp(y, expected, sizeof y))
            caught |= 1u << i;
    }
    return caught;
}

/* What this program, given the mutant's name, prints; *died: it did not return 0. */
static void run_alone(const char *program, const char *name, char *text, size_t room, bool *died)
{
    char command[512];

    snprintf(command, sizeof command, "TR_SHIM_ORDER=ascending '%s' '%s' 2>&1", program, name);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    text[fread(text, 1, room - 1, f)] = 0;
    *died = pclose(f) != 0;
}

static const char *program_path;

/* Is one of the lines of samples.h that the report names the one with this text? The path is the
 * compiler's: the test runs in the build folder. */
static bool names_line(const char *report, const char *text)
{
    const char *file = sample_file();
    char line[256];
    FILE *f = fopen(file, "r");
    bool found = false;

    assert_non_null(f);
    for (int number = 1; !found && fgets(line, sizeof line, f); number++) {
        char place[64];
        snprintf(place, sizeof place, "/samples.h:%d ", number);
        found = strstr(line, text) && strstr(report, place);
    }
    fclose(f);
    return found;
}

static void check_report(const struct mutant *m, const char *report)
{
    static char text[1 << 16];
    bool died;

    run_alone(program_path, m->name, text, sizeof text, &died);
    if (!died || !strstr(text, report) || (m->how == WRONG && !names_line(text, m->message)))
        fail_msg("%s: %s, expected a report of a %s at %s: %s", m->name, died ? "died" : "returned",
                 report, m->message, text);
}

static void check_mutant(const struct mutant *m)
{
    char message[512];
    unsigned caught;

    if (TR_SHIM_TSAN && m->how == WRONG) {
        check_report(m, "data race");
        return;
    }
    if (TR_SHIM_ASAN && m->how == OUT_OF_BOUNDS) {
        check_report(m, "use-after-poison");
        return;
    }
    caught = orders_caught(m, message, sizeof message);
    print_message("%-24s caught in orders 0x%x: %s\n", m->name, caught, message);
    if (m->how == WRONG || m->how == WRONG_ONLY) {
        assert_true(caught & ((1u << GREEDY_ORDERS) - 1));
        assert_string_equal(message, "");
    } else if (caught != (1u << ORDERS) - 1 || !strstr(message, m->message)) {
        fail_msg("%s: '%s' is not in '%s'", m->name, m->message, message);
    }
}

static void test_mutants(void **state)
{
    (void)state;
    fill();
    for (const struct mutant &m : mutants)
        check_mutant(&m);
}

/* A run that failed leaves nothing behind: the next one is right. */
static void test_after_failure(void **state)
{
    (void)state;
    fill();
    assert_int_equal(tr_shim_set_order("ascending"), 0);
    for (int i = 0; i < 3; i++) {
        scan<ABSENT_LANE>();
        assert_string_not_equal(launch_error, "");
        scan<NONE>();
        assert_string_equal(launch_error, "");
        assert_true(y[1] == x[0] + x[1]);
    }
}

/* The message says block, place and thread. */
static void test_message(void **state)
{
    const char *begin = "block (1,0,0): divergent barrier: thread (77,0,0) has ended while 50 "
                        "threads wait in __syncthreads at ";
    const char *at;

    (void)state;
    assert_int_equal(tr_shim_set_order("descending"), 0);
    reduce<EARLY_EXIT>();
    assert_int_equal(strncmp(launch_error, begin, strlen(begin)), 0);
    at = strstr(launch_error, "samples.h:");
    assert_true(at && atoi(at + strlen("samples.h:")) > 0);
}

template <int BYTES> static __global__ void much_static(void)
{
    TR_SHARED(char, s, [BYTES]);
    TR_SHARED_DYNAMIC(char, more);
    s[0] = more[0] = 1;
}

/* A block has 48 KiB of static shared memory and 227 KiB in all, on the widest GPU. */
static void test_limits(void **state)
{
    (void)state;
    TR_LAUNCH(much_static<48 << 10>, 1, 1, 179 << 10, NULL);
    assert_string_equal(launch_error, "");
    TR_LAUNCH(much_static<(48 << 10) + 1>, 1, 1, 1, NULL);
    assert_non_null(strstr(launch_error, "a block has too many"));
    TR_LAUNCH(much_static<48 << 10>, 1, 1, (179 << 10) + 1, NULL);
    assert_non_null(strstr(launch_error, "a block has too many"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutants),
        cmocka_unit_test(test_after_failure),
        cmocka_unit_test(test_message),
        cmocka_unit_test(test_limits),
    };

    program_path = argv[0];
    fill();
    for (const struct mutant &m : mutants)
        if (argc > 1 && !strcmp(argv[1], m.name))
            return m.run(), 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
