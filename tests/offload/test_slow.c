/* SPDX-License-Identifier: Apache-2.0
 *
 * A drive that becomes slow under a run: the engine says so, once, with the folder's name and both
 * rates, and not before. The steps are real, on a drive whose bytes take as long as the test says:
 * its clock is what the queue asks. (The judgement itself: test_stripes.c.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "offload/engine.h"
#include "tests/offload/player.h"

#define USUAL 250000u /* ns a KiB: 4.1 MB a second */

static _Atomic uint64_t clock_ns;

int __real_tr_queue_open(struct tr_queue **q, struct tr_io *io, uint32_t depth,
                         const struct tr_stripes *stripes);
int __wrap_tr_queue_open(struct tr_queue **q, struct tr_io *io, uint32_t depth,
                         const struct tr_stripes *stripes);

static uint64_t fake_clock(void)
{
    return clock_ns;
}

int __wrap_tr_queue_open(struct tr_queue **q, struct tr_io *io, uint32_t depth,
                         const struct tr_stripes *stripes)
{
    int r = __real_tr_queue_open(q, io, depth, stripes);

    if (r == 0)
        tr_queue_set_clock(*q, fake_clock);
    return r;
}

/* Steps at this pace; how often something was said, and the last of it. */
static int steps(struct player *p, int n, char *text, size_t room)
{
    int told = 0;

    for (int i = 0; i < n; i++) {
        assert_ok(player_step(p, 0, 0));
        assert_ok(player_commit(p));
        told += tr_offload_remark(p->o, text, room);
    }
    return told;
}

static void becomes_slow(void **state)
{
    struct faulty f = {.seed = 1, .clock = &clock_ns, .ns_per_kib = USUAL};
    struct player_params params = {
        .shape = {.n_spans = 6, .n_pools = 1, .max_pieces = 3, .max_bytes = 16 << 20, .seed = 3},
        .slots = {4},
        .durability = TR_DURABLE_STEP,
        .prefetch = 4,
        .seed = 5,
        .faulty = &f};
    struct player p;
    char text[512] = "", *at;
    double now, before;
    int told = 0, tries = 0;

    (void)state;
    player_open(&p, &params);
    assert_int_equal(steps(&p, 5, text, sizeof(text)), 0);
    f.ns_per_kib = USUAL * 10;
    while (told == 0 && ++tries < 12)
        told = steps(&p, 1, text, sizeof(text));
    assert_int_equal(told, 1);
    assert_non_null(strstr(text, p.folder));
    at = strstr(text, ": the drive has become slow: ");
    assert_non_null(at);
    assert_int_equal(sscanf(strstr(at, " at "), " at %lf MB/s, %lf before", &now, &before), 2);
    assert_true(now < before);
    player_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(becomes_slow)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
