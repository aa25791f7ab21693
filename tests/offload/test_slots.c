/* SPDX-License-Identifier: Apache-2.0
 *
 * The state machine of slots: every edge that is drawn can be walked, every other one is caught by
 * its assertion (tried in a child process, which must abort).
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "offload/slots.h"
#include "tests/offload/harness.h"

static struct tr_slots slots;

static void open_slots(void)
{
    static char memory[4 * 4096];
    struct tr_slot_pool pools[] = {{memory, 4096, 2}, {memory + 8192, 8192, 1}};

    assert_ok(tr_slots_open(&slots, pools, 2, 5));
}

/* Slot 0, holding span 3, in the state asked for. */
static void make_state(enum tr_slot_state state)
{
    open_slots();
    if (state == TR_SLOT_FREE)
        return;
    tr_slot_load(&slots, 0, 3);
    if (state == TR_SLOT_ERROR)
        tr_slot_fail(&slots, 0);
    if (state == TR_SLOT_READING || state == TR_SLOT_ERROR)
        return;
    tr_slot_loaded(&slots, 0);
    if (state == TR_SLOT_READY)
        return;
    tr_slot_pin(&slots, 0, 1);
    if (state == TR_SLOT_IN_USE)
        return;
    tr_slot_unpin(&slots, 0, 1);
    if (state == TR_SLOT_WRITING)
        tr_slot_write(&slots, 0);
}

enum edge {
    LOAD,
    LOADED,
    PIN_READ,
    PIN_CHANGE,
    UNPIN,
    UNPIN_CHANGED,
    WRITE,
    WRITTEN,
    FAIL,
    DROP,
    EDGES
};

static void walk(enum edge e)
{
    switch (e) {
    case LOAD:
        tr_slot_load(&slots, 0, 4);
        break;
    case LOADED:
        tr_slot_loaded(&slots, 0);
        break;
    case PIN_READ:
    case PIN_CHANGE:
        tr_slot_pin(&slots, 0, e == PIN_CHANGE);
        break;
    case UNPIN:
    case UNPIN_CHANGED:
        tr_slot_unpin(&slots, 0, e == UNPIN_CHANGED);
        break;
    case WRITE:
        tr_slot_write(&slots, 0);
        break;
    case WRITTEN:
        tr_slot_written(&slots, 0);
        break;
    case DROP:
        tr_slot_drop(&slots, 0);
        break;
    default:
        tr_slot_fail(&slots, 0);
    }
}

static int walk_survives(enum tr_slot_state from, enum edge e)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        if (!freopen("/dev/null", "w", stderr))
            _exit(2);
        make_state(from);
        walk(e);
        tr_slots_check(&slots);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void every_edge(void **state)
{
    static const char drawn[TR_SLOT_ERROR + 1][EDGES] = {
        [TR_SLOT_FREE] = {[LOAD] = 1},
        [TR_SLOT_READING] = {[LOADED] = 1, [FAIL] = 1},
        [TR_SLOT_READY] = {[LOAD] = 1, [PIN_READ] = 1, [PIN_CHANGE] = 1, [DROP] = 1},
        [TR_SLOT_IN_USE] = {[PIN_READ] = 1, [UNPIN_CHANGED] = 1},
        [TR_SLOT_DIRTY] = {[PIN_READ] = 1, [WRITE] = 1},
        [TR_SLOT_WRITING] = {[PIN_READ] = 1, [WRITTEN] = 1, [FAIL] = 1},
    };

    (void)state;
#ifdef NDEBUG
    print_message("skipped: built without assertions\n");
    skip();
#endif
    for (int s = 0; s <= TR_SLOT_ERROR; s++)
        for (int e = 0; e < EDGES; e++)
            if (walk_survives((enum tr_slot_state)s, (enum edge)e) != drawn[s][e])
                fail_msg("state %d, edge %d: expected %d", s, e, drawn[s][e]);
}

/* A slot that a visit still uses is not loaded over, whatever its state says. */
static void pinned_is_kept(void **state)
{
    (void)state;
    make_state(TR_SLOT_READY);
    assert_true(tr_slot_may_load(&slots, 0));
    tr_slot_pin(&slots, 0, 0);
    assert_false(tr_slot_may_load(&slots, 0));
    tr_slot_pin(&slots, 0, 1); /* forward, then backward of the last block */
    tr_slot_unpin(&slots, 0, 0);
    tr_slot_unpin(&slots, 0, 1);
    assert_false(tr_slot_may_load(&slots, 0)); /* dirty */
    tr_slot_write(&slots, 0);
    assert_false(tr_slot_may_pin(&slots, 0, 1));
    assert_true(tr_slot_may_pin(&slots, 0, 0));
    tr_slot_written(&slots, 0);
    assert_true(tr_slot_may_load(&slots, 0));
    tr_slot_load(&slots, 0, 1);
    assert_int_equal(slots.of_span[3], TR_NONE);
    tr_slots_close(&slots);
}

/* Scratch may be changed by a visit before the one before has passed; only the last one's word on
 * it counts, and what need not be saved is ready at once. */
static void scratch_is_shared(void **state)
{
    (void)state;
    make_state(TR_SLOT_READY);
    assert_true(tr_slot_may_pin(&slots, 0, 1));
    tr_slot_pin(&slots, 0, 1);
    assert_false(tr_slot_may_pin(&slots, 0, 1));
    slots.first_scratch = slots.slot[0].span;
    assert_true(tr_slot_may_pin(&slots, 0, 1));
    tr_slot_pin(&slots, 0, 1);
    tr_slot_unpin(&slots, 0, TR_LEFT_READY);
    assert_int_equal(slots.slot[0].state, TR_SLOT_IN_USE);
    tr_slot_unpin(&slots, 0, TR_LEFT_READY);
    assert_int_equal(slots.slot[0].state, TR_SLOT_READY);
    tr_slot_pin(&slots, 0, 1);
    tr_slot_pin(&slots, 0, 0);
    tr_slot_unpin(&slots, 0, TR_LEFT_DIRTY);
    assert_int_equal(slots.slot[0].state, TR_SLOT_DIRTY);
    assert_false(tr_slot_may_pin(&slots, 0, 1)); /* being saved */
    tr_slots_close(&slots);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_edge),
        cmocka_unit_test(pinned_is_kept),
        cmocka_unit_test(scratch_is_shared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
