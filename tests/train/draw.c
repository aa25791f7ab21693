/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/train/draw.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "src/base/file.h"
#include "src/base/philox.h"
#include "src/run/run.h"
#include "tests/device/budget.h"

#define PLENTY  ((uint64_t)1 << 30)
#define CHOICES 6
#define STORES  4 /* folders at most */

enum scope { EACH_PART, WHOLE_RUN, AT_CUT };

struct choice {
    const char *name;
    int64_t value;
};

struct dimension {
    const char *name;
    enum scope scope;
    void (*set)(struct part *part, int64_t value);
    struct choice choices[CHOICES];
};

static void set_memory(struct part *t, int64_t v)
{
    t->share = (unsigned)v;
}

static void set_host(struct part *t, int64_t v)
{
    t->host_share = (unsigned)v;
}

/* So many folders beside the run; 0: in it. */
static void set_store(struct part *t, int64_t v)
{
    static char list[STORES * 4400];

    list[0] = 0;
    for (int i = 0; i < v; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i ? ":" : "",
                 scratch_path("store-%d", i));
    t->p.store = v ? list : NULL;
}

static void set_streaming(struct part *t, int64_t v)
{
    t->p.streaming = (enum tr_streaming)v;
}

static void set_prefetch(struct part *t, int64_t v)
{
    t->p.prefetch = v;
}

static void set_io(struct part *t, int64_t v)
{
    t->p.io = (enum tr_engine)v;
}

static void set_threads(struct part *t, int64_t v)
{
    t->p.threads = v;
}

static void set_micro(struct part *t, int64_t v)
{
    t->p.micro_batch = v;
}

static void set_recompute(struct part *t, int64_t v)
{
    t->p.recompute = (enum tr_recompute)v;
}

static void set_generations(struct part *t, int64_t v)
{
    t->p.durability = v == 1 ? TR_KEEP_NONE : TR_KEEP_STEP;
}

static void set_commits(struct part *t, int64_t v)
{
    t->p.checkpoint_every = v ? v : 1;
    if (v && t->p.durability == TR_KEEP_STEP)
        t->p.durability = TR_KEEP_CHECKPOINT;
}

static void set_eval(struct part *t, int64_t v)
{
    t->p.valid = v ? t->p.data : NULL;
    t->p.eval_every = v;
}

static void set_serial(struct part *t, int64_t v)
{
    t->p.serial = (int)v;
}

static void set_pauses(struct part *t, int64_t v)
{
    t->p.delay_seed = (unsigned)v;
}

/* The exact ways, where the subject is clipped and there is more than one. */
static void set_clip(struct part *t, int64_t v)
{
    if (t->p.clip_norm > 0)
        t->p.clip_method = (enum tr_clip)v;
}

static void set_update(struct part *t, int64_t v)
{
    t->p.update_on = (enum tr_update_on)v;
}

static void set_stop(struct part *t, int64_t v)
{
    t->killed = (int)v;
}

/* Whatever may not change a bit: each choice as often as the others. */
static const struct dimension dimensions[] = {
    {"device-memory",
     EACH_PART,
     set_memory,
     {{"smallest", 0}, {"1/16", 62}, {"1/4", 250}, {"1/2", 500}, {"3/4", 750}, {"all", 1000}}},
    {"host-memory",
     EACH_PART,
     set_host,
     {{"smallest", 0}, {"1/4", 250}, {"1/2", 500}, {"3/4", 750}, {"all", 1000}, {"plenty", 9000}}},
    {"store",
     WHOLE_RUN,
     set_store,
     {{"in the run", 0}, {"elsewhere", 1}, {"two folders", 2}, {"three", 3}}},
    {"prefetch", EACH_PART, set_prefetch, {{"all", 0}, {"1", 1}, {"2", 2}, {"5", 5}}},
    {"io",
     EACH_PART,
     set_io,
     {{"best", TR_ENGINE_AUTO}, {"threads", TR_ENGINE_THREADS}, {"best", TR_ENGINE_AUTO}}},
    {"threads", EACH_PART, set_threads, {{"1", 1}, {"2", 2}, {"3", 3}, {"5", 5}}},
    {"micro-batch", EACH_PART, set_micro, {{"auto", 0}, {"1", 1}, {"5", 5}, {"all", 1000}}},
    {"recompute",
     EACH_PART,
     set_recompute,
     {{"auto", TR_RECOMPUTE_AUTO}, {"all", TR_RECOMPUTE_ALL}, {"none", TR_RECOMPUTE_NONE}}},
    {"streaming",
     EACH_PART,
     set_streaming,
     {{"auto", TR_STREAMING_AUTO}, {"matrices", TR_STREAMING_MATRICES}}},
    {"generations", WHOLE_RUN, set_generations, {{"2", 2}, {"2", 2}, {"1", 1}}},
    {"clip",
     WHOLE_RUN,
     set_clip,
     {{"auto", TR_CLIP_AUTO}, {"two-pass", TR_CLIP_TWO_PASS}, {"deferred", TR_CLIP_DEFERRED}}},
    {"commit", EACH_PART, set_commits, {{"every step", 0}, {"2nd step", 2}, {"3rd step", 3}}},
    {"eval", EACH_PART, set_eval, {{"none", 0}, {"none", 0}, {"every step", 1}}},
    {"serial", EACH_PART, set_serial, {{"no", 0}, {"no", 0}, {"no", 0}, {"yes", 1}}},
    {"pauses", EACH_PART, set_pauses, {{"none", 0}, {"none", 0}, {"A", 5}, {"B", 77}}},
    {"update-on",
     EACH_PART,
     set_update,
     {{"auto", TR_UPDATE_AUTO}, {"device", TR_UPDATE_DEVICE}, {"cpu", TR_UPDATE_CPU}}},
    {"end", AT_CUT, set_stop, {{"stopped", 0}, {"killed", 1}}},
};

static uint32_t random_word(const struct draw *d, const char *name, int part)
{
    struct tr_philox c = {{(uint32_t)XXH3_64bits(name, strlen(name)), (uint32_t)part,
                           (uint32_t)d->seed, (uint32_t)(d->seed >> 32)}};

    return tr_philox4x32(c, d->number, 1).v[0];
}

static struct tr_train_params subject_params(const struct subject *s)
{
    static char model[4352], data[4352], out[4352];

    snprintf(model, sizeof(model), "%s", scratch_path("model-%s", s->name));
    snprintf(data, sizeof(data), "%s", scratch_path("data-%s.jsonl", s->name));
    snprintf(out, sizeof(out), "%s", scratch_path("run"));
    return (struct tr_train_params){.model = model,
                                    .data = data,
                                    .out = out,
                                    .steps = DRAW_STEPS,
                                    .batch_size = s->batch_size,
                                    .seq_len = s->seq_len,
                                    .optimizer = s->optimizer,
                                    .clip_norm = s->clip_norm,
                                    .lr = s->lr,
                                    .freeze = s->freeze,
                                    .master = s->master,
                                    .threads = 2,
                                    .seed = 11};
}

void draw_make_inputs(const struct subject *s)
{
    const char *model = scratch_path("model-%s", s->name);

    if (access(model, F_OK) == 0)
        return;
    tiny_model(model, &s->shape, s->dtype, 3);
    token_data(scratch_path("data-%s.jsonl", s->name), DRAW_STEPS * s->batch_size, s->seq_len / 6,
               s->seq_len, s->shape.vocab);
}

static void say(struct draw *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct draw *d, const char *fmt, ...)
{
    size_t n = strlen(d->text);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(d->text + n, sizeof(d->text) - n, fmt, ap);
    va_end(ap);
}

static void draw_dimension(struct draw *d, const struct dimension *row, int part)
{
    uint32_t n = 0, word = random_word(d, row->name, row->scope == WHOLE_RUN ? 0 : part);
    const struct choice *c;

    while (n < CHOICES && row->choices[n].name)
        n++;
    c = &row->choices[word % n];
    row->set(&d->part[part], c->value);
    if (row->scope != WHOLE_RUN || part == 0)
        say(d, " %s=%s", row->name, c->name);
}

/* A run of one generation has nothing to go on from after a kill; the driver of a GPU does not
 * survive the fork that a kill needs. */
static int may_kill(const struct draw *d, int part)
{
    return part + 1 < d->n_parts && d->part[part].p.durability != TR_KEEP_NONE &&
           test_budget(NULL, 0) == 0;
}

void draw_all(struct draw *d)
{
    d->text[0] = 0;
    d->n_parts = 1 + (int)(random_word(d, "parts", 0) % DRAW_PARTS);
    say(d, "--seed=%llu --draw=%u: %s:", (unsigned long long)d->seed, d->number, d->subject->name);
    for (int i = 0; i < d->n_parts; i++) {
        struct part *t = &d->part[i];

        *t = (struct part){.p = subject_params(d->subject)};
        t->steps = 1 + (int)(random_word(d, "steps", i) % 2);
        say(d, "%s", i ? "\n   then" : "");
        if (i + 1 < d->n_parts)
            say(d, " %d steps,", t->steps);
        for (size_t k = 0; k < sizeof(dimensions) / sizeof(dimensions[0]); k++)
            if (dimensions[k].scope != AT_CUT || may_kill(d, i))
                draw_dimension(d, &dimensions[k], i);
        if (t->p.micro_batch > t->p.batch_size)
            t->p.micro_batch = t->p.batch_size;
    }
}

/* Little is stored: beside the least that staging takes, what is given goes to homes. */
static void set_budgets(struct part *t, const struct draw *d)
{
    uint64_t least = smallest_budget_of(t->p);
    uint64_t room = d->resident > least ? d->resident - least : 0;

    t->p.device_memory = least + room * t->share / 1000;
    t->p.host_memory = smallest_host_budget(t->p) + d->stored * t->host_share / 1000;
}

static uint32_t mixed;

uint32_t draw_mixed(void)
{
    return mixed;
}

static void count_mixed(const struct tr_run *run)
{
    struct tr_offload_stats s;

    tr_offload_stats(run->offload, &s);
    mixed += s.host_loads > 0 && s.read_bytes > tr_layout_bytes(&run->model->layout);
}

/* 0: to the end of the part. Invariant 6 on the way: the peaks are within the budgets. */
static int run_part(const struct draw *d, int i, int last)
{
    const struct part *t = &d->part[i];
    struct tr_step_report report;
    tr_run *run;
    int r = tr_train_open(&run, &t->p), n = 0;

    if (r < 0)
        return r;
    if (d->spoil)
        d->spoil(run->device, i);
    while ((last || n < t->steps) && (r = tr_train_step(run, &report)) == 1) {
        n++;
        assert_true(report.device_peak_bytes <= t->p.device_memory);
        if (report.host_peak_bytes > run->params.host_memory)
            fail_msg("%llu bytes of host memory, of %llu",
                     (unsigned long long)report.host_peak_bytes,
                     (unsigned long long)run->params.host_memory);
    }
    if (t->killed)
        raise(SIGKILL);
    if (r >= 0) { /* else the engine may be gone */
        count_mixed(run);
        r = tr_train_finish(run);
    }
    tr_train_close(run);
    return r;
}

static int run_killed(const struct draw *d, int i)
{
    pid_t child = fork();
    int status;

    assert_true(child >= 0);
    if (child == 0) {
        run_part(d, i, 0);
        fprintf(stderr, "%s\n", tr_message());
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -ECHILD;
}

static void remove_folder(const char *path)
{
    if (access(path, F_OK) == 0)
        assert_int_equal(tr_remove_tree(path), 0);
}

uint64_t draw_play(const struct draw *drawn)
{
    struct draw d = *drawn;
    uint64_t hash = 0;
    int r = 0;

    for (int i = 0; i < d.n_parts && r >= 0; i++) {
        set_budgets(&d.part[i], &d);
        r = d.part[i].killed ? run_killed(&d, i) : run_part(&d, i, i + 1 == d.n_parts);
    }
    if (r >= 0)
        hash = file_hash(scratch_path("run/model/model.safetensors"));
    remove_folder(scratch_path("run"));
    for (int i = 0; i < STORES; i++)
        remove_folder(scratch_path("store-%d", i));
    return hash;
}

uint64_t draw_reference(struct draw *d)
{
    struct tr_step_report report;
    struct part *t = &d->part[0];
    uint64_t hash;
    tr_run *run;
    int r;

    d->n_parts = 1;
    *t = (struct part){.p = subject_params(d->subject), .share = 1000};
    t->p.device_memory = test_budget(NULL, PLENTY);
    if ((r = tr_train_open(&run, &t->p)) == 0) {
        d->stored = tr_layout_bytes(&run->model->layout);
        r = train_rest(run, &report);
    }
    if (r < 0)
        fail_msg("%s: %s", d->subject->name, tr_message());
    d->resident = report.device_peak_bytes;
    hash = file_hash(scratch_path("run/model/model.safetensors"));
    remove_folder(scratch_path("run"));
    return hash;
}
