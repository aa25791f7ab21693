/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 1, at random: whatever a seed draws of budgets, depths, engines, threads,
 * micro-batches, activations, durabilities, and of stops and kills in between (tests/train/draw.c
 * has the table), the exported model has the bytes of the run with everything resident.
 *
 *   test_random_bits [--seed=S] [--draws=N | --long] [--draw=K]
 *
 * Draw K trains subject K mod n, so a few draws see every family and optimizer. A draw that fails
 * prints the words that repeat it alone; --long plays hundreds.
 *
 * That this would be seen, two mutants show: devices that are wrong, one only where the batch is
 * cut into micro-batches (a matrix is updated before its input gradient is made; with everything
 * resident nothing is wrong), one in what it says (the compute of a visit has passed before it has
 * begun, so that slots are loaded over a visit too early).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/err.h"
#include "tests/train/draw.h"

#define FEW         24
#define CUDA_FEW    6
#define MANY        300
#define MUTANT_SEED 2 /* the draws that must find the mutants are always the same */
#define MUTANT_MOST 24

static const struct subject cpu_subjects[] = {
    {"f32-sgd",
     {"llama", 64, 96, 4, 4, 2, 16, 4500, 512, ""}, /* two table slices */
     TR_TYPE_F32,
     TR_OPT_SGD,
     0.1,
     0,
     9,
     150},
    {"bf16-lomo",
     {"mistral", 64, 96, 5, 4, 2, 16, 300, 512, "\"sliding_window\": 40"},
     TR_TYPE_BF16,
     TR_OPT_LOMO,
     0.1,
     1,
     9,
     150},
    {"bf16-adamw-tied",
     {"llama-tied", 48, 80, 3, 4, 2, 12, 300, 512, ""},
     TR_TYPE_BF16,
     TR_OPT_ADAMW,
     1e-3,
     1,
     7,
     200},
    {"f16-lomo-qwen3",
     {"qwen3", 48, 80, 3, 4, 2, 24, 300, 512, ""},
     TR_TYPE_F16,
     TR_OPT_LOMO,
     0.1,
     1,
     9,
     120},
    {"bf16-lomo-unclipped",
     {"qwen2", 48, 80, 4, 4, 2, 12, 300, 512, ""},
     TR_TYPE_BF16,
     TR_OPT_LOMO,
     0.1,
     -1,
     11,
     130,
     .master = TR_MASTERS_SPLIT},
    {"f32-adamw",
     {"llama", 48, 80, 3, 4, 4, 12, 300, 512, ""},
     TR_TYPE_F32,
     TR_OPT_ADAMW,
     1e-3,
     -1,
     9,
     150},
    {"bf16-adalomo",
     {"llama", 48, 80, 3, 4, 2, 12, 4500, 512, ""}, /* sweeps over two slices */
     TR_TYPE_BF16,
     TR_OPT_ADALOMO,
     1e-2,
     -1,
     9,
     150},
    {"f32-adam-mini-frozen",
     {"qwen3", 48, 80, 3, 4, 2, 12, 300, 512, ""},
     TR_TYPE_F32,
     TR_OPT_ADAM_MINI,
     1e-3,
     1,
     9,
     150,
     "*embed*,*layers.0.*,*layers.1.self_attn*,*layers.1.input*,*layers.2.*up*"},
};

/* Small enough for the fake GPU, and more than one of its grains of 2048 tokens. */
static const struct subject cuda_subjects[] = {
    {"bf16-lomo",
     {"llama", 32, 48, 3, 2, 1, 16, 300, 512, ""},
     TR_TYPE_BF16,
     TR_OPT_LOMO,
     0.1,
     1,
     13,
     180},
    {"f32-adamw-tied",
     {"llama-tied", 32, 48, 2, 2, 1, 16, 200, 512, ""},
     TR_TYPE_F32,
     TR_OPT_ADAMW,
     1e-3,
     -1,
     13,
     180},
};

#define SUBJECTS 8 /* at most */

static const struct subject *subjects = cpu_subjects;
static uint32_t n_subjects = sizeof(cpu_subjects) / sizeof(cpu_subjects[0]);

static struct {
    uint64_t seed;
    uint32_t first, n;
} asked = {1, 0, FEW};

static struct draw references[SUBJECTS];
static uint64_t expected[SUBJECTS];

static void prepare(struct draw *d)
{
    size_t k = d->number % n_subjects;

    references[k].subject = &subjects[k];
    if (!expected[k]) {
        draw_make_inputs(&subjects[k]);
        expected[k] = draw_reference(&references[k]);
    }
    d->subject = &subjects[k];
    d->resident = references[k].resident;
    d->stored = references[k].stored;
    draw_all(d);
}

/* What was played says of its bytes; a run that fails says nothing of them, unless they were no
 * longer those that their checksum was made of. */
enum verdict { FAILED, DAMAGED, DIFFERS, AGREES };

static enum verdict play(const struct draw *d)
{
    uint64_t hash = draw_play(d);

    if (!hash)
        return strstr(tr_error_message(), ": damaged") ? DAMAGED : FAILED;
    return hash == expected[d->number % n_subjects] ? AGREES : DIFFERS;
}

static void test_draws(void **state)
{
    (void)state;
    print_message("seed %llu\n", (unsigned long long)asked.seed);
    for (uint32_t i = asked.first; i < asked.first + asked.n; i++) {
        struct draw d = {.seed = asked.seed, .number = i};
        enum verdict v;

        prepare(&d);
        print_message("%s\n", d.text);
        v = play(&d);
        if (v != AGREES)
            fail_msg("%s%s; again by\ntest_random_bits %s",
                     v == DIFFERS ? "other bits than with everything resident" : "failed: ",
                     v == DIFFERS ? "" : tr_error_message(), d.text);
    }
    print_message("%u parts loaded from drives and from homes\n", draw_mixed());
    if (on_cuda() && asked.n >= CUDA_FEW) /* the cpu's arena is host memory: there are no homes */
        assert_true(draw_mixed() > 0);
}

/* --- mutants -------------------------------------------------------------------------------- */

static const struct tr_device_ops *sound;
static struct tr_device_ops spoilt;
static struct tr_op held;    /* an input gradient that waits for the update of its matrix */
static enum tr_op_kind last; /* that came */
static enum { NOTHING, INPUT_GRAD, WEIGHT_GRAD } holding; /* and what was run after it */

static int is_update(const struct tr_op *op)
{
    return op->kind == TR_OP_SGD || op->kind == TR_OP_ADAMW;
}

/* A block's weight gradient that is added to that of an earlier micro-batch, so whole and followed
 * by its update if this one is the last: then the input gradient waits for it. The head adds grain
 * by grain, also where there is one micro-batch: its input gradients follow XENT_GRAD. */
static int update_first(struct tr_device *d, enum tr_stream s, const struct tr_op *op)
{
    enum tr_op_kind before = last;
    int waits = 1, r = 0;

    last = op->kind;
    if (op->kind == TR_OP_MATMUL_DX && holding == NOTHING && before != TR_OP_XENT_GRAD) {
        held = *op;
        holding = INPUT_GRAD;
        return 0;
    }
    if (holding == INPUT_GRAD && op->kind == TR_OP_MATMUL_DW && op->matmul.add) {
        holding = WEIGHT_GRAD;
        return sound->run(d, s, op);
    }
    if (holding == WEIGHT_GRAD && (op->kind == TR_OP_SUMSQ || op->kind == TR_OP_ROUND))
        return sound->run(d, s, op); /* of the gradient, before its update */
    if (holding == WEIGHT_GRAD && is_update(op) && op->update.w == held.matmul.w) {
        r = sound->run(d, s, op);
        waits = 0;
    }
    if (holding != NOTHING && r == 0)
        r = sound->run(d, s, &held);
    holding = NOTHING;
    return r == 0 && waits ? sound->run(d, s, op) : r;
}

static int call_early(struct tr_device *d, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    if (s != TR_STREAM_COMPUTE)
        return sound->call(d, s, fn, arg);
    fn(arg);
    return 0;
}

static void spoil_update(struct tr_device *d, int part)
{
    (void)part;
    sound = d->ops;
    spoilt = *sound;
    spoilt.run = update_first;
    holding = NOTHING;
    d->ops = &spoilt;
}

static void spoil_calls(struct tr_device *d, int part)
{
    (void)part;
    sound = d->ops;
    spoilt = *sound;
    spoilt.call = call_early;
    d->ops = &spoilt;
}

/* Seen where the bytes differ; or, as slots that are loaded over too early are a race, where what
 * is read back is not what was saved (invariant 8). On cuda tests/train/device_train.c has mutants
 * of its own. */
static void check_mutant(const char *name, enum verdict seen,
                         void (*spoil)(struct tr_device *d, int part))
{
    if (on_cuda())
        skip();
    for (uint32_t i = 0; i < MUTANT_MOST; i++) {
        struct draw d = {.seed = MUTANT_SEED, .number = i};
        enum verdict v;

        prepare(&d);
        d.spoil = spoil;
        v = play(&d);
        if (v == DIFFERS || v == seen) {
            print_message("%s: seen at draw %u%s\n", name, i, v == DAMAGED ? ", damaged" : "");
            return;
        }
        if (v != AGREES)
            fail_msg("%s: failed: %s; %s", name, tr_error_message(), d.text);
    }
    fail_msg("%s: unseen in %d draws", name, MUTANT_MOST);
}

static void test_update_first(void **state)
{
    (void)state;
    check_mutant("updates before input gradients of cut batches", DIFFERS, spoil_update);
    assert_true(draw_reference(&references[0]) ==
                expected[0]); /* its paths are those of the last */
    references[0].spoil = spoil_update;
    assert_int_equal(play(&references[0]), AGREES); /* one micro-batch */
    references[0].spoil = NULL;
}

static void test_calls_early(void **state)
{
    (void)state;
    check_mutant("visits that pass too early", DAMAGED, spoil_calls);
}

static int number(const char *arg, const char *name, uint64_t *value)
{
    size_t n = strlen(name);

    if (strncmp(arg, name, n))
        return 0;
    *value = strtoull(arg + n, NULL, 10);
    return 1;
}

static int parse(int argc, char **argv)
{
    uint64_t value;

    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--long"))
            asked.n = MANY;
        else if (number(argv[i], "--seed=", &value))
            asked.seed = value;
        else if (number(argv[i], "--draws=", &value))
            asked.n = (uint32_t)value;
        else if (number(argv[i], "--draw=", &value))
            asked.first = (uint32_t)value, asked.n = 1;
        else
            return -1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_draws),
        cmocka_unit_test(test_update_first),
        cmocka_unit_test(test_calls_early),
    };

    if (on_cuda()) {
        subjects = cuda_subjects;
        n_subjects = sizeof(cuda_subjects) / sizeof(cuda_subjects[0]);
    }
    if (parse(argc, argv) < 0) {
        fprintf(stderr, "usage: %s [--seed=S] [--draws=N | --long] [--draw=K]\n", argv[0]);
        return 2;
    }
    return cmocka_run_group_tests_name("invariant 1, drawn", tests, NULL, NULL);
}
