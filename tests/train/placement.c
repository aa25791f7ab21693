/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/placement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/run/run.h"
#include "tests/device/budget.h"
#include "tests/support/uring.h"

/* "SCRATCH/run-part-0:..." */
static const char *part_folders(int n)
{
    static char list[8 * 4400];

    list[0] = 0;
    for (int i = 0; i < n; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ":" : "",
                 scratch_path("run-part-%d", i));
    return n ? list : NULL;
}

static uint64_t exported_hash(const struct tr_train_params *p)
{
    if (!p->lora_rank)
        return file_hash(scratch_path("run/model/model.safetensors"));
    if (!p->lora_optimizer)
        return file_hash(scratch_path("run/model/adapter_model.safetensors"));
    return file_hash(scratch_path("run/model/model.safetensors")) * 3 +
           file_hash(scratch_path("run/model/adapter/adapter_model.safetensors"));
}

/* The engine is the one asked for: io_uring too, where it can be had and nothing else was named. */
static void expect_engine(const struct tr_run *run)
{
    static int told;
    const char *engine = tr_offload_io_name(run->offload);
    int ring = !strncmp(engine, "io_uring", 8);

    if (run->params.io == TR_ENGINE_AUTO && !ring && (getenv("TAILRACE_IO") || !have_uring())) {
        if (!told++)
            print_message("skipped: io_uring, refused here by the kernel or TAILRACE_IO\n");
        return;
    }
    if (run->params.io == TR_ENGINE_THREADS ? !strstr(engine, " threads, ") : !ring)
        fail_msg("another engine than asked for: %s", engine);
}

/* Those that OPENBLAS_CORETYPE forces, where it does. */
static void expect_kernels(const struct tr_run *run)
{
    const char *core = getenv("OPENBLAS_CORETYPE"), *bits = run->device_info.bits;

    if (core && *core && !strncmp(bits, "cpu ", 4) && strcasecmp(strrchr(bits, ' ') + 1, core) != 0)
        fail_msg("OPENBLAS_CORETYPE=%s, and still %s", core, bits);
}

/* As train_part, and to the end where steps is 0. */
static int train_as_asked(const struct tr_train_params *p, int steps, struct tr_step_report *last)
{
    struct tr_step_report report;
    tr_run *run;
    int r = tr_train_open(&run, p);

    if (r < 0)
        return r;
    expect_engine(run);
    expect_kernels(run);
    for (int i = 0; (!steps || i < steps) && (r = tr_train_step(run, &report)) == 1; i++)
        *last = report;
    if (r >= 0)
        r = tr_train_finish(run);
    tr_train_close(run);
    return r;
}

uint64_t run_variant(struct tr_train_params p, const struct variant *v, uint64_t device)
{
    struct tr_step_report last;
    char out[4352];
    int r = 0;

    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    p.io = v->io;
    p.prefetch = v->prefetch;
    p.threads = v->threads ? v->threads : 2;
    p.micro_batch = v->micro_batch;
    p.recompute = v->recompute;
    p.streaming = v->streaming;
    p.durability = v->durability;
    p.checkpoint_every = 2;
    p.delay_seed = v->delay_seed;
    p.serial = v->serial;
    p.host_memory = v->host_memory;
    p.device_memory = v->smallest ? smallest_budget(p) : device;
    p.out = out;
    p.store = part_folders(v->folders);
    if (v->interrupted)
        r = train_as_asked(&p, 2, &last);
    if (r == 0)
        r = train_as_asked(&p, 0, &last);
    if (r < 0)
        fail_msg("%s: %s", v->name, tr_message());
    assert_true(last.device_peak_bytes <= p.device_memory);
    return exported_hash(&p);
}

void remove_run(void)
{
    char command[8192];

    snprintf(command, sizeof(command), "rm -rf '%s' '%s'-part-*", scratch_path("run"),
             scratch_path("run"));
    assert_int_equal(system(command), 0);
}

static double lr_of(const struct placements *all)
{
    int adam = all->optimizer == TR_OPT_ADAMW || all->optimizer == TR_OPT_ADAM_MINI;

    return adam ? 1e-3 : all->optimizer == TR_OPT_ADALOMO ? 1e-2 : 0.1 * (1 - all->momentum);
}

static int take_all;
static size_t one_in; /* 0: what the placements say */

void placements_options(int argc, char **argv)
{
    take_all = argc > 1 && !strcmp(argv[1], "--all");
    if (argc > 1 && !strncmp(argv[1], "--share=", 8))
        one_in = strtoul(argv[1] + 8, NULL, 10);
}

int placements_are_few(void)
{
    return one_in > 0;
}

/* What a sanitizer looks at is the same whatever the model: there a program, whose calls are 2 at
 * least, or 4 where each takes a share of one in two, takes every variant once or twice. */
#ifdef __SANITIZE_ADDRESS__
#define FEWER 2
#else
#define FEWER 1
#endif

/* Each call takes one at least. */
static int is_due(const struct placements *all, size_t variant, size_t call)
{
    size_t share = one_in ? one_in : (all->share ? all->share : 1) * FEWER;

    return take_all || (variant + call) % (share < all->n ? share : all->n) == 0;
}

void check_placements(const struct placements *all)
{
    static size_t call;
    static unsigned shown; /* a bit for each dtype */
    const struct tiny *t = all->shape;
    char model[4352], data[4352];
    struct tr_train_params p = {.model = model,
                                .data = data,
                                .steps = 3,
                                .warmup = 3,      /* every step counts: the last rate is not 0 */
                                .batch_size = 11, /* two grains of the cuda device */
                                .seq_len = 200,
                                .optimizer = all->optimizer,
                                .seed = 11,
                                .lr = lr_of(all),
                                .momentum = all->momentum,
                                .clip_norm = all->clip_norm,
                                .state_dtype = all->state_dtype,
                                .freeze = all->freeze,
                                .fused_gemm = all->fused_gemm,
                                .master = all->master,
                                .lora_rank = all->lora_rank,
                                .lora_dropout = all->lora_dropout,
                                .lora_targets = all->lora_targets,
                                .lora_optimizer = all->lora_optimizer};
    uint64_t budget = test_budget(NULL, 1ull << 30), expected;
    int taken = 0;

    snprintf(model, sizeof(model), "%s", scratch_path("model-%s-%d", t->family, all->dtype));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%s.jsonl", t->family));
    tiny_model(model, t, all->dtype, 3);
    token_data(data, 80, 20, 90, t->vocab); /* attention goes with the square of a document */
    expected = run_variant(p, &(struct variant){"everything resident"}, budget);
    remove_run();
    for (size_t i = 0; i < all->n; i++) {
        if (!is_due(all, i, call))
            continue;
        taken++;
        if (run_variant(p, &all->variants[i], budget) != expected)
            fail_msg("%s: other bits than with everything resident", all->variants[i].name);
        remove_run();
    }
    assert_true(taken > 0);
    p.seed = 12; /* the comparison sees a difference where there is one */
    if (take_all || !(shown >> all->dtype & 1))
        assert_true(run_variant(p, &all->variants[0], budget) != expected);
    shown |= 1u << all->dtype;
    call++;
    remove_run();
    remove(data);
    tr_remove_tree(model);
}
