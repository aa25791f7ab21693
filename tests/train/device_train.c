/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole path of the cuda device under the sanitizers: a model so small that ThreadSanitizer,
 * too, trains it in seconds, from the disk through staging buffers into two or three slots and
 * back, with every stream pausing at random. The bytes are those of a run with all parameters in
 * place and no pauses; nothing of the device is left behind; and where it does not blunt
 * ThreadSanitizer, device memory kills a host that touches it.
 *
 * The mutants say of a copy in, of a copy out, or of the compute of a visit that it is done when it
 * has been queued: as if an event were missing. ThreadSanitizer calls that what it is; without it,
 * the bytes must tell.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/device/which.h"
#include "tests/train/common.h"

#define MIB ((uint64_t)1 << 20)

#ifdef __SANITIZE_THREAD__
#define PROTECT 0
#define MUTANTS 0
#else
#define PROTECT 1
#define MUTANTS 1
#endif
#define SEEDS 6

static const struct tiny shape = {"llama", 32, 48, 3, 2, 1, 16, 96, 64, ""};
static const struct test_fake *fake;

struct way {
    int smallest; /* device memory: parameters stream */
    int mutant;   /* 0, or one more than the stream it is about */
    int seed;     /* of the pauses; 0: none */
};

static const struct tr_device_ops *sound;
static enum tr_stream early;
static int hastened; /* calls that came too early */

static int call_early(struct tr_device *d, enum tr_stream s, void (*fn)(void *arg), void *arg)
{
    if (s != early)
        return sound->call(d, s, fn, arg);
    hastened++;
    fn(arg);
    return 0;
}

static void make_mutant(struct tr_device *d, enum tr_stream stream)
{
    static struct tr_device_ops ops;

    early = stream;
    sound = d->ops;
    ops = *sound;
    ops.call = call_early;
    d->ops = &ops;
}

static void configure(int seed)
{
    char words[128];

    snprintf(words, sizeof(words), "memory=256MiB,blas=shape,protect=%d,delay=%d", PROTECT, seed);
    fake->configure(words);
}

/* Hash of the model's bytes; 0: checksums have told, which only a mutant's may. */
static uint64_t train_a_way(struct tr_train_params p, const struct way *way)
{
    uint64_t hash = 0;
    tr_run *run;
    int r;

    configure(0);
    p.device_memory = way->smallest ? smallest_budget(p) : 160 * MIB;
    configure(way->seed);
    assert_int_equal(fake->leaks(), 0);
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    if (way->mutant)
        make_mutant(run->device, (enum tr_stream)(way->mutant - 1));
    while ((r = tr_train_step(run, &(struct tr_step_report){0})) == 1)
        ;
    r = r < 0 ? r : tr_train_finish(run);
    if (r < 0 && (!way->mutant || r != -EBADMSG))
        fail_msg("%s", tr_message());
    tr_train_close(run);
    assert_int_equal(fake->leaks(), 0);
    if (r == 0)
        hash = file_hash(scratch_path("run/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    return hash;
}

static void check_mutants(const struct tr_train_params *p, uint64_t expected)
{
    for (int stream = 0; stream < TR_STREAMS; stream++) {
        int caught = 0, seed = 0;

        hastened = 0;
        while (!caught && seed++ < SEEDS)
            caught = train_a_way(*p, &(struct way){1, 1 + stream, seed}) != expected;
        print_message("stream %d: caught with seed %d of %d\n", stream, seed, SEEDS);
        assert_true(caught && hastened > 0);
    }
}

/* What the device keeps for itself of a run with that host budget. */
static uint64_t kept_back(struct tr_train_params p, uint64_t host)
{
    uint64_t bytes;
    tr_run *run;

    configure(0);
    p.device_memory = 160 * MIB;
    p.host_memory = host;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    bytes = run->device_info.workspace_bytes;
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(p.out), 0);
    return bytes;
}

/* The device keeps back the page tables of what a run may pin, which is little of a host budget
 * that is far larger than the model. */
static void check_kept_back(const struct tr_train_params *p)
{
    uint64_t least;

    assert_int_equal(tr_device_cuda_workspace(0, &least), 0);
    assert_int_equal(tr_pinned_tables(4096 * MIB), 8 * MIB);
    assert_int_equal(kept_back(*p, 24 * MIB), least - 4096 + 2 * MIB);
    assert_int_equal(kept_back(*p, 4096 * MIB), least - 4096 + 2 * MIB);
}

static void check(enum tr_type dtype, enum tr_optimizer optimizer, int mutants)
{
    char model[4352], data[4352], out[4352];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .out = out,
                                .steps = 2,
                                .batch_size = 2,
                                .seq_len = 32,
                                .optimizer = optimizer,
                                .device = "cuda",
                                .durability = TR_KEEP_STEP,
                                .threads = 1,
                                .host_memory = 24 * MIB};
    uint64_t expected;

    snprintf(model, sizeof(model), "%s", scratch_path("model-%d", dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    tiny_model(model, &shape, dtype, 5);
    token_data(data, 10, 15, 32, shape.vocab);
    expected = train_a_way(p, &(struct way){0});
    for (int seed = 1; seed <= 2; seed++)
        assert_true(train_a_way(p, &(struct way){.smallest = 1, .seed = seed}) == expected);
    check_kept_back(&p);
    if (mutants)
        check_mutants(&p, expected);
}

static void test_f32(void **state)
{
    (void)state;
    check(TR_TYPE_F32, TR_OPT_ADAMW, 0);
}

static void test_bf16(void **state)
{
    (void)state;
    check(TR_TYPE_BF16, TR_OPT_LOMO, MUTANTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
    };

    fake = test_device_fake();
    if (!fake) {
        puts("skipped: no fake CUDA module is named");
        return 77;
    }
    return cmocka_run_group_tests_name("the cuda device, small", tests, NULL, NULL);
}
