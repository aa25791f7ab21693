/* SPDX-License-Identifier: Apache-2.0
 *
 * Invariant 6: budgets hold, and what the plan says beforehand is what is measured, to the page.
 *
 * The device: with the smallest budget that the refusal of a smaller one names, the run trains; one
 * page less is refused, by a message that names the same number. The arena's high-water mark is
 * read from the kernel (which pages of the mapping have ever been touched), not from the plan:
 * nothing beyond the plan's peak has been, and its last page has, whatever the budget.
 *
 * The host: what is counted never passes --host-memory, the least that is named suffices, and one
 * page less is refused.
 *
 * Over time: after the first steps none makes the memory grow that is counted, nor the heap; a step
 * that keeps 64 bytes is seen.
 *
 * The whole process: the program itself trains, in a memory cgroup where this may make one, a model
 * that is larger than both budgets and 150 MiB together, and its resident size stays below that
 * sum.
 */
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/mem.h"
#include "src/run/run.h"
#include "tests/support/cgroup.h"
#include "tests/train/common.h"

#define PAGE 4096u
#define MIB  ((uint64_t)1 << 20)

/* AddressSanitizer's shadow memory is no part of the program, nor is its heap the C library's. */
#ifdef __SANITIZE_ADDRESS__
#define MEASURABLE 0
#else
#define MEASURABLE 1
#endif

struct kind {
    const char *name;
    struct tiny shape;
    enum tr_type dtype;
    enum tr_optimizer optimizer;
    double clip_norm;
    int64_t batch_size, micro_batch;
    enum tr_recompute recompute;
};

/* Rows of 128 tokens, four to a grain. A grain of the plan may be longer, for rows may be of any
 * length, so with two grains to a batch some pages wait for rows that do not come; where every
 * block keeps its activations, the frame of the others waits too. Else every page is used. */
#define EXACT 4

static const struct kind kinds[] = {
    {"llama, f32, sgd",
     {"llama", 64, 96, 4, 4, 2, 16, 4500, 512, ""},
     TR_TYPE_F32,
     TR_OPT_SGD,
     -1,
     EXACT,
     0,
     TR_RECOMPUTE_AUTO},
    {"mistral, bf16, lomo",
     {"mistral", 64, 96, 3, 4, 2, 16, 300, 512, ""},
     TR_TYPE_BF16,
     TR_OPT_LOMO,
     1,
     EXACT,
     0,
     TR_RECOMPUTE_ALL},
    {"tied, bf16, adamw",
     {"llama-tied", 48, 80, 3, 4, 2, 12, 300, 512, ""},
     TR_TYPE_BF16,
     TR_OPT_ADAMW,
     1,
     EXACT,
     0,
     TR_RECOMPUTE_NONE},
    {"qwen3, f16, lomo, cut",
     {"qwen3", 48, 80, 3, 4, 2, 24, 300, 512, ""},
     TR_TYPE_F16,
     TR_OPT_LOMO,
     1,
     2 * EXACT,
     1,
     TR_RECOMPUTE_AUTO},
    {"a large vocabulary",
     {"llama", 32, 48, 2, 4, 2, 8, 40000, 512, ""},
     TR_TYPE_F32,
     TR_OPT_LOMO,
     1,
     EXACT,
     0,
     TR_RECOMPUTE_AUTO},
};

static char model[4352], data[4352], out[4352];

static struct tr_train_params params(const struct kind *k)
{
    static int made;

    snprintf(model, sizeof(model), "%s", scratch_path("model-%d", made));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%d.jsonl", made++));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    tiny_model(model, &k->shape, k->dtype, 3);
    token_data(data, 16, 128, 128, k->shape.vocab);
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = 2,
                                    .batch_size = k->batch_size,
                                    .seq_len = 128,
                                    .device = "cpu",
                                    .threads = 2,
                                    .optimizer = k->optimizer,
                                    .clip_norm = k->clip_norm,
                                    .micro_batch = k->micro_batch,
                                    .recompute = k->recompute,
                                    .export_model = TR_NO};
}

static void remove_run(void)
{
    if (access(out, F_OK) == 0)
        assert_int_equal(tr_remove_tree(out), 0);
}

/* Which pages of the arena have been touched: the end of the last, and how many have not before. */
static uint64_t high_water(const struct tr_run *run, uint64_t *untouched)
{
    uint64_t pages = run->device_info.arena_bytes / PAGE, last = 0;
    unsigned char *in = calloc(pages, 1);

    *untouched = 0;
    assert_int_equal(mincore(run->pass.arena, pages * PAGE, in), 0);
    for (uint64_t i = 0; i < pages; i++)
        if (in[i] & 1)
            last = i + 1;
    for (uint64_t i = 0; i < last; i++)
        *untouched += !(in[i] & 1);
    free(in);
    return last * PAGE;
}

/* Trains and compares with what the plan of the open run has said. */
static void train_and_measure(const struct tr_train_params *p, const char *name)
{
    struct tr_step_report report;
    uint64_t untouched, high, told, said, spare;
    tr_run *run;
    int shares, r;

    if (tr_train_open(&run, p) < 0)
        fail_msg("%s: %s", name, tr_message());
    said = run->plan.peak;
    shares = run->plan.keep < run->model->config.layers;
    while ((r = tr_train_step(run, &report)) == 1) {
        assert_int_equal(report.device_peak_bytes, said + run->device_info.workspace_bytes);
        assert_true(report.device_peak_bytes <= p->device_memory);
        assert_true(report.host_peak_bytes <= run->params.host_memory);
    }
    assert_int_equal(r, 0);
    high = high_water(run, &untouched);
    assert_int_equal(run_high_water(run, &told), 0);
    assert_int_equal(told, high);
    print_message("%s: %llu said, %llu measured of %llu, %llu pages unused\n", name,
                  (unsigned long long)said, (unsigned long long)high,
                  (unsigned long long)run->device_info.arena_bytes, (unsigned long long)untouched);
    if (run->device_info.arena_bytes > said) { /* a byte beyond would be seen */
        run->pass.arena[said] = 1;
        assert_int_equal(high_water(run, &spare), said + PAGE);
    }
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    remove_run();
    assert_int_equal(high, said);
    if (p->batch_size == EXACT && shares)
        assert_int_equal(untouched, 0);
}

static void refused(struct tr_train_params p, uint64_t budget, uint64_t least)
{
    char words[64];
    tr_run *run;

    snprintf(words, sizeof(words), "smallest that would do is %llu ", (unsigned long long)least);
    p.device_memory = budget;
    assert_int_equal(tr_train_open(&run, &p), -ENOMEM);
    if (!strstr(tr_message(), words))
        fail_msg("not \"%s\" in: %s", words, tr_message());
    assert_int_equal(access(p.out, F_OK), -1);
}

static void test_device(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct tr_train_params p = params(&kinds[i]);
        uint64_t least = smallest_budget(p);

        refused(p, least - PAGE, least);
        refused(p, least - 1, least);
        p.device_memory = least;
        train_and_measure(&p, kinds[i].name);
        p.device_memory = least + 3 * MIB;
        train_and_measure(&p, kinds[i].name);
        p.device_memory = 1024 * MIB;
        train_and_measure(&p, kinds[i].name);
    }
}

static void test_host(void **state)
{
    struct tr_train_params p = params(&kinds[1]);
    uint64_t least;

    (void)state;
    p.device_memory = 64 * MIB;
    p.host_memory = least = smallest_host_budget(p);
    train_and_measure(&p, "host");
    assert_in_range(tr_mem_host_peak(), least - MIB / 2, least); /* what tables may take */
}

/* Tables stream in slices, so a vocabulary of 128k costs the device no more than one of 32k; but
 * for a page of norms: a number for each slice. */
static void test_vocabulary(void **state)
{
    static const int vocab[2] = {32000, 128256};
    static const struct kind forms[] = {
        {"untied",
         {"llama", 64, 96, 2, 4, 2, 16, 0, 512, ""},
         TR_TYPE_BF16,
         TR_OPT_LOMO,
         1,
         EXACT,
         0,
         TR_RECOMPUTE_ALL},
        {"tied",
         {"llama-tied", 64, 96, 2, 4, 2, 16, 0, 512, ""},
         TR_TYPE_BF16,
         TR_OPT_ADAMW,
         -1,
         EXACT,
         0,
         TR_RECOMPUTE_ALL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        uint64_t least[2];

        for (int k = 0; k < 2; k++) {
            struct kind form = forms[i];

            form.shape.vocab = vocab[k];
            least[k] = smallest_budget(params(&form));
        }
        print_message("%s: %llu bytes with 32k, %llu with 128k\n", forms[i].name,
                      (unsigned long long)least[0], (unsigned long long)least[1]);
        assert_true(least[1] <= least[0] + PAGE);
    }
}

/* --- over time ------------------------------------------------------------------------------- */

#define WARM   20 /* steps until tables, caches and free lists have their sizes */
#define STEADY 60
#define LAST   5  /* steps more: the last of a run gives back what no other needs */
#define LEAK   64 /* bytes a step */

struct growth {
    uint64_t counted, heap;
};

/* The heap of an AddressSanitizer tells nothing of itself: zero. */
static struct growth memory_now(void)
{
    return (struct growth){tr_mem_host_now(), mallinfo2().uordblks};
}

/* Steps with an evaluation now and then; with a leak, each of them keeps some memory. */
static struct growth grown(struct tr_train_params p, int leak)
{
    struct growth early = {0}, late = {0};
    struct tr_step_report report;
    void *kept[WARM + STEADY];
    tr_run *run;

    p.steps = WARM + STEADY + LAST;
    p.valid = data;
    p.eval_every = 5;
    if (tr_train_open(&run, &p) < 0)
        fail_msg("%s", tr_message());
    for (int i = 0; i < WARM + STEADY; i++) {
        assert_int_equal(tr_train_step(run, &report), 1);
        kept[i] = leak ? tr_alloc(TR_MEM_MISC, LEAK) : NULL;
        if (i == WARM - 1)
            early = memory_now();
    }
    late = memory_now();
    for (int i = 0; i < WARM + STEADY; i++)
        tr_free(TR_MEM_MISC, kept[i]);
    while (tr_train_step(run, &report) == 1)
        continue;
    assert_int_equal(tr_train_finish(run), 0);
    tr_train_close(run);
    remove_run();
    return (struct growth){late.counted > early.counted ? late.counted - early.counted : 0,
                           late.heap > early.heap ? late.heap - early.heap : 0};
}

static void test_steady(void **state)
{
    struct tr_train_params p = params(&kinds[1]);
    struct growth sound, leaking;

    (void)state;
    p.device_memory = smallest_budget(p);
    sound = grown(p, 0);
    leaking = grown(p, 1);
    print_message("%d steps: %llu bytes counted, heap %llu; where each keeps %d, %llu and %llu\n",
                  STEADY, (unsigned long long)sound.counted, (unsigned long long)sound.heap, LEAK,
                  (unsigned long long)leaking.counted, (unsigned long long)leaking.heap);
    assert_int_equal(sound.counted, 0);
    assert_true(sound.heap < STEADY * LEAK / 2);
    assert_true(leaking.counted >= STEADY * LEAK);
    assert_true(!MEASURABLE || leaking.heap >= STEADY * LEAK);
}

/* --- the whole process ----------------------------------------------------------------------- */

#define DEVICE (64 * MIB)
#define HOST   (24 * MIB)
#define ABOVE  (64 * MIB) /* code, stacks, buffers of the BLAS; 150 are allowed */

/* What was in the group left its trace there. */
static void close_group(const struct cgroup *g)
{
    uint64_t peak = cgroup_peak(g);

    if (peak) {
        print_message("the group: at most %.1f MiB\n", (double)peak / MIB);
        assert_in_range(peak, MIB, DEVICE + HOST + ABOVE);
    }
    cgroup_remove(g);
}

static void become_trainer(const char *config, const char *rows, const struct cgroup *g)
{
    char device[32], host[32];

    snprintf(device, sizeof(device), "%llu", (unsigned long long)DEVICE);
    snprintf(host, sizeof(host), "%llu", (unsigned long long)HOST);
    if (g && cgroup_join(g) < 0)
        _exit(99);
    execl(TAILRACE, "tailrace", "train", "--arch", config, "--data", rows, "--out", out, "--steps",
          "2", "--batch-size", "1", "--seq-len", "128", "--durability", "none", "--export", "no",
          "--device", "cpu", "--threads", "2", "--device-memory", device, "--host-memory", host,
          (char *)NULL);
    _exit(98);
}

static void test_process(void **state)
{
    /* 336 MB of parameters in f32, blocks of 17 MB */
    static const struct tiny shape = {"llama", 512, 2048, 20, 8, 8, 64, 1000, 512, ""};
    char config[4352], rows[4352];
    struct cgroup group;
    struct rusage used;
    uint64_t resident;
    pid_t child;
    int status, grouped;

    (void)state;
    if (!MEASURABLE) {
        print_message("skipped: resident memory says nothing under AddressSanitizer\n");
        skip();
    }
    snprintf(config, sizeof(config), "%s", scratch_path("large.json"));
    snprintf(rows, sizeof(rows), "%s", scratch_path("large.jsonl"));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    tiny_config(config, &shape);
    token_data(rows, 4, 128, 128, shape.vocab);
    /* everything that the program touches counts there, page cache included */
    grouped = cgroup_make(&group, "tailrace-test-peaks", DEVICE + HOST + ABOVE);
    child = fork();
    if (child == 0)
        become_trainer(config, rows, grouped ? &group : NULL);
    assert_int_equal(wait4(child, &status, 0, &used), child);
    if (grouped)
        close_group(&group);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    resident = (uint64_t)used.ru_maxrss * 1024;
    print_message("resident: at most %.1f MiB, budgets %.1f and %.1f\n", (double)resident / MIB,
                  (double)DEVICE / MIB, (double)HOST / MIB);
    assert_true(resident <= DEVICE + HOST + ABOVE);
    remove_run();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_device),     cmocka_unit_test(test_host),
        cmocka_unit_test(test_vocabulary), cmocka_unit_test(test_steady),
        cmocka_unit_test(test_process),
    };

    prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* a huge page is touched as a whole */
    return cmocka_run_group_tests_name("invariant 6", tests, NULL, NULL);
}
