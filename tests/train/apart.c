/* SPDX-License-Identifier: Apache-2.0
 *
 * Updates on the cpu beside a GPU (src/train/apart.h), on the fake runtime, which delays every
 * stream at random: every optimizer and every way to clip gives the bytes of updates on the device
 * (invariant 1), whole blocks and matrices, from the disk and beside it, interrupted and resumed;
 * and the peaks are within their budgets (invariant 6). A run that is killed goes on from its last
 * commit, wherever its updates run then (invariant 2).
 *
 * On a device whose compute, or whose copies out, are as late as their order allows the bytes are
 * the same, too. Its mutants drop what orders the copies: gradients are fetched before they are
 * made, or made anew before they have been fetched; or it says that copies have arrived when they
 * have been queued; or, on one whose copies in are slow, nobody waits for them.
 */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/train/common.h"
#include "tests/train/late.h"

#define LITTLE                                                                                     \
    (24u << 20) /* host memory for the data, small staging buffers, few slots of state             \
                 */

static const struct tiny shapes[] = {
    {"llama", 32, 48, 3, 2, 1, 16, 300, 512, ""},
    {"llama-tied", 32, 48, 2, 2, 1, 16, 200, 512, ""},
    {"qwen3", 32, 48, 2, 2, 1, 16, 200, 512, ""},
    {"llama", 16, 32, 2, 1, 1, 16, 4500, 512, ""}, /* two table slices */
};

struct job {
    const struct tiny *shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer;
    double clip, momentum;
    enum tr_clip method;
    enum tr_type state_dtype, parked_dtype;
    const char *freeze;
    int rank; /* of adapters beside the model, which stay on the device */
    enum tr_master_choice master;
    int rows; /* of a step: 12 are two grains of the device; 0: 4, which the fake one has sooner */
};

struct way {
    int smallest, interrupted;
    enum tr_streaming streaming;
    int micro_batch;
    uint64_t host_memory;
};

static const struct way ways[] = {
    {.host_memory = LITTLE},
    {.smallest = 1, .host_memory = LITTLE, .streaming = TR_STREAMING_MATRICES, .micro_batch = 1},
    {.smallest = 1, .host_memory = LITTLE},
    {.smallest = 1, .interrupted = 1, .micro_batch = 1},
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))

static double rate(enum tr_optimizer o)
{
    int adam = o == TR_OPT_ADAMW || o == TR_OPT_ADAM_MINI;

    return adam ? 1e-3 : o == TR_OPT_ADALOMO ? 1e-2 : 0.05;
}

static uint64_t train_so(struct tr_train_params p, const struct way *w, enum tr_update_on on)
{
    struct tr_step_report last;
    uint64_t hash;
    int r = 0;

    p.update_on = on;
    p.streaming = w->streaming;
    p.micro_batch = w->micro_batch;
    p.host_memory = w->host_memory;
    p.device_memory = w->smallest ? smallest_budget(p) : test_budget(NULL, 1ull << 30);
    if (w->interrupted)
        r = train_part(&p, 2);
    if (r == 0)
        r = train(&p, &last);
    if (r < 0)
        fail_msg("%s", tr_message());
    assert_true(last.device_peak_bytes <= p.device_memory);
    assert_true(!w->host_memory || last.host_peak_bytes <= w->host_memory);
    hash = file_hash(scratch_path("run/model/model.safetensors"));
    if (p.lora_rank)
        hash ^= 3 * file_hash(scratch_path("run/model/adapter/adapter_model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    return hash;
}

/* The paths live until the next call. */
static struct tr_train_params params_of(const struct job *j)
{
    static char model[4352], data[4352], out[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("model"));
    snprintf(data, sizeof(data), "%s", scratch_path("data.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = 3,
                                    .batch_size = j->rows ? j->rows : 4,
                                    .seq_len = 180,
                                    .optimizer = j->optimizer,
                                    .lr = rate(j->optimizer),
                                    .momentum = j->momentum,
                                    .clip_norm = j->clip,
                                    .clip_method = j->method,
                                    .state_dtype = j->state_dtype,
                                    .parked_dtype = j->parked_dtype,
                                    .freeze = j->freeze,
                                    .master = j->master,
                                    .lora_rank = j->rank,
                                    .lora_optimizer = j->rank ? TR_OPT_ADAMW : TR_OPT_DEFAULT,
                                    .weight_decay = 0.01,
                                    .threads = 2,
                                    .seed = 11};
}

static struct tr_train_params begin(const struct job *j)
{
    struct tr_train_params p = params_of(j);

    tiny_model(p.model, j->shape, j->dtype, 3);
    token_data(p.data, 80, 20, 80, j->shape->vocab);
    return p;
}

static void end(const struct tr_train_params *p)
{
    remove(p->data);
    tr_remove_tree(p->model);
}

/* In `n` of the ways, where the last one stopped. */
static void check_ways(const struct job *j, size_t n)
{
    static size_t turn;
    struct tr_train_params p = begin(j);
    uint64_t expected = train_so(p, &ways[0], TR_UPDATE_DEVICE);

    for (; n > 0; n--, turn++)
        if (train_so(p, &ways[turn % WAYS], TR_UPDATE_CPU) != expected)
            fail_msg("way %zu: other bits than on the device", turn % WAYS);
    end(&p);
}

static void check(const struct job *j)
{
    check_ways(j, 1);
}

static void test_adamw(void **state)
{
    (void)state;
    check_ways(&(struct job){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, -1, .rows = 12}, WAYS);
}

static void test_lomo(void **state)
{
    (void)state;
    check(&(struct job){&shapes[3], TR_TYPE_F32, TR_OPT_LOMO, -1});
}

static void test_two_pass(void **state)
{
    (void)state;
    check(&(struct job){&shapes[1], TR_TYPE_BF16, TR_OPT_ADAMW, 1, .method = TR_CLIP_TWO_PASS,
                        .state_dtype = TR_TYPE_BF16});
}

static void test_deferred(void **state)
{
    (void)state;
    check(&(struct job){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAM_MINI, 1, .method = TR_CLIP_DEFERRED,
                        .rows = 12});
}

static void test_deferred_bf16(void **state)
{
    (void)state;
    check(&(struct job){&shapes[1], TR_TYPE_F32, TR_OPT_ADALOMO, 1, .method = TR_CLIP_DEFERRED,
                        .parked_dtype = TR_TYPE_BF16, .rows = 12});
}

static void test_group(void **state)
{
    (void)state;
    check(&(struct job){&shapes[0], TR_TYPE_F32, TR_OPT_ADAMW, 0.1,
                        .method = (enum tr_clip)(TR_CLIP_GROUP + 2)});
}

static void test_adalomo(void **state)
{
    (void)state;
    check(&(struct job){&shapes[3], TR_TYPE_BF16, TR_OPT_ADALOMO, -1});
}

static void test_adalomo_tied(void **state)
{
    (void)state;
    check(&(struct job){&shapes[1], TR_TYPE_F32, TR_OPT_ADALOMO, -1});
}

static void test_f16(void **state)
{
    (void)state;
    check(&(struct job){&shapes[2], TR_TYPE_F16, TR_OPT_ADAM_MINI, 1, .method = TR_CLIP_TWO_PASS});
}

static void test_frozen(void **state)
{
    (void)state;
    check(&(struct job){&shapes[2], TR_TYPE_BF16, TR_OPT_SGD, -1, .momentum = 0.9,
                        .freeze = "*embed*,*.0.self_attn*,*.1.*norm*"});
}

static void test_adapters(void **state)
{
    (void)state;
    check_ways(&(struct job){&shapes[2], TR_TYPE_BF16, TR_OPT_ADAMW, -1, .rank = 3,
                             .master = TR_MASTERS_SPLIT},
               2);
    check(&(struct job){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, 0.1, .method = TR_CLIP_TWO_PASS,
                        .freeze = "*embed*,*layers.1.*", .rank = 2});
    check(&(struct job){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, 0.1, .method = TR_CLIP_DEFERRED,
                        .rank = 2});
}

/* --- kills ---------------------------------------------------------------------------------- */

static const struct job killed = {&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, 1,
                                  .method = TR_CLIP_DEFERRED};
#define KILLED_STEPS 9

static struct tr_train_params killed_params(enum tr_update_on on)
{
    struct tr_train_params p = params_of(&killed);

    p.steps = KILLED_STEPS;
    p.batch_size = 3;
    p.update_on = on;
    p.host_memory = LITTLE;
    p.device_memory = test_budget(NULL, 1ull << 30);
    return p;
}

/* A GPU does not survive a fork: the child is this program anew, with the parent's folder. */
static int child_main(const char *folder, const char *on)
{
    struct tr_train_params p;

    scratch_borrow(folder);
    p = killed_params((enum tr_update_on)atoi(on));
    if (train(&p, NULL) == 0)
        return 0;
    fprintf(stderr, "child: %s\n", tr_message());
    return 1;
}

static int lines_of(const char *path)
{
    FILE *f = fopen(path, "r");
    int lines = 0, c;

    while (f && (c = fgetc(f)) != EOF)
        lines += c == '\n';
    if (f)
        fclose(f);
    return lines;
}

/* Until so many steps are durable, or done. 1: it was done. */
static int live(enum tr_update_on on, int steps)
{
    char word[8], path[4400];
    pid_t child = fork();
    int status;

    snprintf(path, sizeof(path), "%s", scratch_path("run/metrics.jsonl"));
    snprintf(word, sizeof(word), "%d", (int)on);
    if (child == 0) {
        execl("/proc/self/exe", "test_apart", scratch(), word, (char *)NULL);
        _exit(2);
    }
    while (waitpid(child, &status, WNOHANG) == 0) {
        nanosleep(&(struct timespec){0, 500000}, NULL);
        if (lines_of(path) < steps)
            continue;
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        break;
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0)
        fail_msg("a continued run failed after %d durable steps", lines_of(path));
    return WIFEXITED(status);
}

static void test_killed(void **state)
{
    struct tr_train_params p = begin(&killed);
    uint64_t expected;
    int kills = 0;

    (void)state;
    p = killed_params(TR_UPDATE_DEVICE);
    if (train(&p, NULL) < 0)
        fail_msg("%s", tr_message());
    expected = file_hash(scratch_path("run/model/model.safetensors"));
    assert_int_equal(tr_remove_tree(p.out), 0);
    while (!live(kills % 3 == 2 ? TR_UPDATE_DEVICE : TR_UPDATE_CPU, 1 + 3 * kills))
        kills++;
    assert_true(kills >= 3);
    assert_true(file_hash(scratch_path("run/model/model.safetensors")) == expected);
    assert_int_equal(tr_remove_tree(p.out), 0);
    end(&p);
}

/* --- late streams --------------------------------------------------------------------------- */

static uint64_t train_late(struct tr_train_params p, const struct late *late)
{
    uint64_t hash;
    tr_run *run;
    int r;

    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    late_open(run, late);
    while ((r = tr_train_step(run, &(struct tr_step_report){0})) == 1)
        ;
    if (r < 0 || tr_train_finish(run) < 0) /* a defect is told by the bytes alone */
        fail_msg("%s", tr_message());
    hash = file_hash(scratch_path("run/model/model.safetensors"));
    tr_train_close(run);
    assert_int_equal(tr_remove_tree(p.out), 0);
    return hash;
}

static void test_late(void **state)
{
    struct tr_train_params p = begin(&(struct job){&shapes[0], TR_TYPE_BF16, TR_OPT_ADAMW, -1});
    const struct {
        const char *name;
        struct late late;
        int bad;
    } cases[] = {
        {"compute is late", {TR_STREAM_COMPUTE, 0, 0}, 0},
        {"copies out are late", {TR_STREAM_OUT, 0, 0}, 0},
        {"gradients fetched before they are made", {TR_STREAM_COMPUTE, 1, 0}, 1},
        {"gradients made anew before they have been fetched", {TR_STREAM_OUT, 1, 0}, 1},
        {"arrived when queued", {TR_STREAM_OUT, 0, 1}, 1},
    };
    uint64_t expected;

    (void)state;
    p.steps = 1;
    expected = train_so(p, &ways[0], TR_UPDATE_CPU);
    p.update_on = TR_UPDATE_CPU;
    p.host_memory = LITTLE;
    p.streaming = TR_STREAMING_MATRICES;
    p.device_memory = smallest_budget(p);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        if ((train_late(p, &cases[i].late) != expected) != cases[i].bad)
            fail_msg("%s: %s bits", cases[i].name, cases[i].bad ? "the same" : "other");
    end(&p);
}

#define TRIES 8

/* Of gradients that have waited for a step nothing is made in this one: what keeps weights from
 * being fetched over those that are still on their way back is that copy's event alone. */
static void test_slow_copies(void **state)
{
    struct tr_train_params p =
        begin(&(struct job){&shapes[0], TR_TYPE_F32, TR_OPT_ADAMW, 1, .method = TR_CLIP_DEFERRED});
    uint64_t expected;
    int seen = 0;

    (void)state;
    expected = train_so(p, &ways[0], TR_UPDATE_CPU);
    p.update_on = TR_UPDATE_CPU;
    p.host_memory = LITTLE;
    p.device_memory = test_budget(NULL, 1ull << 30);
    assert_true(train_late(p, &(struct late){TR_STREAM_IN, .slow = 1}) == expected);
    for (int i = 0; i < TRIES && !seen; i++) /* it is a race that the defect loses nearly always */
        seen = train_late(p, &(struct late){TR_STREAM_IN, .slow = 1, .rash = 1}) != expected;
    assert_true(seen);
    end(&p);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),    cmocka_unit_test(test_lomo),
        cmocka_unit_test(test_two_pass), cmocka_unit_test(test_deferred),
        cmocka_unit_test(test_group),    cmocka_unit_test(test_deferred_bf16),
        cmocka_unit_test(test_adalomo),  cmocka_unit_test(test_adalomo_tied),
        cmocka_unit_test(test_f16),      cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_adapters), cmocka_unit_test(test_killed),
        cmocka_unit_test(test_late),     cmocka_unit_test(test_slow_copies),
    };

    if (argc == 3)
        return child_main(argv[1], argv[2]);
    if (!test_budget(NULL, 0)) {
        puts("skipped: no GPU, nor a fake one");
        return 77;
    }
    return cmocka_run_group_tests_name("updates apart", tests, NULL, NULL);
}
